"""A record, found in whatever file this package writes: by its content, with the standard library alone.

The packages above read whole outputs and are strict; this runs in a bare Python on files of strangers, years later, and
takes of them what is needed to build an environment again. Layouts: ``docs/outputs.md``.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlipcluster.errors import InputError, RecordError
from mlipcluster.recreation import containers
from mlipcluster.recreation.tables import is_table, row_of_table

RECORD_KEY = "mlipcluster"  # as in mlipcluster.outputs.frame
LEDGER = "ledger.jsonl"
_FAILURE = "mlipcluster failure"
_IN_COMMENT = re.compile(r' mlipcluster="_JSON ([^"\\]*(?:\\.[^"\\]*)*)"')
_HINTS = 1000  # lines of a ledger that are looked at for a name that is like the one that was asked for


def in_file(path: Path, *, limit: int = containers.LIMIT) -> dict[str, Any]:
    """The record of an output or of a failure; or what ``environment.json`` says, as it stands there.

    Raises
    ------
    InputError
        There is no such file, or it is none that holds a record.
    RecordError
        It is damaged.
    """
    if is_table(containers.first(path)):
        raise InputError(
            f"{str(path)!r} is a pickled table; give it as --scorefile, with --output_name and --pandas-secure"
        )
    data = containers.read(path, limit)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{str(path)!r} is no text ({error.reason}); give an output of a run, or its ledger") from None
    found = _in_json(path, text) if text.lstrip()[:1] == "{" else _in_extxyz(path, text)
    if not isinstance(found, dict):
        raise InputError(f"{str(path)!r} holds no record of mlipcluster; give an output of a run, or its ledger")
    return found


def in_scorefile(
    path: Path, name: str, *, limit: int = containers.LIMIT, pandas_secure: bool = False
) -> dict[str, Any]:
    """The record of the output of that name: from the ledger's line, or from the file that the line names.

    Parameters
    ----------
    path
        A ledger, the run folder that holds it, or a pickled table.
    name
        Of the output or failure.
    limit
        Bytes that are read of a file at most.
    pandas_secure
        Whether a pickled table may be read, by an unpickler that makes nothing but tables.

    Raises
    ------
    InputError
        There is no such file or no such name in it.
    RecordError
        The line, or the file that it names, is damaged; or it names a file outside of the ledger's folder.
    """
    path = path / LEDGER if path.is_dir() else path
    if is_table(containers.first(path)):
        line = row_of_table(path, name, limit=limit, secure=pandas_secure)
    else:
        line = _line(path, name, limit)
    record = line.get("record")
    return record if isinstance(record, dict) else in_file(_named_file(path, name, line), limit=limit)


def _in_json(path: Path, text: str) -> Any:
    try:
        found = parse(text)
    except RecordError as error:
        if _is_ledger(text):
            raise InputError(
                f"{str(path)!r} is a ledger; give it as --scorefile, and say which output with --output_name"
            ) from None
        raise RecordError(f"{str(path)!r} cannot be read: {error}") from None
    if "instance" in found and "metadata" in found:
        return found
    if found.get("kind") == _FAILURE:
        return found.get("record")
    if "packages" in found and "python" in found:
        return found
    if "status" in found and "slot" in found:
        raise InputError(f"{str(path)!r} is a ledger; give it as --scorefile, with --output_name")
    return found.get(RECORD_KEY)


def parse(text: str) -> dict[str, Any]:
    """A JSON object.

    Raises
    ------
    RecordError
        It is none.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"no JSON ({error}); restore the file from a copy") from None
    if not isinstance(found, dict):
        raise RecordError("no JSON object; restore the file from a copy")
    return found


def _is_ledger(text: str) -> bool:
    first = text.lstrip().partition("\n")[0]
    return first.endswith("}") and '"status"' in first and '"slot"' in first


def _in_extxyz(path: Path, text: str) -> Any:
    lines = text.split("\n", 2)
    match = _IN_COMMENT.search(lines[1]) if len(lines) > 1 else None
    if match is None:
        return None
    try:
        return parse(re.sub(r"\\(.)", r"\1", match.group(1)))
    except RecordError as error:
        raise RecordError(f"the record in {str(path)!r} cannot be read: {error}") from None


def _line(path: Path, name: str, limit: int) -> Mapping[str, Any]:
    """The last line of that name: what came later replaces what came before."""
    wanted, found = json.dumps(name).encode("ascii"), None
    for number, line in enumerate(containers.lines(path, limit), 1):
        if wanted not in line:
            continue
        try:
            entry = parse(line.decode("utf-8"))
        except (RecordError, UnicodeDecodeError):
            if line.endswith(b"\n"):
                raise RecordError(f"{str(path)!r}, line {number} cannot be read; repair or delete it") from None
            continue  # torn, or somebody is writing it
        if entry.get("name") == name and entry.get("status") in ("output", "failed"):
            found = entry
    if found is None:
        raise InputError(f"{str(path)!r} has no output {name!r:.200}{_hint(path, name, limit)}")
    return found


def _hint(path: Path, name: str, limit: int) -> str:
    names = list(dict.fromkeys(_names(path, limit)))
    near = difflib.get_close_matches(name[:200], names, n=1, cutoff=0.5) or names[:1]
    return f"; it has for example {near[0]!r:.200}" if near else "; it is no ledger, or an empty one"


def _names(path: Path, limit: int) -> Iterator[str]:
    for number, line in enumerate(containers.lines(path, limit)):
        if number == _HINTS:
            return
        try:
            name = parse(line.decode("utf-8")).get("name")
        except (RecordError, UnicodeDecodeError):
            continue
        if isinstance(name, str):
            yield name


def _named_file(path: Path, name: str, line: Mapping[str, Any]) -> Path:
    """The file that a line names, in the first of its formats that is there."""
    error = line.get("error")
    more = line.get("more_files")
    names = [line.get("file"), error.get("file") if isinstance(error, Mapping) else None]
    names += more if isinstance(more, Mapping) else ()
    places = [_inside(path, file) for file in names if file]
    if not places:
        raise RecordError(
            f"{name!r:.200} has neither a record in {str(path)!r} nor a file of its own; it was written with "
            "output_types=() and simulation_records_in_scorefile=False: take another output of the same run"
        )
    for place in places:
        if place.is_file():
            return place
    raise InputError(
        f"{str(places[0])!r} is not there, which {str(path)!r} names; bring it back, or give "
        "environments/<digest>/environment.json of the run's folder as --input_file"
    )


def _inside(path: Path, name: object) -> Path:
    """What *name* is beside *path*: never outside of its folder, whatever the name and the links on its way."""
    folder = os.path.realpath(path.parent)
    if isinstance(name, str) and "\0" not in name and not os.path.isabs(name):
        place = os.path.realpath(os.path.join(folder, name))
        if os.path.commonpath([folder, place]) == folder:
            return Path(place)
    raise RecordError(
        f"{str(path)!r} names {name!r:.200}, which is no file in its folder; it was changed: give the file itself"
    )
