"""Workers of one calculator, and what waits for them, as far as it matters for who gets what."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mlipcluster.serving.fair_queue import FairQueue, Request

STARTING, IDLE, BUSY, ENDING = "starting", "idle", "busy", "ending"


@dataclass(eq=False)
class Worker:
    """A worker, as far as it matters for who gets what.

    Attributes
    ----------
    number : int
    name : str
        Its calculator.
    ours : bool
        The server started it, or has it started; otherwise it joined by itself.
    since : float
        When its state began, monotonic s.
    idle_timeout : float
        s
    request : Request or None
        What it works on.
    began : float
        When it began with that, monotonic s.
    calls, seconds : int, float
        How much it has done.
    call_timeout : float or None
        Seconds after which a call is given up.
    """

    number: int
    name: str
    ours: bool
    since: float
    idle_timeout: float
    state: str = STARTING
    request: Request | None = None
    began: float = 0.0
    calls: int = 0
    seconds: float = 0.0
    call_timeout: float | None = None


@dataclass(eq=False)
class Pool:
    """The workers of one calculator, and what waits for them."""

    name: str
    newest: int = 0  # number of the worker that came last
    workers: dict[int, Worker] = field(default_factory=dict)
    idle: OrderedDict[int, Worker] = field(default_factory=OrderedDict)  # the least recently used first
    waiting: FairQueue = field(default_factory=FairQueue)
    pressed: float | None = None  # since when requests have been waiting without a break
    no_start_before: float = 0.0
    calls: int = 0
    seconds: float = 0.0

    @property
    def here(self) -> int:
        """How many workers there are, or will be."""
        return len(self.workers) - self.count(ENDING)

    def count(self, state: str) -> int:
        """How many workers are in a state."""
        return sum(worker.state == state for worker in self.workers.values())


def summary(pools: Iterable[Pool]) -> list[dict[str, Any]]:
    """What runs, by calculator: for people, and as JSON."""
    return [
        {
            "name": pool.name,
            "idle": pool.count(IDLE),
            "busy": pool.count(BUSY),
            "starting": pool.count(STARTING),
            "ending": pool.count(ENDING),
            "waiting": len(pool.waiting),
            "calls": pool.calls,
            "mean_seconds": pool.seconds / pool.calls if pool.calls else None,
        }
        for pool in pools
        if pool.workers or pool.calls or pool.waiting
    ]
