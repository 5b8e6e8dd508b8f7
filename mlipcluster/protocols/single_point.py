"""Energy, forces and stress of a structure as it is."""

from __future__ import annotations

import contextlib

from ase import Atoms
from ase.calculators.calculator import BaseCalculator, PropertyNotImplementedError


def single_point(atoms: Atoms, calc: BaseCalculator) -> Atoms:
    """Calculate energy (eV), forces (eV/Å) and, where there is a cell, stress (eV/Å³) of a structure as it is.

    Parameters
    ----------
    atoms : Atoms
        The structure. It is not changed.
    calc : BaseCalculator
        Any ASE calculator.

    Returns
    -------
    Atoms
        The same structure with its results. The stress is left out where the calculator has none or the cell
        has no volume.
    """
    atoms.calc = calc
    atoms.get_potential_energy()
    atoms.get_forces()
    if atoms.cell.rank == 3:
        with contextlib.suppress(PropertyNotImplementedError):
            atoms.get_stress()
    return atoms
