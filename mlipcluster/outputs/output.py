"""One output: a structure with its scores and the record of how it came about."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ase import Atoms

from mlipcluster.errors import RecordError
from mlipcluster.outputs.checking import Contents, differences, schema_problems, take_apart
from mlipcluster.outputs.rendering import Renderer
from mlipcluster.records.packing import decode
from mlipcluster.records.record import SCHEMA, migrate


@dataclass(frozen=True)
class Output:
    """One output of a run.

    Attributes
    ----------
    name : str
        Its name, which its file has too.
    atoms : Atoms
        The structure, bit for bit as the protocol gave it (positions in Å), with the calculator's results: energy (eV),
        forces (eV/Å), stress (eV/Å³).
    scores : mapping
        Numbers and texts that describe it.
    record : mapping
        The whole record: ``instance``, ``metadata``, ``scores``.
    path : Path or None
        The file, where there is one.
    """

    name: str
    atoms: Atoms
    scores: Mapping[str, Any] = field(repr=False)
    record: Mapping[str, Any] = field(repr=False)
    path: Path | None = None


def write_output(
    folder: str | os.PathLike[str],
    atoms: Atoms,
    record: Mapping[str, Any],
    *,
    format: str = "extxyz",  # noqa: A002 - the name that users know
    compression: str = "",
    durable: bool = True,
) -> Path:
    """Write one self-contained output, ``<folder>/<output_name>.<format>[.<compression>]``.

    For many outputs of one run make one `Renderer`, which keeps what is the same in all of them.

    Parameters
    ----------
    folder
        Made if need be.
    atoms
        The structure with its calculator's results.
    record
        The record, with the same structure packed in ``metadata.result.atoms``. It is sealed in the file; *record*
        itself is left as it is.
    format, compression
        See `mlipcluster.outputs.formats.FORMATS` and `mlipcluster.outputs.compression.COMPRESSIONS`.
    durable
        Flush the file to the disk itself.

    Returns
    -------
    Path
        The file; it was written beside and renamed, so nobody ever sees half of it.
    """
    return Renderer(format, compression, durable=durable).write(Path(folder), atoms, record)


def read_output(path: str | os.PathLike[str], *, checks: bool = True, trust: bool = False) -> Output:
    """Read an output file of any format and compression.

    Parameters
    ----------
    path
        The file.
    checks
        Whether a file that was changed after it was written is refused.
    trust
        Whether pickles inside the record's structure may be loaded. A pickle can run any code.

    Raises
    ------
    RecordError
        The file is not readable, was changed (the message says where), or needs *trust*.
    """
    contents = take_apart(path)
    try:
        return _output(contents, Path(path), checks, trust)
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error


def problems(path: str | os.PathLike[str]) -> list[str]:
    """Every way in which the file differs from what was written, in words; empty when it does not.

    ``structure text changed after it was written``, ``record changed (metadata.git)``, ``result arrays do not match the
    text (positions)``, ``gz container changed …``, or ``… not readable …`` when it is too damaged for more.
    """
    try:
        return differences(take_apart(path))
    except RecordError as error:
        return [str(error)]


def _output(contents: Contents, path: Path, checks: bool, trust: bool) -> Output:
    if checks:
        found = contents.record_problems() + contents.text_problems() + schema_problems(contents.record)
        if found:
            raise RecordError(
                f"{'; '.join(found)}. Restore the file, or read it anyway with read_output(…, checks=False)"
            )
    record = contents.record
    if checks and record["schema"] != SCHEMA:
        record = dict(migrate(record))
    return Output(_name(record, path), _atoms(contents, record, trust), _scores(record), record, path)


def _name(record: Mapping[str, Any], path: Path) -> str:
    metadata = record.get("metadata")
    name = metadata.get("output_name") if isinstance(metadata, dict) else None
    return str(name or path.name.split(".")[0])


def _scores(record: Mapping[str, Any]) -> Mapping[str, Any]:
    scores = record.get("scores")
    return scores if isinstance(scores, dict) else {}


def _atoms(contents: Contents, record: Mapping[str, Any], trust: bool) -> Atoms:
    """The exact structure out of the record; where the record has none, the one that can be seen."""
    try:
        packed = record["metadata"]["result"]["atoms"]
    except (KeyError, TypeError):
        return _seen(contents)
    atoms = decode(packed, trust=trust)
    if not isinstance(atoms, Atoms):
        raise RecordError("metadata.result.atoms of the record is no structure; restore the file from a copy")
    return atoms


def _seen(contents: Contents) -> Atoms:
    try:
        return contents.seen()
    except Exception as error:
        text = f"structure text is not readable: {type(error).__name__}: {error}; restore the file from a copy"
        raise RecordError(text) from error
