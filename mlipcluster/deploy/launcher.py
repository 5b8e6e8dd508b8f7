"""How a run's jobs get into the queue, and out of it: their spec, their script, their notes."""

from __future__ import annotations

import time
import warnings
from collections.abc import Collection
from typing import Any

import dask
from distributed import Scheduler

from mlipcluster.deploy import calm, tls
from mlipcluster.deploy.batch import Batch
from mlipcluster.deploy.deployment import Place
from mlipcluster.deploy.handshake import facts_here
from mlipcluster.deploy.job_notes import SUBMITTING, JobNotes, Note, cancel_left
from mlipcluster.deploy.job_spec import JobSpec, Refusal
from mlipcluster.deploy.job_table import SubmittedJob
from mlipcluster.deploy.local import QuietCluster, tail
from mlipcluster.deploy.queues import ENDED, RUNNING, JobState
from mlipcluster.errors import RunError

PATIENCE = 120.0
"""Seconds for which driver and workers wait for each other when the network is cut."""
CLOSE_SECONDS = 20.0
"""In which jobs have to end when the run does, beside their grace."""
BY_THEMSELVES = 5.0
"""In which jobs end by themselves, once the scheduler is gone."""


class Launcher:
    """Submits a deployment's jobs.

    Parameters
    ----------
    batch : Batch
        Settled: what its fields left open is decided.
    place : Place

    Attributes
    ----------
    name : str
        Of each job, by which those of a lost driver are found.
    """

    def __init__(self, batch: Batch, place: Place) -> None:
        self.batch = batch
        self.queue = batch.system
        self.name = f"mlipcluster-{place.token}-{place.number}"
        self._place = place
        self._notes = JobNotes(place.jobs)
        self._spec = place.private / "job.json"
        self._doubtful = 0

    def cancel_left(self) -> list[str]:
        """Cancel what a lost driver has left in the queue; the jobs."""
        return cancel_left(self._notes, self.queue, self.name, self.batch.kind)

    def write_spec(self, scheduler: str) -> None:
        """Write what jobs are told, the workers' credentials beside it."""
        batch, lasts = self.batch, walltime(self.batch)
        self._place.logs.mkdir(parents=True, exist_ok=True)
        JobSpec(
            scheduler=scheduler,
            processes=batch.processes or 1,
            cores=batch.cores or 1,
            gpus=batch.gpus,
            walltime=lasts,
            grace=batch.grace,
            margin=margin(lasts),
            patience=PATIENCE,
            scratch=batch.scratch,
            same_versions=batch.same_versions,
            variables={
                **calm.VARIABLES,
                **calm.as_variables(timeouts()),
                "DASK_LOGGING__DISTRIBUTED": "warning",
                **tls.worker_variables(self._place.security, self._place.private),
            },
            driver=facts_here(environment=False).to_json(),
        ).write(self._spec)

    def submit(self, tag: str) -> str:
        """Submit a job, and note it before anything else is done with it; the batch system's name of it.

        Raises
        ------
        RunError
            The queue refuses it; the message says why.
        """
        command = self.batch.node_command(str(self._spec), tag)
        script = self.batch.script(command, name=self.name, logs=self._place.logs)
        with SUBMITTING:
            self._doubtful += 1
            job = self.queue.submit(script, self._spec.parent)
            self._notes.add(Note(job, self.name, self.batch.kind))
            self._doubtful -= 1
        return job

    def refusal(self, tag: str) -> Refusal | None:
        """Why a job's workers are none for this driver."""
        return Refusal.read(self._spec, tag)

    def forget(self, jobs: Collection[str]) -> None:
        """Jobs that have ended need no notes."""
        self._notes.forget(set(jobs))

    def why_it_died(self, job: SubmittedJob) -> str:
        """Why a job ended before a worker of its could work, as far as can be told."""
        log = self.batch.log(self._place.logs, self.name, job.job)
        text = f"{self.queue.system} says of job {job.job}: {job.state.reason or 'nothing'}"
        if job.joined is not None or job.state.reason == "TIMEOUT":
            text += f". Its walltime of {walltime(self.batch):.0f} s is shorter than a start-up; give a longer one"
        if job.joined is not None:
            return f"{text}: its workers joined {job.joined - job.submitted:.0f} s after it was submitted."
        if not log.exists():
            return (
                f"{text}. It has left no log {str(log)!r}: the nodes do not see that folder; choose an output_path on "
                "a file system that they share with this machine."
            )
        return f"{text}. Its last words:\n{tail(log)}\nMend that, then run the same again."

    def see_off(self, jobs: Collection[str]) -> None:
        """Wait for jobs whose workers have gone with the scheduler, and cancel what stays.

        Where a submission failed, nobody knows for sure that it has left no job.

        Warns
        -----
        UserWarning
            Jobs may be left in the queue.
        """
        left, cancelled, begun = set(jobs), set[str](), time.monotonic()
        why = "they do not end."
        try:
            if self._doubtful:
                left.update(self.queue.find(self.name))
                self._doubtful = 0
            while left and (passed := time.monotonic() - begun) < CLOSE_SECONDS + self.batch.grace:
                states = self.queue.look(left)
                left = {job for job in left if states.get(job, JobState(ENDED)).state != ENDED}
                stay = {job for job in left if states[job].state != RUNNING or passed > BY_THEMSELVES}
                self.queue.cancel(stay - cancelled)
                cancelled |= stay
                if left:
                    time.sleep(0.3)
        except RunError as error:
            why = str(error)
        self.forget(set(jobs) - left)
        if self._doubtful:
            left.add(f"one named {self.name}")
        if left:
            warnings.warn(
                f"jobs may be left in the queue: {', '.join(sorted(left))}; {why} Cancel them by hand, or run the same "
                "again, which does.",
                stacklevel=2,
            )


def start_scheduler(batch: Batch, place: Place) -> QuietCluster:
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


def walltime(batch: Batch) -> float:
    """Of a job, in seconds, once the deployment is settled."""
    return float(batch.walltime or 0.0)


def margin(walltime: float) -> float:
    """Seconds before a job's end in which its workers take no more work: enough to hand in what is done."""
    return max(2.0, min(30.0, walltime / 20))


def timeouts() -> dict[str, str]:
    """Dask's configuration by which a connection outlives a cut of the network; it takes both sides."""
    return {
        "distributed.comm.timeouts.connect": "60s",
        "distributed.comm.timeouts.tcp": f"{PATIENCE:g}s",
        "distributed.scheduler.worker-ttl": f"{max(300.0, 2 * PATIENCE):g}s",
    }


def patiently() -> dask.config.set:
    """Connections that are made inside outlive a cut."""
    return dask.config.set(timeouts())
