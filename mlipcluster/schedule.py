"""What to submit next: calls go in, chunks come out; no I/O, no clock, no Dask.

A future costs Dask milliseconds, a small calculation less: calls of one protocol travel in chunks, sized so that
one takes about `TARGET_SECONDS`. Each client has at most `CHUNKS_A_SLOT` chunks for each of its worker slots in
flight, so that a worker never waits for the driver and neither scheduler nor memory fills up. Deeper protocols go
first: what is begun is finished before more is begun.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mlipcluster.checkpoint import needed
from mlipcluster.deploy.deployment import Demand
from mlipcluster.durations import Durations

TARGET_SECONDS = 0.5
CHUNKS_A_SLOT = 2
LARGEST_CHUNK = 500
LONG_SECONDS = 5.0
"""What takes longer does not wait at a worker, whose time runs out meanwhile, for another to end."""
GROWTH = 4
"""A step's chunks grow at most by this factor at a time: the first calls may not be like the rest."""
LOST_AT_MOST = 5
"""Times that a call alone in its chunk may be lost with its worker before it counts as failed."""
OUTLASTED_AT_MOST = 5
"""Times that a call alone in its chunk, which saves nothing, may outlast workers that end for reasons of their own."""

T = TypeVar("T")


@dataclass(frozen=True)
class Step:
    """How the calls of one protocol are submitted.

    Attributes
    ----------
    retries : int
        How often a call that failed is tried again.
    resources : mapping of str to float
        As Dask knows them: ``{"GPU": 1}``.
    priority : int, optional
        As Dask knows it: higher goes first. Default: later protocols first.
    client : int
        Number of the client that it goes to.
    """

    retries: int = 0
    resources: Mapping[str, float] = field(default_factory=dict)
    priority: int | None = None
    client: int = 0


@dataclass(frozen=True)
class Chunk(Generic[T]):
    """Calls to be submitted together.

    Attributes
    ----------
    number : int
    step : int
    items : tuple
    needs : tuple of float
        For each, the seconds that its worker should still be there: 0 where nobody knows, ``inf`` for as long as a
        worker lives.
    """

    number: int
    step: int
    items: tuple[T, ...]
    needs: tuple[float, ...] = ()


@dataclass(frozen=True)
class Loss:
    """How a chunk was lost with its worker.

    Attributes
    ----------
    blameless : bool
        The worker ended for reasons of its own: walltime, preemption, its node.
    saved : collection of int
        Which of its calls, counted from 0, have saved themselves since the chunk was submitted.
    whole_life : bool
        It had the worker for about as long as workers live.
    """

    blameless: bool = False
    saved: Collection[int] = ()
    whole_life: bool = False


@dataclass
class _Entry(Generic[T]):
    item: T
    size: int = 0
    lost: int = 0
    outlasted: int = 0

    @property
    def is_suspect(self) -> bool:
        """Whether it goes alone, so that a call that ends or outlasts workers is told from its siblings."""
        return bool(self.lost or self.outlasted)

    @property
    def is_last_try(self) -> bool:
        """Whether one more loss decides: nothing waits at its worker then, nor does it wait at another's."""
        return self.lost == LOST_AT_MOST - 1


