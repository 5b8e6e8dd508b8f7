"""Workers in jobs of a batch system, whose number follows the work: the crew that `Batch.start` gives."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import dask
from distributed import Scheduler

from mlipcluster.deploy import calm, tls
from mlipcluster.deploy.batch import Batch
from mlipcluster.deploy.crew import ClusterCrew
from mlipcluster.deploy.deployment import Demand, Place
from mlipcluster.deploy.handshake import facts_here
from mlipcluster.deploy.job_notes import SUBMITTING, JobNotes, Note, cancel_left
from mlipcluster.deploy.job_spec import JobSpec, Refusal
from mlipcluster.deploy.job_table import JobTable, SubmittedJob, WorkerView
from mlipcluster.deploy.local import QuietCluster, tail
from mlipcluster.deploy.queues import ENDED, PENDING, RUNNING, JobState
from mlipcluster.deploy.scaling import LEAVING, Plan, Rules, Scaling
from mlipcluster.deploy.tenure import TOPIC, retire
from mlipcluster.errors import MismatchError, MLIPClusterError, RunError

log = logging.getLogger("mlipcluster")

TICK = 1.0
"""Seconds between two looks at the workers."""
LOOK_OFTEN, LOOK_SELDOM = 2.0, 15.0
"""Seconds between two looks at the queue: shortly after something happened in it, and later."""
PATIENCE = 120.0
"""Seconds for which driver and workers wait for each other when the network is cut."""
JOIN_SECONDS = 300.0
"""In which workers of a job that runs have to join."""
UNKNOWN_SECONDS = 600.0
"""For which the batch system may not answer while no worker is there."""
CLOSE_SECONDS = 20.0
"""In which jobs have to end when the run does."""


class JobCrew(ClusterCrew):
    """The scheduler in this process, and jobs that bring workers to it.

    Parameters
    ----------
    batch : Batch
        Settled: what its fields left open is decided.
    place : Place
    """

    timed = True

    def __init__(self, batch: Batch, place: Place) -> None:
        self._batch = batch
        self._place = place
        self._queue = batch.system
        self._name = f"mlipcluster-{place.token}-{place.number}"
        self._notes = JobNotes(place.jobs)
        self._table = JobTable()
        self._scaling = Scaling(rules(batch))
        self._demand = Demand()
        self._error: MLIPClusterError | None = None
        self._trouble = ""
        self._count = 0
        self._alone_since: float | None = None
        self._looked = self._happened = time.monotonic()
        self._stop = threading.Event()
        place.logs.mkdir(parents=True, exist_ok=True)
        self._tell_of_left(cancel_left(self._notes, self._queue, self._name, batch.kind))
        with contextlib.ExitStack() as stack:
            # For as long as connections are made, which is until the end; it takes both sides to outlive a cut.
            stack.enter_context(dask.config.set(_timeouts()))
            super().__init__(_scheduler(batch, place), batch.offers())
            stack.callback(super().close)
            self._spec = self._write_spec()
            self.client.subscribe_topic(TOPIC, self._hear)
            self._undo = stack.pop_all()
        self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        self._thread.start()

    # --- what the run asks -------------------------------------------------------------------------------------------

    def want(self, demand: Demand) -> None:
        """Take in how much work there is."""
        self._demand = demand

    def look_after(self) -> None:
        """Raise what the jobs ran into, if they cannot go on."""
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
        with contextlib.ExitStack() as stack:
            stack.callback(tls.remove_private, self._place)
            stack.callback(self._end_jobs)
            stack.callback(self._undo.close)
            with contextlib.suppress(RunError):  # those that have not begun need not begin now; told of below
                self._queue.cancel(job.job for job in self._table.alive if job.state.state == PENDING)

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._stop.wait(TICK) and self._error is None:
            try:
                self._round(time.monotonic())
            except MLIPClusterError as error:
                self._error = error
            except Exception as error:  # noqa: BLE001 - whatever it is, the run has to hear of it
                if not self._stop.is_set():
                    self._error = RunError(f"the jobs cannot be looked after any more: {type(error).__name__}: {error}")

    def _round(self, now: float) -> None:
        """Look at everything once, and do what that asks for."""
        self._look_at_workers(now)
        if self._is_due(now):
            self._look_at_queue(now)
        self._give_up_waiting(now)
        self._follow(self._scaling.plan(self._demand, self._table.views(now), now), now)

    def _look_at_workers(self, now: float) -> None:
        before = self._table.workers
        for job in self._table.see_workers(self.client.run_on_scheduler(_workers), now):
            self._scaling.joined(now - job.submitted)
            log.info("job %s: workers joined %.0f s after it was submitted", job.job, now - job.submitted)
        if self._table.workers < before:
            self._happened, self._looked = now, 0.0

    def _is_due(self, now: float) -> bool:
        often = min(LOOK_SELDOM, max(LOOK_OFTEN, (now - self._happened) / 10))
        return bool(self._table.alive) and now - self._looked >= often

    def _look_at_queue(self, now: float) -> None:
        self._looked = now
        alive = self._table.alive
        try:
            states = self._queue.look(job.job for job in alive)
        except RunError as error:
            self._trouble = str(error)
            return
        self._trouble = ""
        if any(states[job.job] != job.state for job in alive if job.job in states):
            self._happened = now
        for job in self._table.see_queue(states, now):
            self._ended(job, now)
        self._end_odd_jobs(now)

    def _ended(self, job: SubmittedJob, now: float) -> None:
        log.info("job %s ended: %s", job.job, job.state.reason or "for reasons that the batch system does not tell")
        self._notes.forget({job.job})
        if job.workers:  # to the batch system the node is free: they finish what they do, and go
            self._retire(job.workers)
        if job.joined is not None or job.leaving:
            return
        if refusal := Refusal.read(self._spec, job.tag):
            raise MismatchError(refusal.text, refusal.differences)
        self._scaling.died(now)
        if self._scaling.hopeless:
            raise RunError(self._why_jobs_die(job))

    def _end_odd_jobs(self, now: float) -> None:
        """Cancel jobs that run and do nothing: none of their workers has joined, or the last is gone."""
        for job in self._table.alive:
            if job.joined is None and job.began is not None and now - job.began > JOIN_SECONDS and not job.leaving:
                self._trouble = (
                    f"job {job.job} ran for {JOIN_SECONDS:.0f} s on {job.state.node}, and no worker of its joined "
                    f"{self.cluster.scheduler_address}"
                )
                log.warning(self._trouble)
                self._queue.cancel([job.job])
            elif job.joined is not None and job.view(now).state == LEAVING and not job.workers:
                self._queue.cancel([job.job])

    def _give_up_waiting(self, now: float) -> None:
        if self._table.workers or not self._demand.calls:
            self._alone_since = None
            return
        self._alone_since = self._alone_since or now
        alone = now - self._alone_since
        timeout = self._batch.start_timeout
        if timeout is not None and alone > timeout:
            raise RunError(
                f"no worker came within start_timeout={timeout:g} s; {self.waiting() or 'no job was submitted'}. Ask "
                "for less, or for another queue=, or give a longer start_timeout; all that is finished is saved."
            )
        if self._trouble and alone > UNKNOWN_SECONDS:
            raise RunError(f"there are no workers, and {self._trouble}")

    def _follow(self, plan: Plan, now: float) -> None:
        for _ in range(plan.submit):
            if not self._submit(now):
                return
        if plan.cancel:
            log.info("%d jobs that wait are taken back: there is less work than that", len(plan.cancel))
            self._queue.cancel(self._table[tag].job for tag in plan.cancel)
            for tag in plan.cancel:
                self._table[tag].leaving = True
        for tag in plan.retire:
            log.info("job %s is idle and given back", self._table[tag].job)
            self._retire(self._table[tag].workers)

    def _submit(self, now: float) -> bool:
        """Submit a job, and note it; False where the queue takes no more for now."""
        self._count += 1
        tag = f"job{self._place.number}-{self._count}"
        command = [self._batch.interpreter, "-m", "mlipcluster.deploy.node", str(self._spec), tag]
        script = self._batch.script(command, name=self._name, logs=self._place.logs)
        try:
            with SUBMITTING:
                job = self._queue.submit(script, self._spec.parent)
                self._notes.add(Note(job, self._name, self._batch.kind))
        except RunError as error:
            if not self._table.alive:
                raise
            self._trouble = str(error)  # as many as the site allows are there
            self._scaling.refused(now)
            return False
        log.info("job %s submitted", job)
        self._table.add(SubmittedJob(tag, job, now))
        self._happened = now
        return True

    def _retire(self, workers: Iterable[str]) -> None:
        self.client.run(retire, workers=list(workers), on_error="ignore", wait=False)

    def _hear(self, event: tuple[float, Any]) -> None:
        """An event of `TOPIC`, in Dask's thread."""
        message = event[1]
        if isinstance(message, Mapping) and message.get("event") == "leaves":
            self._table.announced(str(message["worker"]))

    # --- begin and end ------------------------------------------------------------------------------------------------

    def _write_spec(self) -> Path:
        batch, private = self._batch, self._place.private
        variables = {**calm.VARIABLES, **calm.as_variables(_timeouts()), "DASK_LOGGING__DISTRIBUTED": "warning"}
        variables |= tls.worker_variables(self._place.security, private)
        spec = JobSpec(
            scheduler=self.cluster.scheduler_address,
            processes=batch.processes or 1,
            cores=batch.cores or 1,
            gpus=batch.gpus,
            walltime=float(batch.walltime or 0) or None,
            grace=batch.grace,
            margin=margin(float(batch.walltime or 0)),
            patience=PATIENCE,
            scratch=batch.scratch,
            same_versions=batch.same_versions,
            variables=variables,
            driver=facts_here().to_json(),
        )
        spec.write(private / "job.json")
        return private / "job.json"

    def _end_jobs(self) -> None:
        """Wait for the jobs, whose workers have gone with the scheduler; cancel what stays."""
        left = {job.job for job in self._table.alive}
        cancelled: set[str] = set()
        begun = time.monotonic()
        try:
            while left and time.monotonic() - begun < CLOSE_SECONDS + self._batch.grace:
                states = self._queue.look(left)
                left = {job for job in left if states.get(job, JobState(ENDED)).state != ENDED}
                stays = {job for job in left if states[job].state != RUNNING or time.monotonic() - begun > 5.0}
                self._queue.cancel(stays - cancelled)
                cancelled |= stays
                self._stop.wait(0) if not left else time.sleep(0.3)
        except RunError as error:
            self._warn(left, str(error))
            return
        self._notes.forget({job.job for job in self._table.all} - left)
        if left:
            self._warn(left, "they do not end.")

    def _warn(self, left: set[str], why: str) -> None:
        warnings.warn(
            f"jobs may be left in the queue: {', '.join(sorted(left))}; {why} Cancel them by hand, or run the same "
            "again, which does.",
            stacklevel=2,
        )

    def _tell_of_left(self, jobs: list[str]) -> None:
        if jobs:
            self._trouble = f"cancelled {len(jobs)} jobs that a driver before this one had left: {', '.join(jobs)}"
            log.info(self._trouble)

    def _why_jobs_die(self, job: SubmittedJob) -> str:
        """Why the jobs die at their start, as far as can be told."""
        path = self._batch.log(self._place.logs, self._name, job.job)
        said = job.state.reason or "no reason"
        text = f"{self._scaling.deaths} jobs in a row ended before a worker of theirs could join; "
        text += f"{self._queue.system} says of job {job.job}: {said}"
        if job.state.reason == "TIMEOUT":
            text += f". Its walltime of {self._batch.walltime:.0f} s is shorter than a start-up; give a longer one"
        if not path.exists():
            return (
                f"{text}. It has left no log {str(path)!r}: the nodes do not see that folder; choose an output_path on "
                "a file system that they share with this machine."
            )
        return f"{text}. Its last words:\n{tail(path)}\nMend that, then run the same again."


