"""What a ledger says when it is read as a whole: of each call its newest outputs, and which of their files are gone."""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlipcluster.errors import RecordError

Entry = Mapping[str, Any]

PASSED_ON = "passed on"
"""Status of a call that was made again, with outputs (numbers in ``passed_on``) that the next protocol works on."""
_ALWAYS = ("slot", "status", "identity", "output")


@dataclass(frozen=True, order=True)
class Slot:
    """Where a call stands in a run: which task, which repeat, along which outputs of earlier protocols, which protocol.

    Attributes
    ----------
    key : str
        The task's key.
    replicate : int
        Number of the repeat.
    lineage : tuple of int
        Index of the output that was followed at each earlier step.
    step : int
        Index of the protocol in its sequence.
    """

    key: str
    replicate: int = 0
    lineage: tuple[int, ...] = ()
    step: int = 0

    def __str__(self) -> str:
        return f"{self.key}/{self.replicate}/{'.'.join(map(str, self.lineage))}/{self.step}"

    @classmethod
    def parse(cls, text: str) -> Slot:
        """Read what ``str()`` wrote.

        Raises
        ------
        RecordError
            *text* is not ``key/replicate/lineage/step``.
        """
        try:
            key, replicate, lineage, step = text.rsplit("/", 3)
            return cls(key, int(replicate), tuple(map(int, lineage.split("."))) if lineage else (), int(step))
        except (ValueError, AttributeError):
            raise RecordError(
                f"slot {text!r} in the ledger is not key/replicate/lineage/step; delete its line and run again"
            ) from None

    @property
    def parent(self) -> Slot | None:
        """Where the output stands that this call works on; None at the first step."""
        if not self.lineage or self.step == 0:
            return None
        return Slot(self.key, self.replicate, self.lineage[:-1], self.step - 1)


def newest_by_slot(entries: Iterable[Entry], names: Collection[str] = ()) -> dict[str, list[Entry]]:
    """For each slot the entries of its newest call, by output index.

    A line replaces an earlier one of the same slot and output. A line of another identity, status or number of outputs
    than the slot's lines so far begins a newer call, and what the older call left there is dropped with it: a protocol
    that gave ten outputs before it was edited and gives three now has three.

    Parameters
    ----------
    entries
        Ledger lines, oldest first.
    names
        Keep only these parts of each line, for ledgers of a million lines; default: all.
    """
    calls: dict[str, dict[int, Entry]] = {}
    with _collector_paused():
        for entry in entries:
            try:
                slot, index = entry["slot"], _index(entry)
            except (KeyError, TypeError, ValueError) as error:
                raise RecordError(
                    f"a ledger line has no usable 'slot' or 'output' ({dict(entry)!r:.120}); delete it and run again"
                ) from error
            call = calls.get(slot)
            if call is None or _is_newer_call(entry, next(iter(call.values()))):
                calls[slot] = {index: _kept(entry, names)}
            else:
                call[index] = _kept(entry, names)
    return {slot: [call[index] for index in sorted(call)] for slot, call in calls.items()}


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Reading a million lines makes no garbage, but many objects to look through for it: that took most of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _kept(entry: Entry, names: Collection[str]) -> Entry:
    """What is kept of a line; names are the same objects in all of them, which halves the memory."""
    if names:
        return {name: entry[name] for name in (*_ALWAYS, *names) if name in entry}
    return {sys.intern(name): value for name, value in entry.items()}


def newest(entries: Iterable[Entry]) -> list[Entry]:
    """The entries that hold today, in an order that does not depend on which worker was faster.

    As `newest_by_slot`, without what descends from an output that a newer call no longer gives; ordered by source
    (numbers in it as numbers), repeat, calculator, task, step, lineage and output.
    """
    calls = newest_by_slot(entries)
    kept = [entry for text, call in calls.items() if _is_rooted(Slot.parse(text), calls) for entry in call]
    return sorted(kept, key=_order)


def files_of(entry: Entry) -> dict[str, int | None]:
    """An output's files in all its formats, the first one first, and their sizes where the entry tells them."""
    if not entry.get("file"):
        return {}
    return {entry["file"]: entry.get("bytes"), **(entry.get("more_files") or {})}


def missing_files(entries: Iterable[Entry], root: Path, *, sizes: bool = False) -> list[Entry]:
    """The entries of which an output file is not there: their calls have to be done again.

    Folders are listed once each, so a million files cost a thousand listings.

    Parameters
    ----------
    entries
        Ledger lines; those without a ``file`` miss nothing.
    root
        The run folder, which ``file`` is relative to.
    sizes
        Also compare each file's size with the entry's ``bytes``, where it has that: needed only after a power cut
        when outputs were written without ``durable``.
    """
    folders: dict[str, dict[str, int | None]] = {}
    missing = []
    for entry in entries:
        for name, size in files_of(entry).items():
            folder, _, file = name.rpartition("/")
            if folder not in folders:
                folders[folder] = _listing(root / folder, sizes=sizes)
            present = folders[folder]
            if file not in present or (sizes and size not in (None, present[file])):
                missing.append(entry)
                break
    return missing


def orphans(entries: Iterable[Entry], root: Path, folder: str = "outputs") -> dict[str, Path]:
    """Output files that no entry names, by output name: a driver died after the file and before its line.

    The call is done again under the same name; writing its output over the orphan leaves no file without a line.
    """
    known = {name for entry in entries for name in files_of(entry)}
    return {
        re.sub(r"\.(extxyz|json)(\.(gz|bz2|xz))?$", "", path.name): path
        for path in _files(root / folder)
        if path.relative_to(root).as_posix() not in known
    }


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def _listing(folder: Path, *, sizes: bool) -> dict[str, int | None]:
    try:
        with os.scandir(folder) as found:
            return {item.name: item.stat().st_size if sizes else None for item in found}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def _index(entry: Entry) -> int:
    output = entry.get("output")
    return int(output[0]) if output else 0


def _is_newer_call(entry: Entry, other: Entry) -> bool:
    if entry.get("status") != "output" or other.get("status") != "output":
        return True
    return entry.get("identity") != other.get("identity") or entry["output"][1:] != other["output"][1:]


def _is_rooted(slot: Slot, calls: Mapping[str, list[Entry]]) -> bool:
    """Whether the outputs that led to *slot* are still given, as far as this ledger knows of them."""
    parent = slot.parent
    while parent is not None:
        call = calls.get(str(parent))
        if call is not None and not any(_gives(entry, slot.lineage[-1]) for entry in call):
            return False
        slot, parent = parent, parent.parent
    return True


def _gives(entry: Entry, index: int) -> bool:
    """Whether a call gave an output of that number."""
    if entry.get("status") == PASSED_ON:
        return index in entry.get("passed_on", (index,))
    return entry.get("status") == "output" and _index(entry) == index


def _order(entry: Entry) -> tuple[Any, ...]:
    slot = Slot.parse(entry["slot"])
    return (
        natural(str(entry.get("source") or "")),
        slot.replicate,
        str(entry.get("calculator") or ""),
        slot.key,
        slot.step,
        slot.lineage,
        _index(entry),
    )


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key in which ``a2`` comes before ``a10``."""
    parts = re.split(r"(\d+)", text)
    return tuple((1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts if part)
