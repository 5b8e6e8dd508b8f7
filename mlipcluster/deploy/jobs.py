"""Workers in jobs of a batch system, whose number follows the work: the crew that `Batch.start` gives."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distributed import Scheduler

from mlipcluster.deploy import launcher, tls
from mlipcluster.deploy.batch import Batch
from mlipcluster.deploy.crew import ClusterCrew
from mlipcluster.deploy.deployment import Demand, Place
from mlipcluster.deploy.job_table import JobTable, SubmittedJob, WorkerView
from mlipcluster.deploy.launcher import Launcher
from mlipcluster.deploy.queues import PENDING
from mlipcluster.deploy.scaling import Plan, Rules, Scaling
from mlipcluster.deploy.tenure import TOPIC, retire
from mlipcluster.errors import MismatchError, MLIPClusterError, RunError

log = logging.getLogger("mlipcluster")

TICK = 1.0
"""Seconds between two looks at the workers."""
LOOK_OFTEN, LOOK_SELDOM = 2.0, 15.0
"""Seconds between two looks at the queue: shortly after something happened in it, and later."""
JOIN_SECONDS = 300.0
"""In which workers of a job that runs have to join."""
UNKNOWN_SECONDS = 600.0
"""For which the batch system may not answer, or take no job while it has none, and no worker is there."""
GONE_SECONDS = 30.0
"""In which a job has to end when the last of its workers has left."""
HEARD_SECONDS = 60.0
"""A demand that is older, with a run that does not wait for it any more, is none."""


class JobCrew(ClusterCrew):
    """The scheduler in this process, and jobs that bring workers to it.

    Parameters
    ----------
    batch : Batch
        Settled: what its fields left open is decided.
    place : Place

    Raises
    ------
    RunError
        The batch system does not answer.
    """

    timed = True
    checked = True

    def __init__(self, batch: Batch, place: Place) -> None:
        self._launcher = Launcher(batch, place)
        self._queue = self._launcher.queue
        self._place = place
        self._table = JobTable()
        lasts = launcher.walltime(batch)
        self._scaling = Scaling(Rules(batch.range, batch.processes or 1, lasts, batch.idle_timeout, batch.max_queued))
        self._demand = Demand()
        self._error: MLIPClusterError | None = None
        self._trouble = ""
        self._count = 0
        self._alone_since: float | None = None
        self._heard = self._happened = self._answered = time.monotonic()
        self._looked = 0.0
        self._stop = threading.Event()
        self._tell_of_left()
        with contextlib.ExitStack() as stack:
            stack.enter_context(launcher.patiently())  # for as long as connections are made: until the end
            super().__init__(launcher.start_scheduler(batch, place), batch.offers())
            stack.callback(super().close)
            self._launcher.write_spec(self.cluster.scheduler_address)
            self.client.subscribe_topic(TOPIC, self._hear)
            self._undo = stack.pop_all()
        self._thread = threading.Thread(target=self._work, name=self._launcher.name, daemon=True)
        self._thread.start()

    def want(self, demand: Demand) -> None:
        """Take in how much work there is."""
        self._demand, self._heard = demand, time.monotonic()

    def look_after(self) -> None:
        """Raise what the jobs ran into, if they cannot go on."""
        self._heard = time.monotonic()
        if self._error is not None:
            raise self._error

    def waiting(self) -> str:
        """What the queue says of jobs that have not begun, and what is wrong with it."""
        return "; ".join(filter(None, (self._table.words(time.monotonic()), self._trouble)))

    def is_blameless(self, worker: str) -> bool:
        """By the job's state, its worker's announcement, or the time that it had left."""
        return self._table.is_blameless(worker)

    def close(self) -> None:
        """End workers and jobs; nothing is left in the queue."""
        self._stop.set()
        self._thread.join()
        alive = self._table.alive
        with contextlib.ExitStack() as stack:
            stack.callback(tls.remove_private, self._place)
            stack.callback(self._launcher.see_off, [job.job for job in alive])
            stack.callback(self._undo.close)
            with contextlib.suppress(RunError):  # said when they are seen off
                self._queue.cancel(job.job for job in alive if job.state.state == PENDING)

    def _work(self) -> None:
        """The thread: look at everything, do what that asks for, until the run ends or cannot go on."""
        while not self._stop.wait(TICK) and self._error is None:
            try:
                self._round(time.monotonic())
            except MLIPClusterError as error:
                self._error = error
            except Exception as error:  # noqa: BLE001 - whatever it is, the run has to hear of it
                if not self._stop.is_set():
                    self._error = RunError(f"the jobs cannot be looked after any more: {type(error).__name__}: {error}")

    def _round(self, now: float) -> None:
        self._look_at_workers(now)
        often = min(LOOK_SELDOM, max(LOOK_OFTEN, (now - self._happened) / 10))
        if self._table.alive and now - self._looked >= often:
            self._look_at_queue(now)
        demand = self._demand if now - self._heard < HEARD_SECONDS else Demand()
        self._give_up_waiting(demand, now)
        self._follow(self._scaling.plan(demand, self._table.views(now), now), now)

    def _look_at_workers(self, now: float) -> None:
        before = self._table.workers
        for job in self._table.see_workers(self.client.run_on_scheduler(_workers), now):
            self._scaling.joined(now - job.submitted)
            if job.useful:
                self._scaling.worked()
            log.info("job %s: workers joined %.0f s after it was submitted", job.job, now - job.submitted)
        if self._table.workers < before:  # the queue may know why
            self._happened, self._looked = now, 0.0

    def _look_at_queue(self, now: float) -> None:
        self._looked = now
        alive = self._table.alive
        try:
            states = self._queue.look(job.job for job in alive)
        except RunError as error:
            self._trouble = str(error)
            return
        self._trouble, self._answered = "", now
        if any(states.get(job.job, job.state) != job.state for job in alive):
            self._happened = now
        for job in self._table.see_queue(states, now):
            self._ended(job, now)
        self._end_odd_jobs(now)

    def _ended(self, job: SubmittedJob, now: float) -> None:
        log.info("job %s ended: %s", job.job, job.state.reason or "the batch system does not tell why")
        self._launcher.forget([job.job])
        if job.workers:  # to the batch system the node is free: they finish what they do, and go
            self._retire(job.workers)
        if job.useful:
            self._scaling.worked()
        if job.useful or job.taken_back:
            return
        if refusal := self._launcher.refusal(job.tag):
            raise MismatchError(refusal.text, refusal.differences)
        self._scaling.died(now)
        if self._scaling.hopeless and not self._table.hope(now):
            why = job.trouble or self._launcher.why_it_died(job)
            raise RunError(f"{self._scaling.deaths} jobs in a row ended before a worker of theirs could work. {why}")

    def _end_odd_jobs(self, now: float) -> None:
        """Cancel jobs that run and do nothing: none of their workers has joined, or the last is gone."""
        for job in self._table.alive:
            late = job.joined is None and job.began is not None and now - job.began > JOIN_SECONDS
            if late and not job.trouble:
                job.trouble = (
                    f"Job {job.job} ran for {JOIN_SECONDS:.0f} s on {job.state.node}, and no worker of its reached "
                    f"this machine at {self.cluster.scheduler_address}: choose another interface= or host=, or ask for "
                    "the ports to be opened."
                )
                log.warning(job.trouble)
            if late or (job.gone is not None and now - job.gone > GONE_SECONDS):
                self._cancel([job.job])

    def _give_up_waiting(self, demand: Demand, now: float) -> None:
        if self._table.workers or not demand.calls:
            self._alone_since = None
            return
        self._alone_since = self._alone_since or now
        alone, timeout = now - self._alone_since, self._launcher.batch.start_timeout
        if timeout is not None and alone > timeout:
            raise RunError(
                f"no worker came within start_timeout={timeout:g} s; {self.waiting() or 'no job was submitted'}. Ask "
                "for less, or for another queue=, or give a longer start_timeout; all that is finished is saved."
            )
        if self._trouble and min(alone, now - self._answered) > UNKNOWN_SECONDS:
            raise RunError(f"there are no workers, and {self._trouble}")

    def _follow(self, plan: Plan, now: float) -> None:
        for _ in range(plan.submit):
            if not self._submit(now):
                return
        if plan.cancel and self._cancel([self._table[tag].job for tag in plan.cancel]):
            log.info("%d jobs that wait are taken back: there is less work than that", len(plan.cancel))
            for tag in plan.cancel:
                self._table[tag].leaving = self._table[tag].taken_back = True
        for tag in plan.retire:
            log.info("job %s is idle and given back", self._table[tag].job)
            self._retire(self._table[tag].workers)

    def _submit(self, now: float) -> bool:
        """Submit a job; False where the queue takes no more for now."""
        self._count += 1
        tag = f"job{self._place.number}-{self._count}"
        try:
            job = self._launcher.submit(tag)
        except RunError as error:
            if not self._table.all:
                raise
            self._trouble = str(error)  # as many as the site allows are there, or nobody answers just now
            self._scaling.refused(now)
            return False
        log.info("job %s submitted", job)
        self._table.add(SubmittedJob(tag, job, now))
        self._happened = now
        return True

    def _cancel(self, jobs: Sequence[str]) -> bool:
        """Cancel jobs; False where the batch system does not answer, for whom there is another time."""
        try:
            self._queue.cancel(jobs)
        except RunError as error:
            self._trouble = str(error)
            return False
        return True

    def _retire(self, workers: Iterable[str]) -> None:
        self.client.run(retire, workers=list(workers), on_error="ignore", wait=False)

    def _hear(self, event: tuple[float, Any]) -> None:
        """An event of `TOPIC`, in Dask's thread."""
        message = event[1]
        if isinstance(message, Mapping) and message.get("event") == "leaves":
            self._table.announced(str(message["worker"]))

    def _tell_of_left(self) -> None:
        jobs = self._launcher.cancel_left()
        if jobs:
            self.found = f"Cancelled {len(jobs)} jobs that an earlier driver had left: {', '.join(jobs)}."


def _workers(dask_scheduler: Scheduler) -> dict[str, WorkerView]:
    """Workers by address, for `Client.run_on_scheduler`."""
    return {
        address: WorkerView(str(worker.name), len(worker.processing), worker.resources.get("seconds", float("inf")))
        for address, worker in dask_scheduler.workers.items()
    }