def rules(batch: Batch) -> Rules:
    """What its fields say of scaling."""
    lasts = float(batch.walltime or 0) or float("inf")
    return Rules(batch.range, batch.processes or 1, lasts, batch.idle_timeout, batch.max_queued)


def margin(walltime: float) -> float:
    """Seconds before a job's end in which its workers take no more work: enough to hand in what is done."""
    return max(2.0, min(30.0, walltime / 20))


def _timeouts() -> dict[str, Any]:
    return {
        "distributed.comm.timeouts.connect": "60s",
        "distributed.comm.timeouts.tcp": f"{PATIENCE:g}s",
        "distributed.scheduler.worker-ttl": f"{max(300.0, 2 * PATIENCE):g}s",
    }


def _scheduler(batch: Batch, place: Place) -> QuietCluster:
    """A scheduler in this process that nodes can reach."""
    options: dict[str, Any] = {
        "host": batch.host,
        "interface": batch.interface,
        "protocol": "tls://" if place.security else "tcp://",
        "port": 0,
        "dashboard": True,
        "dashboard_address": place.dashboard_address,
        "security": place.security,
    }
    with calm.calmly():
        return QuietCluster(
            name="mlipcluster",
            scheduler={"cls": Scheduler, "options": options},
            workers={},
            security=place.security,
        )


def _workers(dask_scheduler: Scheduler) -> dict[str, WorkerView]:
    """Workers by address, for `Client.run_on_scheduler`."""
    return {
        address: WorkerView(str(worker.name), len(worker.processing), worker.resources.get("seconds", float("inf")))
        for address, worker in dask_scheduler.workers.items()
    }