class Schedule(Generic[T]):
    """Ready calls by step, chunks in flight by client, and how long calls take.

    Parameters
    ----------
    steps : sequence of Step
    slots : sequence of int
        For each client, how many protocols its workers can run at once.
    timed : collection of int
        Clients whose workers end at a time that is known: nothing long waits behind something else there.

    Attributes
    ----------
    exhausted : bool
        There are no more tasks for the first protocol.
    """

    def __init__(self, steps: Sequence[Step], slots: Sequence[int], timed: Collection[int] = ()) -> None:
        self.steps = tuple(steps)
        self._timed = frozenset(timed)
        self.exhausted = False
        self._slots = list(slots)
        self._ready: list[deque[_Entry[T]]] = [deque() for _ in self.steps]
        self._sizes = [1] * len(self.steps)
        self._most = [1] * len(self.steps)
        self._seconds: list[float | None] = [None] * len(self.steps)
        self._durations, self._strides = Durations(), Durations()
        self._flying: dict[int, tuple[int, tuple[_Entry[T], ...]]] = {}
        self._count = 0
        self._order = sorted(range(len(self.steps)), key=lambda step: (-self.priority(step), -step))

    def priority(self, step: int) -> int:
        """Of a step's chunks: as the user said, otherwise the deeper the higher."""
        given = self.steps[step].priority
        return step if given is None else given

    def set_slots(self, client: int, slots: int) -> None:
        """Tell how many protocols a client's workers can run at once."""
        self._slots[client] = max(1, slots)

    def set_timed(self, timed: Collection[int]) -> None:
        """Tell at which clients workers end at a time that is known."""
        self._timed = frozenset(timed)

    def add(self, step: int, item: T, size: int = 0) -> None:
        """A call is ready, on a structure of *size* atoms."""
        self._ready[step].append(_Entry(item, size))

    def add_again(self, step: int, item: T, size: int = 0) -> None:
        """A call that was begun goes on, before all others."""
        self._ready[step].appendleft(_Entry(item, size))

    @property
    def hungry(self) -> bool:
        """Whether the first protocol could use more tasks than are ready."""
        first = not self.exhausted and len(self._ready[0]) < self._sizes[0] and self._room(self.steps[0].client) > 0
        # A later protocol on another client may be slower: its queue must not grow with the number of tasks.
        return first and not any(self._is_fed(step) for step in range(1, len(self.steps)))

    @property
    def idle(self) -> bool:
        """Nothing is ready and nothing in flight."""
        return not self._flying and not any(self._ready)

    @property
    def flying(self) -> int:
        """Calls in flight."""
        return sum(len(entries) for _, entries in self._flying.values())

    @property
    def waiting(self) -> int:
        """Calls ready to be submitted."""
        return sum(map(len, self._ready))

    def demands(self, unread: float) -> list[Demand]:
        """How much work there is for each client.

        Parameters
        ----------
        unread : float
            Tasks of the first protocol that were not added yet.
        """
        demands = []
        for client in range(len(self._slots)):
            steps = [step for step, given in enumerate(self.steps) if given.client == client]
            calls = {step: float(len(self._ready[step])) for step in steps}
            needs = []
            for step, entries in self._flying.values():
                if step in calls:
                    calls[step] += len(entries)
                    if not entries[0].is_last_try:  # workers stand idle for its sake
                        needs.append(self._need(step, entries[0]))
            if 0 in calls:
                calls[0] += unread
            known = all(self._seconds[step] is not None for step, count in calls.items() if count)
            seconds = sum(count * (self._seconds[step] or 0.0) for step, count in calls.items())
            together = seconds if known and math.isfinite(seconds) else None
            demands.append(Demand(sum(calls.values()), together, min(needs, default=0.0)))
        return demands

    def take(self) -> Chunk[T] | None:
        """The next chunk to submit, or None while every client has enough."""
        for step in self._order:
            ready = self._ready[step]
            if not ready or self._room(self.steps[step].client, self._need(step, ready[0]), ready[0].is_last_try) <= 0:
                continue
            entries = self._next(step)
            self._count += 1
            self._flying[self._count] = (step, entries)
            needs = tuple(self._need(step, entry) for entry in entries)
            return Chunk(self._count, step, tuple(entry.item for entry in entries), needs)
        return None

    def finished(self, number: int, seconds: float, each: Sequence[float | None] | None = None) -> None:
        """A chunk came back.

        Parameters
        ----------
        number : int
        seconds : float
            How long it took on its worker.
        each : sequence of float or None, optional
            For each call that is over how long it took, None for one that goes on (`add_again`). Those behind were
            not begun, and are ready again. Default: all are over and took alike.
        """
        step, entries = self._flying.pop(number)
        if each is None:
            each = [seconds / len(entries)] * len(entries)
        self._ready[step].extendleft(reversed(entries[len(each) :]))
        for entry, took in zip(entries, each, strict=False):
            if took is not None:
                self._learn(step, entry.size, max(took, 1e-6))
        if (known := self._seconds[step]) is not None:
            self._most[step] = min(self._most[step] * GROWTH, LARGEST_CHUNK)
            self._sizes[step] = max(1, min(int(TARGET_SECONDS / known), self._most[step]))

    def strode(self, step: int, size: int, seconds: float) -> None:
        """A call that saves itself takes so many seconds from one save to the next."""
        self._strides.note(step, size, seconds)

    def lost(self, number: int, loss: Loss = Loss()) -> tuple[T, ...]:
        """A chunk was lost with its worker: its calls go again, each alone; those lost too often are given back.

        One that has saved itself goes on from there, and is lost for the first time again.
        """
        step, entries = self._flying.pop(number)
        alone = len(entries) == 1
        for index, entry in enumerate(entries):
            if index in loss.saved:
                entry.lost = entry.outlasted = 0
            elif loss.blameless:
                entry.outlasted += 1
            else:
                entry.lost += 1
        hopeless = tuple(
            entry.item
            for index, entry in enumerate(entries)
            if alone
            and index not in loss.saved
            and (
                entry.lost >= LOST_AT_MOST
                or entry.outlasted >= OUTLASTED_AT_MOST
                or (loss.blameless and loss.whole_life)
            )
        )
        if not hopeless:
            self._ready[step].extendleft(reversed(entries))
        return hopeless

    def _learn(self, step: int, size: int, seconds: float) -> None:
        self._durations.note(step, size, seconds)
        known = self._seconds[step]
        self._seconds[step] = seconds if known is None else 0.7 * known + 0.3 * seconds

    def _next(self, step: int) -> tuple[_Entry[T], ...]:
        """Take the calls of the next chunk from those that are ready: they take about `TARGET_SECONDS` together."""
        ready = self._ready[step]
        if ready[0].is_suspect or self._most[step] == 1:
            return (ready.popleft(),)
        share = math.inf
        if self.exhausted or step:  # towards the end less, so that no worker stands idle
            share = self._share(step)
        entries: list[_Entry[T]] = []
        seconds = 0.0
        while ready and len(entries) < self._most[step] and not ready[0].is_suspect:
            more = self._mean(step, ready[0])
            if entries and (seconds >= share * (1 - 1e-9) or seconds + more > TARGET_SECONDS * (1 + 1e-9)):
                break
            seconds += more
            entries.append(ready.popleft())
        return tuple(entries)

    def _share(self, step: int) -> float:
        """Seconds of what is ready that fall to each worker slot, counted as far as they matter to a chunk."""
        slots, total = self._slots[self.steps[step].client], 0.0
        for entry in self._ready[step]:
            total += self._mean(step, entry)
            if total >= TARGET_SECONDS * slots:
                break
        return total / slots

    def _mean(self, step: int, entry: _Entry[T]) -> float:
        return self._durations.mean(step, entry.size) or 0.0

    def _need(self, step: int, entry: _Entry[T]) -> float:
        """Seconds that a worker should still be there for a call."""
        if entry.outlasted:
            return math.inf
        whole = self._durations.upper(step, entry.size)
        stride = self._strides.upper(step, entry.size)
        ways = [seconds for seconds in (whole, stride and needed(stride)) if seconds is not None]
        return min(ways, default=0.0)

    def _is_fed(self, step: int) -> bool:
        return len(self._ready[step]) >= CHUNKS_A_SLOT * self._slots[self.steps[step].client] * self._sizes[step]

    def _room(self, client: int, need: float = 0.0, last_try: bool = False) -> int:
        """How many chunks more a client should have, the next of which needs a worker for so many seconds."""
        flying = [entries[0] for step, entries in self._flying.values() if self.steps[step].client == client]
        trying = any(entry.is_last_try for entry in flying)
        if trying and last_try:
            return 0
        alone = trying or last_try or (client in self._timed and need > LONG_SECONDS)
        return (1 if alone else CHUNKS_A_SLOT) * self._slots[client] - len(flying)
