"""HTCondor.

https://htcondor.readthedocs.io/en/latest/man-pages/condor_submit.html, …/condor_q.html, …/condor_history.html,
…/condor_rm.html; https://htcondor.readthedocs.io/en/latest/classad-attributes/job-classad-attributes.html
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mlipcluster.deploy import checking, jobqueue
from mlipcluster.deploy.batch import Batch
from mlipcluster.deploy.queues import ENDED, GONE, PENDING, RUNNING, JobState, Queue, failure
from mlipcluster.errors import InputError, RunError

DISK = "1 GB"


@dataclass(frozen=True, kw_only=True)
class HTCondor(Batch):
    """Workers in jobs of HTCondor, whose nodes see the submitting machine's files; `directives` are ``key = value``.

    See `Batch`. HTCondor has no queues, and no walltime of its own: the job is told to be removed after it, and when it
    was evicted, instead of being run a second time.

    Attributes
    ----------
    disk : str, optional
        Of a job, ``"10 GB"``. Default: 1 GB.
    """

    kind: ClassVar[str] = "htcondor"
    jobqueue_class: ClassVar[str] = "htcondor:HTCondorJob"
    account_setting: ClassVar[str] = "accounting-group"
    memory_directive: ClassVar[str] = "RequestMemory"
    one_line: ClassVar[bool] = True

    disk: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checking.check_lines(self, ("disk",))
        if self.queue is not None:
            raise InputError(f"queue={self.queue!r}: HTCondor has no queues; leave it out, or say it in directives.")
        for line in self.directives:
            if not all(part.strip() for part in line.partition("=")):
                raise InputError(f"directives={line!r:.80} cannot be meant; HTCondor's are lines of key = value.")
        if lines := [name for name, text in self.environment.items() if "\n" in text]:
            raise InputError(f"environment {lines[0]!r} has several lines, which HTCondor cannot pass on; give one.")

    @property
    def system(self) -> Queue:
        """HTCondor's commands."""
        return HTCondorQueue()

    def job_options(self, name: str, logs: str) -> dict[str, Any]:
        """As `Batch.job_options`; HTCondor has neither queue, account nor walltime among them."""
        options = super().job_options(name, logs)
        for key in ("queue", "walltime", self.account_setting):
            del options[key]
        return {**options, "disk": self.disk or jobqueue.user_setting(self.kind, "disk") or DISK}

    def first_commands(self, name: str, logs: str) -> list[str]:
        """Errors go where all else goes."""
        return ["exec 2>&1"]

    def _directives(self, name: str, logs: str) -> dict[str, Any]:
        """The same as a table, which dask-jobqueue wants here."""
        told = self._told_directives()
        pairs = (
            told
            if isinstance(told, dict)
            else {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in told)}
        )
        own = (line.partition(" = ") for line in self._own_directives(name, logs))
        return {**{key: value for key, _, value in own}, **pairs}

    def _own_directives(self, name: str, logs: str) -> list[str]:
        lasts = math.ceil(float(self.walltime or 0))
        over = f"(JobStatus == 2) && (time() - EnteredCurrentStatus > {lasts})"
        evicted = "(JobStatus == 1) && (NumJobStarts > 0)"
        own = [
            f"Output = {logs}/{name}-$(ClusterId).$(ProcId).log",
            f"Error = {logs}/{name}-$(ClusterId).$(ProcId).err",
            "Stream_Output = True",
            "Stream_Error = True",
            "transfer_executable = False",
            f"periodic_remove = ({over}) || ({evicted})",
            'MY.PeriodicRemoveReason = ifThenElse(JobStatus == 1, "PREEMPTED", "TIMEOUT")',
        ]
        if self.grace:
            own.append(f"job_max_vacate_time = {math.ceil(self.grace)}")
        if self.gpus:
            own.append(f"request_gpus = {self.gpus}")
        if self.account is not None:
            own.append(f"accounting_group = {self.account}")
        return own


_STATES = {1: PENDING, 5: PENDING, 3: ENDED, 4: ENDED}
"""Numbers of ``JobStatus``: idle, held; removed, completed. Running, suspended, and bringing output have a node."""
_HELD, _REMOVED = 5, 3
_ATTRIBUTES = (
    "ClusterId,ProcId,JobStatus,HoldReason,RemoveReason,ExitCode,ExitBySignal,ExitSignal,RemoteHost,LastRemoteHost"
)


class HTCondorQueue(Queue):
    """Through condor_submit, condor_q, condor_history and condor_rm."""

    system = "HTCondor"
    busy = ("failed to connect", "can't find address", "can't connect", "connection refused")
    uncertain = ("timed out", "timeout", "failed to fetch ads")
    unknown = ("not found", "couldn't find/remove all jobs")

    def submit(self, script: str, folder: Path) -> str:
        """As `Queue.submit`."""
        return self._submit(["condor_submit", "-terse", "-"], script, folder).split()[-1]

    def look(self, jobs: Iterable[str]) -> dict[str, JobState]:
        """As `Queue.look`."""
        jobs = list(jobs)
        if not jobs:
            return {}
        found = self._jobs("condor_q", *jobs)
        if missing := [job for job in jobs if job not in found]:
            found |= self._jobs("condor_history", "-limit", str(len(missing)), *missing)
        return {**dict.fromkeys(jobs, GONE), **{job: _state(facts) for job, facts in found.items()}}

    def cancel(self, jobs: Iterable[str]) -> None:
        """As `Queue.cancel`."""
        if jobs := list(jobs):
            self._ask(["condor_rm", *jobs])

    def find(self, name: str) -> list[str]:
        """As `Queue.find`."""
        found = self._jobs("condor_q", "-constraint", f'JobBatchName == "{name}"')
        return [job for job, facts in found.items() if _STATES.get(facts["JobStatus"]) != ENDED]

    def _jobs(self, command: str, *rest: str) -> dict[str, dict[str, Any]]:
        said = self._ask([command, "-json", "-attributes", _ATTRIBUTES, *rest])
        try:
            found = json.loads(said or "[]")
        except ValueError as error:
            raise RunError(
                f"HTCondor's `{command} -json` prints what is no JSON ({error}); see what it says by hand."
            ) from None
        return {f"{one['ClusterId']}.{one['ProcId']}": one for one in found}


def _state(job: dict[str, Any]) -> JobState:
    status = job["JobStatus"]
    state = _STATES.get(status, RUNNING)
    host = job.get("RemoteHost") or job.get("LastRemoteHost") or ""
    node = host.rpartition("@")[2]
    if state == PENDING:
        return JobState(PENDING, f"held: {job.get('HoldReason', '')}" if status == _HELD else "")
    if state == RUNNING:
        return JobState(RUNNING, node=node)
    if status == _REMOVED:
        said = job.get("RemoveReason", "")
        return JobState(ENDED, said if said in {"TIMEOUT", "PREEMPTED"} else "CANCELLED", node)
    return JobState(ENDED, failure(job.get("ExitCode") or 0, job.get("ExitSignal") or 0), node)
