"""Move atoms, and the cell if asked, to the nearest minimum of energy or enthalpy."""

from __future__ import annotations

from typing import Any

from ase import Atoms, optimize, units
from ase.calculators.calculator import BaseCalculator
from ase.filters import FrechetCellFilter

from mlipcluster.protocols.segments import memory, moved, put_back, recall

OPTIMIZERS = ("BFGS", "BFGSLineSearch", "FIRE", "FIRE2", "GoodOldQuasiNewton", "LBFGS", "LBFGSLineSearch", "MDMin")


def relax(
    atoms: Atoms,
    calc: BaseCalculator,
    fmax: float = 0.02,
    steps: int = 500,
    cell: bool = False,
    pressure: float = 0.0,
    hydrostatic: bool = False,
    optimizer: str = "BFGS",
    checkpoint: Any = None,
    save_every: int = 50,
) -> Atoms:
    """Relax positions, or positions and cell, until no force is larger than ``fmax``.

    Constraints of the structure are kept. With ``cell=True`` the cell is relaxed through ASE's
    ``FrechetCellFilter``, and the criterion also holds for its three "forces": the derivative of the enthalpy
    with respect to the logarithm of the deformation, divided by the number of atoms (eV).

    Parameters
    ----------
    atoms : Atoms
        The structure. It is changed.
    calc : BaseCalculator
        Any ASE calculator; one with stress if ``cell`` is true.
    fmax : float
        Largest norm of a force allowed at the end, eV/Å.
    steps : int
        Steps of the optimizer at most.
    cell : bool
        Relax the cell too. The structure must be periodic in three directions.
    pressure : float
        External pressure for ``cell=True``, GPa; positive compresses.
    hydrostatic : bool
        With ``cell=True``: scale the cell, but keep its shape.
    optimizer : str
        Name of one of ASE's optimizers: one of ``OPTIMIZERS``.
    checkpoint : mlipcluster.checkpoint.Checkpoint, optional
        Where the relaxation saves itself; with it, an interrupted one ends bit for bit as one that is not.
    save_every : int
        Steps from one save to the next.

    Returns
    -------
    Atoms
        The relaxed structure with its results and, in ``atoms.info``, the scores ``converged`` (bool) and
        ``steps`` (int). A relaxation that runs out of steps is no error: ``converged`` is False, and the
        structure is where it got to.

    Raises
    ------
    ValueError
        The optimizer is unknown, or there is no cell to relax or to press on.
    """
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer {optimizer!r} is unknown; known: {', '.join(OPTIMIZERS)}.")
    if cell and not (atoms.pbc.all() and atoms.cell.rank == 3):
        raise ValueError(
            f"cell=True needs a structure that is periodic in three directions, not pbc={atoms.pbc.tolist()} "
            f"with a cell of {atoms.cell.rank} vectors; set cell=False to relax positions only."
        )
    if not cell and (pressure or hydrostatic):
        raise ValueError("pressure and hydrostatic act on the cell; set cell=True.")
    if not save_every > 0:
        raise ValueError(f"save_every={save_every!r}: give a positive number of steps.")

    atoms.calc = calc
    start = atoms.copy()
    restart = None if checkpoint is None else checkpoint.load()
    while True:
        if restart is not None:
            put_back(atoms, start, start)  # the filter measures deformations from the first cell
        target = (
            FrechetCellFilter(atoms, scalar_pressure=pressure * units.GPa, hydrostatic_strain=hydrostatic)
            if cell
            else atoms
        )
        dynamics = getattr(optimize, optimizer)(target, logfile=None)
        if restart is not None:
            put_back(atoms, start, restart[0])
            recall(dynamics, restart[1])
        stop = steps if checkpoint is None else min(steps, dynamics.nsteps + save_every)
        converged = dynamics.run(fmax=fmax, steps=stop - dynamics.nsteps)
        if converged or stop == steps:
            break
        checkpoint.save(moved(atoms), memory(dynamics))
        restart = checkpoint.load()
    if cell:
        atoms.get_stress()
    atoms.info["converged"] = bool(converged)
    atoms.info["steps"] = int(dynamics.nsteps)
    return atoms
