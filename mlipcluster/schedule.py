"""What to submit next: calls go in, chunks come out; no I/O, no clock, no Dask.

A future costs Dask milliseconds, a small calculation less: calls of one protocol travel in chunks, sized so that
one takes about `TARGET_SECONDS`. Each client has at most `CHUNKS_A_SLOT` chunks for each of its worker slots in
flight, so that a worker never waits for the driver and neither scheduler nor memory fills up. Deeper protocols go
first: what is begun is finished before more is begun.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mlipcluster.deploy.deployment import Demand

TARGET_SECONDS = 0.5
CHUNKS_A_SLOT = 2
LARGEST_CHUNK = 500
GROWTH = 4
"""A step's chunks grow at most by this factor at a time: the first calls may not be like the rest."""
LOST_AT_MOST = 3
"""Times that a call alone in its chunk may be lost with its worker before it counts as failed."""

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
    """Calls to be submitted together."""

    number: int
    step: int
    items: tuple[T, ...]


@dataclass
class _Entry(Generic[T]):
    item: T
    lost: int = 0


class Schedule(Generic[T]):
    """Ready calls by step, chunks in flight by client, and how long calls take."""

    def __init__(self, steps: Sequence[Step], slots: Sequence[int]) -> None:
        self.steps = tuple(steps)
        self.exhausted = False
        self._slots = list(slots)
        self._ready: list[deque[_Entry[T]]] = [deque() for _ in self.steps]
        self._sizes = [1] * len(self.steps)
        self._seconds: list[float | None] = [None] * len(self.steps)
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

    def add(self, step: int, item: T) -> None:
        """A call is ready."""
        self._ready[step].append(_Entry(item))

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
            for step, entries in self._flying.values():
                if step in calls:
                    calls[step] += len(entries)
            if 0 in calls:
                calls[0] += unread
            known = all(self._seconds[step] is not None for step, count in calls.items() if count)
            seconds = sum(count * (self._seconds[step] or 0.0) for step, count in calls.items())
            demands.append(Demand(sum(calls.values()), seconds if known and math.isfinite(seconds) else None))
        return demands

    def take(self) -> Chunk[T] | None:
        """The next chunk to submit, or None while every client has enough."""
        for step in self._order:
            ready = self._ready[step]
            if not ready or self._room(self.steps[step].client) <= 0:
                continue
            entries: tuple[_Entry[T], ...]
            if ready[0].lost:  # alone, so that a call that ends workers is told from its siblings
                entries = (ready.popleft(),)
            else:
                entries = tuple(ready.popleft() for _ in range(self._size(step)) if ready and not ready[0].lost)
            self._count += 1
            self._flying[self._count] = (step, entries)
            return Chunk(self._count, step, tuple(entry.item for entry in entries))
        return None

    def finished(self, number: int, seconds: float) -> None:
        """A chunk came back; *seconds* is how long it took on its worker."""
        step, entries = self._flying.pop(number)
        each = max(seconds / len(entries), 1e-6)
        known = self._seconds[step]
        self._seconds[step] = each if known is None else 0.7 * known + 0.3 * each
        wanted = int(TARGET_SECONDS / self._seconds[step])  # type: ignore[operator]
        self._sizes[step] = max(1, min(wanted, self._sizes[step] * GROWTH, LARGEST_CHUNK))

    def lost(self, number: int) -> tuple[T, ...]:
        """A chunk was lost with its worker: its calls go again, each alone; those lost too often are given back."""
        step, entries = self._flying.pop(number)
        for entry in entries:
            entry.lost += 1
        hopeless = tuple(e.item for e in entries if len(entries) == 1 and e.lost >= LOST_AT_MOST)
        if not hopeless:
            self._ready[step].extendleft(entries)
        return hopeless

    def _is_fed(self, step: int) -> bool:
        return len(self._ready[step]) >= CHUNKS_A_SLOT * self._slots[self.steps[step].client] * self._sizes[step]

    def _room(self, client: int) -> int:
        used = sum(1 for step, _ in self._flying.values() if self.steps[step].client == client)
        return CHUNKS_A_SLOT * self._slots[client] - used

    def _size(self, step: int) -> int:
        """Calls a chunk: towards the end fewer, so that no worker stands idle."""
        share = -(-len(self._ready[step]) // self._slots[self.steps[step].client])
        return max(1, min(self._sizes[step], share)) if self.exhausted or step else self._sizes[step]
