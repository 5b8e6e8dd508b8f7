"""JSON as ASE's own JSON database writes it, with one row, and the record beside the row."""

from __future__ import annotations

import hashlib
from io import StringIO
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.constraints import dict2constraint
from ase.db.jsondb import JSONDatabase
from ase.db.row import AtomsRow
from ase.io.jsonio import encode

from mlipcluster.outputs.frame import RECORD_KEY, Format, Frame
from mlipcluster.outputs.visible import visible_results

OPENING = f',\n"{RECORD_KEY}": '
_ARRAYS = ("initial_magmoms", "initial_charges", "masses", "tags", "momenta")


def frame(atoms: Atoms) -> Frame:
    """One row with structure, results and constraints; plain numbers and text of info as key-value pairs."""
    hidden: list[str] = []
    row = _row(atoms, hidden)
    text = ",\n ".join(f'"{key}": {encode(row[key])}' for key in sorted(row))
    name = hashlib.sha256(text.encode()).hexdigest()[:32]
    # the times that ASE wants to see are not those of the calculation, which stand in the record
    return Frame(
        f'{{"1": {{\n {text},\n "ctime": 0.0,\n "mtime": 0.0,\n "unique_id": "{name}",\n "user": ""}},\n'
        '"ids": [1],\n"nextid": 2',
        "}\n",
        tuple(hidden),
    )


def _row(atoms: Atoms, hidden: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"cell": atoms.cell.array, "pbc": atoms.pbc}
    for name, array in atoms.arrays.items():
        if name in ("numbers", "positions") or (name in _ARRAYS and array.dtype.kind in "if"):
            row[name] = array
        else:
            hidden.append(f"array {name!r}")
    if atoms.constraints:
        row["constraints"] = _constraints(atoms, hidden)
    if atoms.calc is not None:
        results = visible_results(atoms, getattr(atoms.calc, "results", {}), hidden)
        row |= {"calculator": str(getattr(atoms.calc, "name", "") or "unknown"), "calculator_parameters": {}, **results}
    row["key_value_pairs"] = _pairs(atoms, row, hidden)
    return row


def _constraints(atoms: Atoms, hidden: list[str]) -> list[dict[str, Any]]:
    kept = []
    for constraint in atoms.constraints:
        try:
            described = constraint.todict()
            rebuilt: Any = dict2constraint(described)
            encode(rebuilt.todict())
            kept.append(described)
        except Exception:  # noqa: BLE001 - some constraints cannot be described, some not be made from their own words
            hidden.append(f"constraint {type(constraint).__name__}")
    return kept


def _pairs(atoms: Atoms, row: dict[str, Any], hidden: list[str]) -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    taken = {*row, *all_properties, *_ARRAYS, "id", "data", "symbols", "formula", "natoms", "constraints"}
    for key, value in atoms.info.items():
        if key == RECORD_KEY:
            continue
        plain = value.item() if isinstance(value, (np.bool_, np.number)) else value
        is_name = isinstance(key, str) and key.isascii() and key.isidentifier() and not key.startswith("_")
        if is_name and key not in taken and not hasattr(AtomsRow, key) and type(plain) in (bool, int, float, str):
            pairs[key] = plain
        else:
            hidden.append(f"info {key!r:.80}")
    return pairs


def split(text: str) -> tuple[str, str, str] | None:
    """A newline stands in no JSON text, so the record's line can be told without reading the rest."""
    found = text.find(OPENING)
    if found < 0 or not text.endswith("}\n"):
        return None
    return text[:found], text[found + len(OPENING) : -2], "}\n"


def read(text: str) -> Atoms:
    """The structure, as ASE reads it."""
    database: Any = JSONDatabase
    atoms: Atoms = database(StringIO(text)).get_atoms(id=1)
    return atoms


def _same(text: str) -> str:
    return text


JSON = Format("json", frame, OPENING, "", _same, _same, split, read)
