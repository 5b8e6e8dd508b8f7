"""Which parts of a structure ASE's text formats can hold without breaking or changing them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCartesian

Array = np.ndarray[Any, Any]

# Names that mean something of their own in an extended XYZ file's columns; ASE reads or writes other arrays under them.
_COLUMN_NAMES = {"symbols", "species", "pos", "Z", "charge", "mass", "move_mask", "uid"} | set(all_properties)
_STANDARD = {"numbers", "positions"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def show(atoms: Atoms) -> tuple[Atoms, list[str]]:
    """A structure with only what an extended XYZ file's columns hold, without info; and the names of the rest."""
    hidden: list[str] = []
    visible = Atoms(cell=atoms.cell.array, pbc=atoms.pbc)
    visible.arrays = _arrays(atoms, hidden)
    visible.constraints = _constraints(atoms, hidden)
    if atoms.calc is not None:
        results = visible_results(atoms, getattr(atoms.calc, "results", {}), hidden)
        if results:
            visible.calc = SinglePointCalculator(visible)
            visible.calc.results = results
    if atoms._celldisp.any():  # noqa: SLF001 - ASE has no public way to ask without a copy
        hidden.append("celldisp")
    return visible, hidden


def _arrays(atoms: Atoms, hidden: list[str]) -> dict[str, Array]:
    kept: dict[str, Array] = {}
    columns: set[str] = set()
    for name, array in atoms.arrays.items():
        own = {name} if array.ndim == 1 else {f"{name}{c}" for c in range(array.shape[1])}
        if name in _STANDARD or (_is_column(name, array) and not own & columns):
            kept[name] = array
            columns |= own
        else:
            hidden.append(f"array {name!r}")
    return kept


def _is_column(name: str, array: Array) -> bool:
    if name in _COLUMN_NAMES or not _NAME.fullmatch(name) or array.ndim > 2 or 0 in array.shape[1:]:
        return False
    if array.dtype.kind in "UO":
        return all(isinstance(item, str) and re.fullmatch(r"[!-~]+", item) for item in array.ravel().tolist())
    if array.dtype.kind == "i":  # ASE reads whole numbers as int32
        return not array.size or bool(array.min() >= -(2**31) and array.max() < 2**31)
    return array.dtype.kind in "fb"


def _constraints(atoms: Atoms, hidden: list[str]) -> list[Any]:
    kept = [c for c in atoms.constraints if type(c) in (FixAtoms, FixCartesian)]
    hidden += [f"constraint {type(c).__name__}" for c in atoms.constraints if type(c) not in (FixAtoms, FixCartesian)]
    return kept


def visible_results(atoms: Atoms, results: Mapping[str, Any], hidden: list[str]) -> dict[str, Any]:
    """Results that ASE has a name for, as plain numbers; the names of the others go to *hidden*."""
    kept: dict[str, Any] = {}
    for name, value in results.items():
        number = np.asarray(value) if name in all_properties else np.asarray(None)
        if number.dtype.kind in "iuf" and _has_usual_shape(name, number, len(atoms)):
            kept[name] = number.astype(float) if number.ndim else float(number)
        elif value is not None:
            hidden.append(f"result {name!r}")
    return kept


_PER_ATOM = {"forces": 2, "stresses": 2, "charges": 1, "magmoms": (1, 2), "energies": 1}
_SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    "energy": ((),),
    "free_energy": ((),),
    "magmom": ((), (3,)),
    "stress": ((6,), (3, 3)),
    "dipole": ((3,),),
    "polarization": ((3,),),
    "dielectric_tensor": ((3, 3),),
}


def _has_usual_shape(name: str, value: Array, count: int) -> bool:
    if name in _SHAPES:
        return value.shape in _SHAPES[name]
    dimensions = _PER_ATOM.get(name)
    if dimensions is None or value.shape[:1] != (count,) or 0 in value.shape:
        return False
    return value.ndim in (dimensions if isinstance(dimensions, tuple) else (dimensions,))
