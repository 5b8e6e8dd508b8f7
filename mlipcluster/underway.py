"""What calls under way have saved: the driver keeps it in the run folder, so that it outlives workers and driver."""

from __future__ import annotations

import hashlib
import json
import math
import time
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlipcluster.checkpoint import Part, Saved
from mlipcluster.errors import RecordError
from mlipcluster.files import write_atomic
from mlipcluster.printed import KEPT
from mlipcluster.records.packing import decode

SCHEMA = 1


@dataclass
class _Call:
    identity: str
    number: int = 0
    stands: str = ""
    sent: str = ""
    since: float = math.inf
    seconds: float = 0.0
    printed: list[str] = field(default_factory=list)


class Underway:
    """The calls under way, by slot, and a file for each that has saved itself: ``<folder>/<identity>.json``.

    Parameters
    ----------
    folder : pathlib.Path
        Made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._calls: dict[str, _Call] = {}
        self._files = {path.name for path in folder.glob("*.json")}

    def begin(self, slot: str, identity: str) -> None:
        """A call is to be made, or gone on with where an earlier driver left a file of it.

        A file that is damaged or says that it is another call's is ignored, with a warning: the call begins anew.
        """
        call = self._calls[slot] = _Call(identity)
        path = self._path(identity)
        if path.name not in self._files:
            return
        try:
            found = _read(path, identity)
            call.number, call.stands = found.number, _digest(found.body)
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.warn(
                f"the checkpoint {path} cannot be used ({type(error).__name__}: {error}); its call begins anew.",
                stacklevel=2,
            )
            self._forget(identity)

    def known(self, slots: Iterable[str]) -> dict[str, int]:
        """Number of the newest save of each of these calls that has any."""
        return {slot: call.number for slot in slots if (call := self._calls.get(slot)) and call.number}

    def submitted(self, slot: str) -> Saved | None:
        """A call goes to a worker: where it is to go on from."""
        if (call := self._calls.get(slot)) is None:
            return None
        call.sent, call.since, call.seconds = call.stands, time.monotonic(), 0.0
        return _read(self._path(call.identity), call.identity) if call.number else None

    def is_news(self, slot: str, asked: float) -> bool:
        """Whether what a worker was asked at that time (monotonic, s) is of the call as it was submitted last.

        An answer may come late. By then the call may be another worker's, or have begun from its beginning.
        """
        call = self._calls.get(slot)
        return call is not None and asked >= call.since

    def got_on(self, slot: str) -> bool:
        """Whether a call has saved itself further on than where it stood when it was submitted."""
        call = self._calls.get(slot)
        return call is not None and call.stands != call.sent

    def keep(self, slot: str, saved: Saved) -> bool:
        """Keep what a call saved, unless there is something newer; whether it was kept."""
        call = self._calls.get(slot)
        if call is None or saved.number <= call.number:
            return False
        path = self._path(call.identity)
        # Not flushed to the disk: after a power cut its digest tells what is damaged, and the call begins anew.
        write_atomic(path, _text(slot, call.identity, saved), sync=False)
        self._files.add(path.name)
        call.number, call.stands = saved.number, _digest(saved.body)
        return True

    def ran(self, slot: str, seconds: float) -> None:
        """A call has run for so long on the worker that has it now."""
        if (call := self._calls.get(slot)) is not None:
            call.seconds = seconds

    def seconds(self, slot: str) -> float:
        """How long a call ran on the worker that had it last, as far as that was told."""
        call = self._calls.get(slot)
        return call.seconds if call else 0.0

    def interrupted(self, slot: str, printed: str) -> None:
        """Keep what a call printed before it was interrupted."""
        if printed and (call := self._calls.get(slot)) is not None:
            call.printed.append(printed)

    def printed(self, slot: str, last: str) -> str:
        """All that a call printed, on whatever workers, *last* being the last of it."""
        call = self._calls.get(slot)
        return "".join([*call.printed, last])[-KEPT:] if call and call.printed else last

    def end(self, slot: str) -> None:
        """A call is over: it needs nothing any more."""
        if (call := self._calls.pop(slot, None)) is not None:
            self._forget(call.identity)

    def restart(self, slot: str) -> None:
        """A call is to begin from its beginning."""
        if (call := self._calls.get(slot)) is not None:
            self._forget(call.identity)
            self._calls[slot] = _Call(call.identity)

    def _forget(self, identity: str) -> None:
        path = self._path(identity)
        if path.name in self._files:
            self._files.discard(path.name)
            path.unlink(missing_ok=True)

    def _path(self, identity: str) -> Path:
        return self._folder / f"{identity}.json"


def _text(slot: str, identity: str, saved: Saved) -> str:
    head = {
        "schema": SCHEMA,
        "identity": identity,
        "slot": slot,
        "number": saved.number,
        "stride": saved.stride,
        "parts": [asdict(part) for part in saved.parts],
        "digest": _digest(saved.body),
    }
    return f'{json.dumps(head)[:-1]}, "body": {saved.body}}}\n'


def _read(path: Path, identity: str) -> Saved:
    found: Any = json.loads(path.read_text())
    if found["schema"] != SCHEMA:
        raise RecordError(f"it has schema {found['schema']!r}, not {SCHEMA}")
    if found["identity"] != identity:
        raise RecordError(f"it is of the call {found['identity']!r}")
    body = json.dumps(found["body"], separators=(",", ":"))
    if _digest(body) != found["digest"]:
        raise RecordError("it was changed or damaged after it was written")
    decode(found["body"])  # what cannot be loaded on a worker is told here
    parts = tuple(Part(float(part["started"]), float(part["seconds"])) for part in found["parts"])
    return Saved(int(found["number"]), float(found["stride"]), parts, body)


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()
