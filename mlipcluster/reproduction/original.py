"""The output that is to be made again: from its file, or from its line in a ledger."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ase import Atoms

from mlipcluster.errors import InputError, RecordError
from mlipcluster.outputs.ledger import Ledger
from mlipcluster.outputs.output import Output, problems, read_output
from mlipcluster.records.packing import decode
from mlipcluster.records.record import check, check_layout

LEDGER = "ledger.jsonl"


def load(
    input_file: str | os.PathLike[str] | None,
    scorefile: str | os.PathLike[str] | None,
    output_name: str | None,
    *,
    trust: bool = False,
) -> tuple[Output, tuple[str, ...]]:
    """Read an output, and every way in which its file differs from what was written.

    Parameters
    ----------
    input_file : path, optional
        An output file; then neither of the others.
    scorefile : path, optional
        A ledger, or the run folder that holds it.
    output_name : str, optional
        Which of the scorefile's outputs.
    trust : bool
        Load pickles inside the structure.

    Raises
    ------
    InputError
        Not exactly one way to find the output was given, or there is no such file or output.
    RecordError
        The file or line holds no record that can be read at all.
    """
    if input_file is not None and scorefile is None:
        return _from_file(Path(input_file).expanduser(), trust)
    if scorefile is None or input_file is not None:
        raise InputError("give either input_file=, or scorefile= with output_name=.")
    path = Path(scorefile).expanduser()
    path = path / LEDGER if path.is_dir() else path
    line = _line(_existing(path), output_name)
    if isinstance(record := line.get("record"), Mapping):
        check(record)
        return Output(str(line["name"]), _atoms(record, trust), dict(line.get("scores") or {}), record, None), ()
    if not line.get("file"):
        raise RecordError(
            f"{output_name!r} has neither a record in {path} nor a file of its own; runs whose outputs are to be made "
            "again need output_types or simulation_records_in_scorefile=True."
        )
    return _from_file(path.parent / str(line["file"]), trust)


def _from_file(path: Path, trust: bool) -> tuple[Output, tuple[str, ...]]:
    damage = tuple(problems(_existing(path)))
    output = read_output(path, checks=False, trust=trust)
    try:
        # A damaged record may still hold enough to try; one that lacks a part does not.
        record = output.record if damage else check(output.record)
        check_layout(record)
    except RecordError as error:
        raise RecordError(f"{path} is damaged: {'; '.join([*damage, str(error)])}") from error
    return replace(output, record=record), damage


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}; give the path of an output or of a run's ledger.")
    return path


def _line(path: Path, name: str | None) -> Mapping[str, Any]:
    """The last line of an output's name: what came later replaces what came before."""
    lines = {str(line["name"]): line for line in Ledger(path).entries() if line.get("status") == "output"}
    if name in lines:
        return lines[name]
    near = difflib.get_close_matches(name or "", lines, n=1, cutoff=0.5) or list(lines)[:1]
    hint = f", for example {near[0]!r}" if near else ""
    asked = f"no output {name!r}" if name else "output_name= must say which output is meant"
    raise InputError(f"{path}: {asked}; it holds {len(lines)}{hint}.")


def _atoms(record: Mapping[str, Any], trust: bool) -> Atoms:
    atoms = decode(record["metadata"]["result"]["atoms"], trust=trust)
    if not isinstance(atoms, Atoms):
        raise RecordError("the record's result holds no structure; restore the file from a copy.")
    return atoms
