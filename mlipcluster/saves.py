"""What the calls that run in this worker process have saved, until the driver asks for it or they are over."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from mlipcluster.checkpoint import Saved


@dataclass(frozen=True)
class Running:
    """A call that runs at this moment.

    Attributes
    ----------
    slot : str
        Its place in the run.
    seconds : float
        How long it has run on this worker.
    saved : Saved, optional
        Its newest save, unless the driver has that.
    """

    slot: str
    seconds: float
    saved: Saved | None = None


@dataclass
class _Call:
    begun: float
    saved: Saved | None = None


class Saves:
    """The calls under way in this process, by run and slot."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str], _Call] = {}
        self._lock = threading.Lock()

    def begin(self, run: str, slot: str) -> None:
        """A call starts, or starts again."""
        with self._lock:
            before = self._calls.get((run, slot))
            self._calls[run, slot] = _Call(time.monotonic(), before.saved if before else None)

    def keep(self, run: str, slot: str, saved: Saved) -> None:
        """A call has saved itself."""
        with self._lock:
            if (call := self._calls.get((run, slot))) is not None:
                call.saved = saved

    def newest(self, run: str, slot: str) -> Saved | None:
        """What a call saved last in this process."""
        with self._lock:
            call = self._calls.get((run, slot))
            return call.saved if call else None

    def end(self, run: str, slot: str) -> None:
        """A call is over, or somebody else's."""
        with self._lock:
            self._calls.pop((run, slot), None)

    def running(self, run: str, known: Mapping[str, int]) -> list[Running]:
        """A run's calls, with what they saved since the number that the driver knows of each."""
        now = time.monotonic()
        with self._lock:
            calls = [(slot, call.begun, call.saved) for (of, slot), call in self._calls.items() if of == run]
        return [
            Running(slot, now - begun, saved if saved is not None and saved.number > known.get(slot, 0) else None)
            for slot, begun, saved in calls
        ]


HERE = Saves()


def hand_over(run: str, known: Mapping[str, int]) -> list[Running]:
    """What the driver has Dask run on every worker every few seconds."""
    return HERE.running(run, known)
