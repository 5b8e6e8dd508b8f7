"""Energy against volume: equilibrium volume and bulk modulus."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator
from ase.eos import EquationOfState, birchmurnaghan
from numpy.typing import NDArray

from mlipcluster.protocols.single_point import single_point

ROUNDS = 20


def eos(atoms: Atoms, calc: BaseCalculator, strain: float = 0.03, points: int = 7) -> Atoms:
    """Fit the third-order Birch–Murnaghan equation of state [1]_ to energies at ``points`` volumes.

    The cell is scaled evenly, atoms keep their fractional coordinates. If the smallest energy is at an end of
    the range, the range moves there and the energies are calculated anew, so the start need not be close.

    Parameters
    ----------
    atoms : Atoms
        The structure, periodic in three directions. It is changed.
    calc : BaseCalculator
        Any ASE calculator.
    strain : float
        Range of the linear strain, each way: 0.03 spans 0.97 to 1.03 of each cell vector.
    points : int
        Number of volumes, evenly spaced in linear strain; at least 5, for a fit of 4 parameters.

    Returns
    -------
    Atoms
        The structure at its equilibrium volume, with its results there and, in ``atoms.info``, the scores
        ``bulk_modulus`` (GPa), ``bulk_modulus_derivative`` (with pressure; no unit), ``equilibrium_volume``
        (Å³, of this cell), ``equilibrium_energy`` (eV, of this cell), ``fit_rms`` (eV an atom: the fit's root
        mean square residual), and the points themselves: ``eos_volumes`` (Å³) and ``eos_energies`` (eV).

    Raises
    ------
    ValueError
        The structure is not periodic in three directions, or ``strain`` or ``points`` make no sense.
    RuntimeError
        No minimum of the energy was found.

    References
    ----------
    .. [1] F. Birch, Phys. Rev. 71, 809 (1947), https://doi.org/10.1103/PhysRev.71.809
    """
    if not (atoms.pbc.all() and atoms.cell.rank == 3):
        raise ValueError(
            f"eos needs a structure that is periodic in three directions, not pbc={atoms.pbc.tolist()} with a cell of "
            f"{atoms.cell.rank} vectors; give a crystal, or use single_point or relax."
        )
    if not 0 < strain < 0.5 or points < 5:
        raise ValueError(f"strain={strain}, points={points}: give a strain between 0 and 0.5 and at least 5 points.")

    atoms.calc = calc
    volumes, energies = _bracket(atoms, np.linspace(1 - strain, 1 + strain, points))
    fit = EquationOfState(volumes, energies, eos="birchmurnaghan")
    volume, energy, modulus = fit.fit(warn=False)
    if not (volumes[0] < volume < volumes[-1] and modulus > 0):
        raise RuntimeError(
            f"the fit has its minimum at {volume:.4g} Å³, outside of {volumes[0]:.4g} to {volumes[-1]:.4g} Å³; "
            "the energies may not be smooth: look at them with another strain."
        )
    _scale_to(atoms, volume)
    residuals = energies - birchmurnaghan(volumes, *fit.eos_parameters)
    atoms.info.update(
        bulk_modulus=float(modulus / units.GPa),
        bulk_modulus_derivative=float(fit.eos_parameters[2]),
        equilibrium_volume=float(volume),
        equilibrium_energy=float(energy),
        fit_rms=float(np.sqrt(np.mean(residuals**2)) / len(atoms)),
        eos_volumes=volumes.tolist(),
        eos_energies=energies.tolist(),
    )
    return single_point(atoms, calc)


def _bracket(atoms: Atoms, scales: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Volumes (Å³, ascending) and energies (eV), with the smallest energy not at an end."""
    center = atoms.get_volume()
    for _ in range(ROUNDS):
        volumes = center * scales**3
        energies = np.array([_energy_at(atoms, volume) for volume in volumes])
        lowest = int(np.argmin(energies))
        if 0 < lowest < len(volumes) - 1:
            return volumes, energies
        center = volumes[lowest]
    raise RuntimeError(
        f"the energy still falls at {center / len(atoms):.4g} Å³ an atom, after moving the range of volumes {ROUNDS} "
        "times: this calculator may not bind this structure."
    )


def _energy_at(atoms: Atoms, volume: float) -> float:
    _scale_to(atoms, volume)
    return float(atoms.get_potential_energy())


def _scale_to(atoms: Atoms, volume: float) -> None:
    factor = (volume / atoms.get_volume()) ** (1 / 3)
    atoms.set_cell(atoms.cell * factor, scale_atoms=True)
