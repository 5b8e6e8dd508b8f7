"""What is known of each job: from the batch system, from Dask's scheduler, and from what its workers announced."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from mlipcluster.deploy.queues import ENDED, GONE, PENDING, RUNNING, JobState
from mlipcluster.deploy.scaling import LEAVING, STARTING, WORKING, JobView

OF_THE_SYSTEM = ("TIMEOUT", "DEADLINE", "PREEMPTED", "CANCELLED", "NODE_FAIL", "BOOT_FAIL", "REVOKED", "COMPLETED")
"""Endings that are no fault of what ran."""
RESTART_SECONDS = 20.0
"""In which a nanny has started a worker again that died."""
NEW_SECONDS = 20.0
"""For which a batch system may not know of a job yet that was submitted: what LSF's bjobs tells is so old at times."""
USEFUL_SECONDS = 1.0
"""For which a worker has to take work, when it joins, to be of any use."""
NEAR_ITS_END = 5.0
"""A worker that is gone when it had so little time left has gone for that."""


@dataclass(frozen=True)
class WorkerView:
    """A worker, as Dask's scheduler sees it.

    Attributes
    ----------
    name : str
        ``"TAG-NUMBER"``.
    calls : int
        Chunks that it has been given.
    seconds : float
        For which it takes work.
    """

    name: str
    calls: int = 0
    seconds: float = math.inf

    @property
    def tag(self) -> str:
        """Of its job."""
        return self.name.rpartition("-")[0]


@dataclass
class SubmittedJob:
    """A job on its way from submission to end; times are of `time.monotonic`."""

    tag: str
    job: str
    submitted: float
    state: JobState = field(default_factory=lambda: JobState(PENDING))
    began: float | None = None
    joined: float | None = None
    useful: bool = False
    busy: float = 0.0
    left: float = math.inf
    workers: frozenset[str] = frozenset()
    gone: float | None = None
    leaving: bool = False
    taken_back: bool = False
    ended: float | None = None
    trouble: str = ""

    def view(self, now: float) -> JobView:
        """As scaling sees it."""
        if self.leaving or (self.gone is not None and now - self.gone > RESTART_SECONDS):
            return JobView(self.tag, LEAVING)
        if self.workers:
            return JobView(self.tag, WORKING, now - self.busy, self.left)
        return JobView(self.tag, PENDING if self.state.state == PENDING else STARTING)


class JobTable:
    """All jobs of a crew."""

    def __init__(self) -> None:
        self._jobs: dict[str, SubmittedJob] = {}
        self._tags: dict[str, str] = {}
        self._left: dict[str, float] = {}
        self._announced: set[str] = set()

    def __getitem__(self, tag: str) -> SubmittedJob:
        return self._jobs[tag]

    def add(self, job: SubmittedJob) -> None:
        """A job was submitted."""
        self._jobs[job.tag] = job

    @property
    def all(self) -> list[SubmittedJob]:
        """Those that have ended too."""
        return list(self._jobs.values())

    @property
    def alive(self) -> list[SubmittedJob]:
        """Jobs that the batch system still has, as far as is known."""
        return [job for job in self.all if job.ended is None]

    @property
    def workers(self) -> int:
        """Workers that are there now."""
        return sum(len(job.workers) for job in self.all)

    def views(self, now: float) -> list[JobView]:
        """As scaling sees those that are alive."""
        return [job.view(now) for job in self.alive]

    def hope(self, now: float) -> bool:
        """Whether a job is there that works, or is about to: those that died may have been on a bad node."""
        return any(view.state in (STARTING, WORKING) for view in self.views(now))

    def see_queue(self, states: Mapping[str, JobState], now: float) -> list[SubmittedJob]:
        """Take in what the batch system says, by its names of jobs; give those that have ended since."""
        ended = []
        for job in self.alive:
            told = states.get(job.job, job.state)
            if told == GONE and now - job.submitted < NEW_SECONDS:
                continue
            job.state = told
            if job.state.state == RUNNING and job.began is None:
                job.began = now
            if job.state.state == ENDED:
                job.ended = now
                ended.append(job)
        return ended

    def see_workers(self, workers: Mapping[str, WorkerView], now: float) -> list[SubmittedJob]:
        """Take in what the scheduler says, by addresses; give the jobs of which a first worker has joined since."""
        joined = []
        for tag, job in self._jobs.items():
            own = {address: worker for address, worker in workers.items() if worker.tag == tag}
            if own and job.joined is None:
                job.joined = job.busy = now
                joined.append(job)
            if any(worker.calls for worker in own.values()):
                job.busy = now
            if own:
                job.gone = None
            elif job.workers:
                job.gone = now
                job.leaving = job.leaving or job.workers <= self._announced
            job.left = min((worker.seconds for worker in own.values()), default=math.inf)
            job.useful = job.useful or (bool(own) and job.left > USEFUL_SECONDS)
            job.workers = frozenset(own)
            job.leaving = job.leaving or (bool(own) and own.keys() <= self._announced)
            self._tags.update(dict.fromkeys(own, tag))
            self._left.update({address: worker.seconds for address, worker in own.items()})
        return joined

    def announced(self, address: str) -> None:
        """A worker said that it leaves."""
        self._announced.add(address)

    def is_blameless(self, address: str) -> bool:
        """Whether a worker's end had nothing to do with what ran on it."""
        tag = self._tags.get(address)
        if address in self._announced or self._left.get(address, math.inf) < NEAR_ITS_END:
            return True
        return tag is not None and self._jobs[tag].state.reason.startswith(OF_THE_SYSTEM)

    def words(self, now: float) -> str:
        """What is waited for: ``"3 jobs wait: Resources"``; ``""`` where nothing is."""
        parts = []
        views = {job.tag: job.view(now).state for job in self.alive}
        waiting = [job for job in self.alive if views[job.tag] == PENDING]
        if waiting:
            said = Counter(job.state.reason for job in waiting if job.state.reason not in ("", "None"))
            why = f": {', '.join(said)}" if said else ""
            parts.append(f"{_jobs(len(waiting))} {'waits' if len(waiting) == 1 else 'wait'}{why}")
        starting = sum(state == STARTING for state in views.values())
        if starting:
            parts.append(f"{_jobs(starting)} {'starts' if starting == 1 else 'start'}")
        return "; ".join(parts)


def _jobs(count: int) -> str:
    return f"{count} job{'' if count == 1 else 's'}"
