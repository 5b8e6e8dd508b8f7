"""What lets dynamics and optimizers go on from a checkpoint with the same bits: they are made anew at each, always.

Between two checkpoints ASE's objects carry more than structure and state say: results, neighbour lists, what
constraints remember. So at each checkpoint all of it is put away and made again from what was saved, whether or not the
run was interrupted there.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from ase import Atoms

REMADE = frozenset({"H0", "I"})
"""Large arrays of optimizers that follow from their size alone."""
_PLAIN = (bool, int, float, str, np.ndarray, np.generic, type(None))


def moved(atoms: Atoms) -> Atoms:
    """What dynamics change of a structure: positions, cell and momenta, without the rest."""
    bare = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    if atoms.has("momenta"):
        bare.set_array("momenta", atoms.arrays["momenta"])
    return bare


def put_back(atoms: Atoms, start: Atoms, saved: Atoms) -> None:
    """Bring a structure to where it was saved.

    Parameters
    ----------
    atoms : Atoms
        Is changed.
    start : Atoms
        A copy of it as it was handed in: its constraints have no memory yet.
    saved : Atoms
        As `moved` gave it.
    """
    atoms.set_constraint(copy.deepcopy(start.constraints))
    atoms.set_cell(saved.cell, apply_constraint=False)
    atoms.set_positions(saved.positions, apply_constraint=False)
    if saved.has("momenta"):
        atoms.set_momenta(saved.arrays["momenta"], apply_constraint=False)


def memory(optimizer: Any) -> dict[str, Any]:
    """All that an optimizer has learned, as plain data."""
    known = {name: value for name, value in vars(optimizer).items() if name not in REMADE and _is_plain(value)}
    method = getattr(optimizer, "state", None)  # since ASE 3.29 some keep what they learn in an object of its own
    if hasattr(method, "__dict__"):
        own = {name: value for name, value in vars(method).items() if name not in REMADE and _is_plain(value)}
        known["state"] = {"class": type(method).__name__, "memory": own}
    return known


def recall(optimizer: Any, known: dict[str, Any]) -> None:
    """Give an optimizer that was just made what another of its kind had learned."""
    known = dict(known)
    method = known.pop("state", None)
    vars(optimizer).update(known)
    if method is not None:
        if optimizer.state is None:
            # Looked up where the optimizer itself finds it, so that nothing else can be named.
            kind = getattr(__import__(type(optimizer).__module__, fromlist=["_"]), method["class"])
            optimizer.state = kind.__new__(kind)
        vars(optimizer.state).update(method["memory"])


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN) and getattr(value, "dtype", np.dtype(bool)).kind != "O"
