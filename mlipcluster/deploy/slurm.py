"""SLURM.

https://slurm.schedmd.com/sbatch.html, …/squeue.html, …/scancel.html, …/sacct.html, …/scontrol.html
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mlipcluster.deploy import walltime
from mlipcluster.deploy.batch import Batch
from mlipcluster.deploy.queues import ENDED, GONE, PENDING, RUNNING, JobState, Queue, failure, user_name
from mlipcluster.errors import RunError


@dataclass(frozen=True, kw_only=True)
class Slurm(Batch):
    """Workers in jobs of SLURM; `queue` is the partition. See `Batch`."""

    kind: ClassVar[str] = "slurm"
    jobqueue_class: ClassVar[str] = "slurm:SLURMJob"
    warns: ClassVar[bool] = True
    memory_directive: ClassVar[str] = "--mem="

    @property
    def system(self) -> Queue:
        """SLURM's commands."""
        return SlurmQueue()

    def _own_directives(self, name: str, logs: str) -> list[str]:
        own = [f'--output="{logs}/{name}-%j.log"', "--no-requeue"]
        if self.grace:
            own.append(f"--signal=B:TERM@{math.ceil(self.grace)}")
        if self.gpus:
            own.append(f"--gres=gpu:{self.gpus}")
        return own

    def _read_walltime(self, value: Any) -> float:
        return walltime.seconds_of(value, two=60, alone=60)


_STATES = {
    PENDING: {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"},
    RUNNING: {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"},
}
_ALIVE = "pending,configuring,running,suspended"
_OVERRIDES = {
    "SBATCH_JOB_NAME": "-J",
    "SBATCH_OUTPUT": "--output",
    "SBATCH_ERROR": "--output",
    "SBATCH_SIGNAL": "--signal",
    "SBATCH_REQUEUE": "--no-requeue",
    "SBATCH_PARTITION": "-p",
    "SBATCH_ACCOUNT": "-A",
    "SBATCH_TIMELIMIT": "-t",
    "SBATCH_MEM_PER_NODE": "--mem",
    "SBATCH_GRES": "--gres",
}
"""Variables that would override a directive, and which: "Environment variables will override any options set in a
batch script"."""


class SlurmQueue(Queue):
    """Through sbatch, squeue and scancel; how a job ended, from scontrol, and from sacct where there is accounting."""

    system = "SLURM"
    busy = ("unable to contact slurm controller", "connection refused", "resource temporarily unavailable", "backup")
    uncertain = ("socket timed out", "zero bytes were transmitted", "connection timed out")
    unknown = ("invalid job id",)
    options = ("SQUEUE_", "SCANCEL_", "SACCT_")

    def submit(self, script: str, folder: Path) -> str:
        """As `Queue.submit`."""
        said = self._submit(["sbatch", "--parsable"], script, folder, _without_overrides(script))
        return said.strip().splitlines()[-1].split(";")[0]

    def look(self, jobs: Iterable[str]) -> dict[str, JobState]:
        """As `Queue.look`."""
        jobs = list(jobs)
        if not jobs:
            return {}
        said = self._ask(["squeue", "--noheader", "--states=all", "--format=%i|%T|%r|%N", f"--jobs={','.join(jobs)}"])
        rows = (line.split("|") for line in said.splitlines() if line.count("|") == 3)
        found = {job: self._state(job, state, reason, node) for job, state, reason, node in rows}
        missing = [job for job in jobs if job not in found]
        return {**dict.fromkeys(missing, GONE), **self._accounted(missing), **found}

    def cancel(self, jobs: Iterable[str]) -> None:
        """As `Queue.cancel`."""
        if jobs := list(jobs):
            self._ask(["scancel", "--quiet", *jobs])

    def find(self, name: str) -> list[str]:
        """As `Queue.find`."""
        user = user_name()
        return self._ask(
            ["squeue", "--noheader", f"--user={user}", f"--name={name}", f"--states={_ALIVE}", "--format=%i"]
        ).split()

    def _state(self, job: str, state: str, reason: str, node: str) -> JobState:
        for kind, states in _STATES.items():
            if state in states:
                return JobState(kind, "" if kind == RUNNING else reason, node)
        return JobState(ENDED, self._ending(job) if state == "FAILED" else state, node)

    def _ending(self, job: str) -> str:
        """How a failed job failed, while SLURM remembers it."""
        with contextlib.suppress(RunError):
            if found := re.search(r"\bExitCode=(\d+):(\d+)", self._ask(["scontrol", "show", "job", job])):
                return failure(int(found[1]), int(found[2]))
        return "FAILED"

    def _accounted(self, jobs: list[str]) -> dict[str, JobState]:
        """What the accounting says of jobs that squeue has forgotten; nothing where there is none."""
        if not jobs or shutil.which("sacct") is None:
            return {}
        columns = "--format=JobIDRaw,State,ExitCode,NodeList"
        command = ["sacct", "--noheader", "--parsable2", "--allocations", columns, f"--jobs={','.join(jobs)}"]
        try:
            said = self._ask(command)
        except RunError:
            return {}
        rows = (line.split("|") for line in said.splitlines() if line.count("|") == 3)
        return {
            job: JobState(ENDED, failure(*map(int, code.split(":"))) if state == "FAILED" else state.split()[0], node)
            for job, state, code, node in rows
            if job in jobs and state and state.split()[0] not in set().union(*_STATES.values())
        }


def _without_overrides(script: str) -> Mapping[str, str]:
    told = {line.split()[1].partition("=")[0] for line in script.splitlines() if line.startswith("#SBATCH ")}
    return {name: text for name, text in os.environ.items() if _OVERRIDES.get(name) not in told}
