"""The structure that one connection works on, kept between calls so that only what changes has to travel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms

from .wire import INFO

#: The inputs that are a reason for ASE's calculators to calculate again; ``tags`` and info are not among them.
ASE_CHANGES = ("positions", "numbers", "cell", "pbc", "initial_charges", "initial_magmoms")
REQUIRED = ("numbers", "positions", "cell", "pbc")
OPTIONAL = ("initial_charges", "initial_magmoms", "tags")


class Structure:
    """A structure put together from what a client sends."""

    def __init__(self) -> None:
        self._atoms: Atoms | None = None

    def update(self, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> tuple[Atoms, list[str]]:
        """Take over what a request says has changed.

        ``header["whole"]`` starts a new structure; ``header["removed"]`` names optional arrays that are gone;
        ``header["info"]`` replaces the structure's info, to which arrays named ``info:…`` belong as well.

        Returns
        -------
        ase.Atoms
            The structure; it belongs to this object and changes with the next update.
        list of str
            ASE's ``system_changes``: exact, or all of them where something else than these changed.

        Raises
        ------
        ValueError
            That makes no structure. What was known is kept if nothing of it had been changed yet, and else forgotten.
        """
        removed = list(header.get("removed", ()))
        if not all(name in OPTIONAL for name in removed):
            raise ValueError(f"'removed' is {removed!r:.80}; only {', '.join(OPTIONAL)} may be missing")
        try:
            return self._updated(header, arrays, removed)
        except BaseException:
            self._atoms = None  # half of it is the last one's
            raise

    def _updated(
        self, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], removed: list[str]
    ) -> tuple[Atoms, list[str]]:
        if header.get("whole"):
            self._atoms = _begun_anew(self._atoms, arrays)
        atoms = self._atoms
        if atoms is None:
            raise ValueError("the first request of a connection must bring the whole structure")
        if "info" in header:
            atoms.info = dict(header["info"])
        for name, array in arrays.items():
            _set(atoms, name, array)
        for name in removed:
            atoms.arrays.pop(name, None)
        changes = [*arrays, *removed]
        exact = not (header.get("whole") or "info" in header) and all(name in ASE_CHANGES for name in changes)
        return atoms, changes if exact else list(ASE_CHANGES)


def _begun_anew(atoms: Atoms | None, arrays: Mapping[str, np.ndarray]) -> Atoms:
    """The structure before its arrays are set; one of as many atoms is used again, for making one takes time."""
    missing = [name for name in REQUIRED if name not in arrays]
    if missing:
        raise ValueError(f"a whole structure needs {', '.join(missing)}")
    if atoms is None or atoms.positions.shape != arrays["positions"].shape:
        return Atoms(numbers=arrays["numbers"].copy(), positions=arrays["positions"].copy())
    atoms.info = {}
    for name in OPTIONAL:
        atoms.arrays.pop(name, None)
    return atoms


def _set(atoms: Atoms, name: str, array: np.ndarray) -> None:
    kept = atoms.arrays.get(name)
    if kept is not None and kept.shape == array.shape and (name not in OPTIONAL or kept.dtype == array.dtype):
        kept[...] = array
    elif name == "cell":
        atoms.cell.array[...] = array
    elif name == "pbc":
        atoms.pbc = array
    elif name.startswith(INFO):
        atoms.info[name[len(INFO) :]] = array.copy()
    elif name in OPTIONAL and len(array) == len(atoms):
        atoms.arrays[name] = array.copy()
    else:
        raise ValueError(f"no structure of {len(atoms)} atoms can take {name!r} of shape {array.shape}")
