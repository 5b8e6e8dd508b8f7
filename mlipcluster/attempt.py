"""One try of a call: when it began, what it saved, and what came of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mlipcluster.calls import CallResult, Failure, Product
from mlipcluster.checkpoint import Checkpoint, Part, Saved, needed
from mlipcluster.deploy import ending


@dataclass(frozen=True)
class Watcher:
    """Who is told what a call does on its way.

    Attributes
    ----------
    clock : callable
        ``clock(True, seconds)`` when the calculators are ready and the protocol is about to start, after it ran
        *seconds* on earlier workers; ``clock(False, 0.0)`` when it has ended. Only what lies between counts for its
        timeout.
    keep : callable
        Takes what the call saves.
    """

    clock: Callable[[bool, float], None] = lambda *_: None
    keep: Callable[[Saved], None] = lambda *_: None


NOBODY = Watcher()


class Attempt:
    """One try of a call: when it began, and what it saved.

    Parameters
    ----------
    earlier : Saved, optional
        What it goes on from.

    Attributes
    ----------
    checkpoint : Checkpoint or None
        What the protocol was handed, if it asked for it.
    """

    def __init__(self, earlier: Saved | None) -> None:
        self.checkpoint: Checkpoint | None = None
        self._earlier = earlier
        self._started, self._begun, self._seconds = time.time(), time.perf_counter(), 0.0

    @contextlib.contextmanager
    def timed(self, clock: Callable[[bool, float], None]) -> Iterator[None]:
        """The time in which the protocol runs."""
        clock(True, sum(part.seconds for part in self._earlier.parts) if self._earlier else 0.0)
        self._begun = time.perf_counter()
        try:
            yield
        finally:
            self._seconds = time.perf_counter() - self._begun
            clock(False, 0.0)

    def noted(self, values: Iterator[Any]) -> Iterator[Any]:
        """The same values; from the first on nothing can be saved any more."""
        for value in values:
            if value is not None and self.checkpoint is not None:
                self.checkpoint.gave = True
            yield value

    @property
    def saved(self) -> Saved | None:
        """The newest save."""
        return self._earlier if self.checkpoint is None else self.checkpoint.saved

    @property
    def stopped(self) -> bool:
        """Whether the call was interrupted because the worker has to end."""
        return self.checkpoint is not None and self.checkpoint.stopped

    @property
    def is_late(self) -> bool:
        """Whether the worker will end before a call that goes on from here saves again."""
        return self.saved is not None and ending.remaining() < needed(self.saved.stride)

    def interrupted(self, seed: int) -> CallResult:
        """The result of a call that goes on elsewhere."""
        saved = self.saved
        assert saved is not None
        started, seconds = saved.parts[0].started, sum(part.seconds for part in saved.parts)
        stride = self.checkpoint.stride if self.checkpoint else saved.stride
        return CallResult(seed, started, seconds, "", interrupted=True, checkpoint=saved, stride=stride)

    def result(
        self, seed: int, products: Sequence[Product], updates: dict[str, Any], failure: Failure | None
    ) -> CallResult:
        """The result of a call that has ended."""
        seconds = self._seconds or time.perf_counter() - self._begun
        parts = (*(self._earlier.parts if self._earlier else ()), Part(self._started, seconds))
        return CallResult(
            seed,
            parts[0].started,
            sum(part.seconds for part in parts),
            "",
            tuple(products),
            updates,
            failure,
            parts=parts if len(parts) > 1 else (),
            stride=self.checkpoint.stride if self.checkpoint and self.checkpoint.saved else 0.0,
        )
