"""Grid Engine, in all its descents.

https://manpages.ubuntu.com/manpages/jammy/man1/sge_submit.1.html (qsub), …/qstat.1.html, …/qdel.1.html, …/qacct.1.html
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree as ET

from mlipcluster.deploy import checking
from mlipcluster.deploy.batch import Batch
from mlipcluster.deploy.pbs import mebibytes
from mlipcluster.deploy.queues import ENDED, GONE, PENDING, RUNNING, JobState, Queue, failure, user_name
from mlipcluster.errors import RunError


@dataclass(frozen=True, kw_only=True)
class SGE(Batch):
    """Workers in jobs of Grid Engine; `account` is the project. See `Batch`.

    Attributes
    ----------
    parallel_environment : str
        The site's name for "several slots of one host" (``qconf -spl`` lists them); asked for with more than one core.
    memory_resource : str
        The resource that asks for `memory`; sites may count it by the slot, and then want it divided by `cores`.
    gpu_resource : str
        The resource that asks for GPUs.
    """

    kind: ClassVar[str] = "sge"
    jobqueue_class: ClassVar[str] = "sge:SGEJob"
    account_setting: ClassVar[str] = "project"

    parallel_environment: str = "smp"
    memory_resource: str = "mem_free"
    gpu_resource: str = "gpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        checking.check_lines(self, ("parallel_environment", "memory_resource", "gpu_resource"))

    @property
    def system(self) -> Queue:
        """Grid Engine's commands."""
        return SGEQueue()

    def _own_directives(self, name: str, logs: str) -> list[str]:
        own = [f'-o "{logs}/{name}-$JOB_ID.log"', "-S /bin/bash", "-r n"]
        if (self.cores or 1) > 1:
            own.append(f"-pe {self.parallel_environment} {self.cores}")
        if self.memory is not None:
            own.append(f"-l {self.memory_resource}={mebibytes(self.memory)}M")
        if self.gpus:
            own.append(f"-l {self.gpu_resource}={self.gpus}")
        return own


class SGEQueue(Queue):
    """Through qsub, qstat and qdel; how a job ended, from qacct."""

    system = "Grid Engine"
    busy = ("unable to contact qmaster", "connection refused", "can't connect to service", "commlib error")
    uncertain = ("got send error", "timed out", "timeout")
    unknown = ("does not exist", "already in deletion", "has registered the job", "not found")

    def submit(self, script: str, folder: Path) -> str:
        """As `Queue.submit`."""
        return self._submit(["qsub", "-terse"], script, folder).strip().splitlines()[-1]

    def look(self, jobs: Iterable[str]) -> dict[str, JobState]:
        """As `Queue.look`."""
        jobs = list(jobs)
        known = {one["JB_job_number"]: one for one in self._jobs()} if jobs else {}
        return {job: _state(known[job]) if job in known else self._ended(job) for job in jobs}

    def cancel(self, jobs: Iterable[str]) -> None:
        """As `Queue.cancel`."""
        if jobs := list(jobs):
            self._ask(["qdel", *jobs])

    def find(self, name: str) -> list[str]:
        """As `Queue.find`."""
        return [one["JB_job_number"] for one in self._jobs() if one.get("JB_name") == name]

    def _jobs(self) -> list[dict[str, str]]:
        """One's own jobs that wait or run."""
        said = self._ask(["qstat", "-u", user_name(), "-xml"])
        try:
            tree = ET.fromstring(said)  # noqa: S314 - of the system's own command
        except ET.ParseError as error:
            raise RunError(
                f"Grid Engine's `qstat -xml` prints what is no XML ({error}); see what it says by hand."
            ) from None
        return [{part.tag: part.text or "" for part in job} for job in tree.iter("job_list")]

    def _ended(self, job: str) -> JobState:
        """What the accounting says; it may come a moment late, or not at all."""
        with contextlib.suppress(RunError):
            lines = (line.split(None, 1) for line in self._ask(["qacct", "-j", job]).splitlines())
            facts = {line[0]: line[1].strip() for line in lines if len(line) == 2}
            if "exit_status" in facts:
                return JobState(ENDED, _ending(facts), facts.get("hostname", ""))
        return GONE


def _state(job: dict[str, str]) -> JobState:
    """From letters: q waits, h held, E error, r runs, t is transferred to its node, s and S suspended, d deleted."""
    state, node = job.get("state", ""), job.get("queue_name", "").partition("@")[2]
    if "E" in state:
        return JobState(PENDING, f"error ({state}); `qstat -j {job['JB_job_number']}` says why")
    if "q" in state:
        return JobState(PENDING, f"held ({state})" if "h" in state else state)
    return JobState(RUNNING, node=node)


_LIMIT_ENFORCED = "37"


def _ending(facts: dict[str, str]) -> str:
    failed, status = facts.get("failed", "0").split()[0], int(facts["exit_status"].split()[0])
    if failed == _LIMIT_ENFORCED:
        return "TIMEOUT"
    if facts.get("deleted_by", "NONE").upper() not in {"NONE", "UNKNOWN"}:
        return "CANCELLED"
    return failure(status, status - 128 if status > 128 else 0)
