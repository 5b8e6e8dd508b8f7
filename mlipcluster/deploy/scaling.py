"""How many jobs there should be: demand and jobs go in, a plan comes out; no clock, no I/O, no batch system."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlipcluster.deploy.deployment import Demand, Range

WORK_SECONDS = 30.0
"""A worker is worth starting for so much work: what its start costs, about."""
PATIENCE = 30.0
"""Seconds for which jobs have to be too many before those that still wait are taken back."""
DEATHS = 3
"""So many jobs in a row that end before a worker of theirs could take work: the next would not do better."""
LONGEST_PAUSE = 60.0
AT_ONCE = 20
"""Jobs that are submitted in one go at most."""
SHORTEST_LEAD = 5.0

PENDING, STARTING, WORKING, LEAVING = "pending", "starting", "working", "leaving"


@dataclass(frozen=True)
class Rules:
    """What does not change in a run.

    Attributes
    ----------
    workers : Range
        At least and at most so many; in whole jobs.
    processes : int
        Workers of a job.
    walltime : float
        Seconds of a job; `math.inf` where there is no end.
    idle_timeout : float
        Seconds without work after which a job that is too many is given back.
    max_queued : int, optional
        Jobs that may wait in the queue at a time.
    """

    workers: Range
    processes: int = 1
    walltime: float = math.inf
    idle_timeout: float = 60.0
    max_queued: int | None = None


@dataclass(frozen=True)
class JobView:
    """A job, as far as scaling is concerned.

    Attributes
    ----------
    tag : str
        Its name.
    state : str
        ``"pending"`` in the queue, ``"starting"`` until its workers have joined, ``"working"``, or ``"leaving"``.
    idle : float
        Seconds since one of its workers last had work; 0 before they have joined.
    left : float
        Seconds for which its workers take work.
    """

    tag: str
    state: str
    idle: float = 0.0
    left: float = math.inf


@dataclass(frozen=True)
class Plan:
    """What to do now: how many jobs to submit, which to cancel before they begin, which to end as they are idle."""

    submit: int = 0
    cancel: tuple[str, ...] = ()
    retire: tuple[str, ...] = ()


class Scaling:
    """Follows the demand without following every twitch of it."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.deaths = 0
        """Jobs in a row that ended before a worker of theirs could take work."""
        self._start_seconds: float | None = None
        self._not_before = -math.inf
        self._surplus_since: float | None = None

    @property
    def hopeless(self) -> bool:
        """Whether jobs have died at their start so often that the next would too."""
        return self.deaths >= DEATHS

    @property
    def lead(self) -> float:
        """Seconds before a job's end at which its replacement is submitted."""
        started = self._start_seconds or 0.0
        return min(max(SHORTEST_LEAD, started), self.rules.walltime / 3)

    def joined(self, seconds: float) -> None:
        """A job's first worker has joined, so many seconds after the job was submitted."""
        known = self._start_seconds
        self._start_seconds = seconds if known is None else 0.5 * (known + seconds)

    def worked(self) -> None:
        """A job's workers have been there and taken work."""
        self.deaths = 0

    def died(self, now: float) -> None:
        """A job ended before a worker of its could take work: the next waits, longer each time."""
        self.deaths += 1
        self._not_before = now + min(LONGEST_PAUSE, 2.0**self.deaths)

    def refused(self, now: float) -> None:
        """The queue takes no more jobs at the moment."""
        self._not_before = now + LONGEST_PAUSE / 2

    def plan(self, demand: Demand, jobs: Sequence[JobView], now: float) -> Plan:
        """What to do about the *demand*, with these *jobs*, at this time (seconds of any clock that only goes on)."""
        spent = tuple(job.tag for job in jobs if self._is_spent(job, demand))
        plan = self._plan(demand, [job for job in jobs if job.state != LEAVING and job.tag not in spent], now)
        return replace(plan, retire=plan.retire + spent)

    def _is_spent(self, job: JobView, demand: Demand) -> bool:
        """Whether a job stands idle, and will, as it has too little time left for all that is to do."""
        waits = job.state == WORKING and job.idle >= self.rules.idle_timeout
        return waits and demand.calls > 0 and job.left < demand.need

    def _plan(self, demand: Demand, here: Sequence[JobView], now: float) -> Plan:
        lasting = [job for job in here if job.state != WORKING or job.left > self.lead]
        missing = self._wanted(_what_is_left(demand, here, self.lead, self.rules.processes)) - len(lasting)
        if missing > 0:
            self._surplus_since = None
            return Plan(submit=self._allowed(missing, here, now))
        return self._shrink(len(here) - self._wanted(demand), here, now)

    def _wanted(self, demand: Demand) -> int:
        """Jobs for so much work."""
        workers = demand.calls
        if demand.seconds is not None and workers > 0:
            workers = min(workers, max(1.0, math.ceil(demand.seconds / WORK_SECONDS)))
        least, most = self.rules.workers
        each = self.rules.processes
        return min(max(1, most // each), math.ceil(min(max(workers, least), most) / each))

    def _allowed(self, missing: int, jobs: Sequence[JobView], now: float) -> int:
        if now < self._not_before or self.hopeless:
            return 0
        queued = sum(job.state == PENDING for job in jobs)
        room = AT_ONCE if self.rules.max_queued is None else self.rules.max_queued - queued
        return max(0, min(missing, room, AT_ONCE))

    def _shrink(self, surplus: int, jobs: Sequence[JobView], now: float) -> Plan:
        """Take back what waits, if it has been too much for a while; end what is idle, never what works."""
        if surplus <= 0:
            self._surplus_since = None
            return Plan()
        if self._surplus_since is None:
            self._surplus_since = now
        pending = [job.tag for job in jobs if job.state == PENDING]
        idle = sorted((j for j in jobs if j.state == WORKING and j.idle >= self.rules.idle_timeout), key=_by_idleness)
        cancel = pending[max(0, len(pending) - surplus) :] if now - self._surplus_since >= PATIENCE else []
        retire = idle[: max(0, surplus - len(pending))]
        return Plan(cancel=tuple(cancel), retire=tuple(job.tag for job in retire))


def _by_idleness(job: JobView) -> float:
    return -job.idle


def _what_is_left(demand: Demand, jobs: Sequence[JobView], lead: float, processes: int) -> Demand:
    """The demand without what jobs that end soon can still do of it."""
    if demand.seconds is None or not 0 < demand.calls < math.inf:
        return demand
    each = demand.seconds / demand.calls
    soon = [job.left for job in jobs if job.state == WORKING and job.left <= lead]
    calls = min(demand.calls, sum(processes * (left // each) for left in soon) if each else demand.calls)
    return replace(demand, calls=demand.calls - calls, seconds=demand.seconds - calls * each) if soon else demand
