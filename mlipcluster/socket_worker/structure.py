"""The structure that one connection works on, kept between calls so that only what changes has to travel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms

#: What ASE's calculators call the inputs that travel as arrays; ``tags`` are no reason for ASE to calculate again.
ASE_CHANGES = ("positions", "numbers", "cell", "pbc", "initial_charges", "initial_magmoms")
OPTIONAL_ARRAYS = ("initial_charges", "initial_magmoms", "tags")


class Structure:
    """A structure put together from what a client sends.

    Attributes
    ----------
    atoms : ase.Atoms or None
        The structure as of the last update; None before the first.
    """

    def __init__(self) -> None:
        self.atoms: Atoms | None = None

    def update(self, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> list[str]:
        """Take over what a request says has changed, and name it as ASE's calculators do.

        ``header["whole"]`` starts a new structure; ``header["removed"]`` names optional arrays that are gone;
        ``header["info"]`` replaces the structure's info.

        Returns
        -------
        list of str
            ASE's ``system_changes``; all of them where something else than these changed.
        """
        if header.get("whole"):
            self.atoms = _new(arrays)
        atoms = self.atoms
        if atoms is None:
            raise ValueError("the first request of a connection must bring the whole structure")
        for name, array in arrays.items():
            self._set(atoms, name, array)
        for name in header.get("removed", ()):
            atoms.arrays.pop(name, None)
        changes = [name for name in ASE_CHANGES if name in arrays or name in header.get("removed", ())]
        if "info" in header:
            atoms.info = dict(header["info"])
            return list(ASE_CHANGES)
        return list(ASE_CHANGES) if header.get("whole") or (header.get("changed") and not changes) else changes

    @staticmethod
    def _set(atoms: Atoms, name: str, array: np.ndarray) -> None:
        if name == "cell":
            atoms.cell.array[...] = array
        elif name == "pbc":
            atoms.pbc = array
        elif name in atoms.arrays and atoms.arrays[name].shape == array.shape:
            atoms.arrays[name][...] = array
        elif name in OPTIONAL_ARRAYS and len(array) == len(atoms):
            atoms.arrays[name] = array.copy()
        else:
            raise ValueError(f"no structure of {len(atoms)} atoms can take {name!r} of shape {array.shape}")


def _new(arrays: Mapping[str, np.ndarray]) -> Atoms:
    missing = [name for name in ("numbers", "positions", "cell", "pbc") if name not in arrays]
    if missing:
        raise ValueError(f"a whole structure needs {', '.join(missing)}")
    return Atoms(
        numbers=arrays["numbers"].copy(),
        positions=arrays["positions"].copy(),
        cell=arrays["cell"].copy(),
        pbc=arrays["pbc"].copy(),
    )
