"""What is kept of the record that a structure was read with."""

from __future__ import annotations

from collections.abc import Mapping

from ase import Atoms

from mlipcluster.outputs.frame import RECORD_KEY, Frame


def parent_of(atoms: Atoms | Frame) -> dict[str, str] | None:
    """Name and digest of the record that *atoms* brought along in ``info["mlipcluster"]``; None without one.

    A structure that ASE read from an output carries that output's whole record. Only this much of it is kept, or
    records would hold records without end.
    """
    record = atoms.info.get(RECORD_KEY) if isinstance(atoms, Atoms) else None
    if not isinstance(record, Mapping):
        return None
    metadata = record.get("metadata")
    name = metadata.get("output_name") if isinstance(metadata, Mapping) else record.get("output_name")
    return {"output_name": str(name or ""), "digest": str(record.get("digest") or "")}


def forget_record(atoms: Atoms) -> Atoms:
    """*atoms* with nothing but `parent_of` left of the record it was read with; itself when it has none."""
    if RECORD_KEY not in atoms.info:
        return atoms
    plain: Atoms = atoms.copy()
    plain.calc = atoms.calc
    parent = parent_of(atoms)
    if parent is None:
        del plain.info[RECORD_KEY]
    else:
        plain.info[RECORD_KEY] = parent
    return plain
