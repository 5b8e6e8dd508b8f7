"""IBM Spectrum LSF.

https://www.ibm.com/docs/en/spectrum-lsf/10.1.0?topic=reference-command (bsub, bjobs, bkill),
…?topic=jobs-job-states, …?topic=o-bjobs (fields of ``bjobs -o``)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mlipcluster.deploy import walltime
from mlipcluster.deploy.batch import Batch
from mlipcluster.deploy.queues import ENDED, GONE, PENDING, RUNNING, JobState, Queue, failure
from mlipcluster.errors import RunError


@dataclass(frozen=True, kw_only=True)
class LSF(Batch):
    """Workers in jobs of LSF; `account` is the project. See `Batch`."""

    kind: ClassVar[str] = "lsf"
    jobqueue_class: ClassVar[str] = "lsf:LSFJob"
    account_setting: ClassVar[str] = "project"
    memory_directive: ClassVar[str] = "-M "

    @property
    def system(self) -> Queue:
        """LSF's commands."""
        return LSFQueue()

    def _own_directives(self, name: str, logs: str) -> list[str]:
        own = [f'-o "{logs}/{name}-%J.log"', "-rn"]
        if self.gpus:
            own.append(f'-gpu "num={self.gpus}"')
        return own

    def _read_walltime(self, value: object) -> float:
        return walltime.seconds_of(value, two=3600, alone=60)

    def _written_walltime(self, seconds: float) -> str:
        return walltime.hours_and_minutes(seconds)


_STATES = {"PEND": PENDING, "PSUSP": PENDING, "WAIT": PENDING, "PROV": PENDING, "FWD_PEND": PENDING}
_STATES |= {"DONE": ENDED, "EXIT": ENDED, "ZOMBI": ENDED}
"""All others (running, suspended on its node, host out of reach) are of jobs that have a node."""
_ENDINGS = {
    "TERM_RUNLIMIT": "TIMEOUT",
    "TERM_DEADLINE": "TIMEOUT",
    "TERM_WINDOW": "TIMEOUT",
    "TERM_PREEMPT": "PREEMPTED",
    "TERM_MEMLIMIT": "OUT_OF_MEMORY",
    "TERM_OWNER": "CANCELLED",
    "TERM_FORCE_OWNER": "CANCELLED",
    "TERM_ADMIN": "CANCELLED",
    "TERM_FORCE_ADMIN": "CANCELLED",
    "TERM_REMOVE_HUNG_JOB": "NODE_FAIL",
    "TERM_RC_RECLAIM": "PREEMPTED",
}
_FIELDS = ("jobid", "stat", "first_host", "exit_code", "exit_reason", "pend_reason")


class LSFQueue(Queue):
    """Through bsub, bjobs and bkill; `bjobs -o` came with LSF 9.1, its reasons with 10.1."""

    system = "LSF"
    busy = ("lsf is down", "please wait", "mbatchd is not responding", "batch daemon not responding", "cannot connect")
    uncertain = ("timed out", "timeout", "communication time")
    unknown = ("is not found", "no matching job found", "no unfinished job found", "already finished", "no job found")
    options = ("BSUB_",)

    def submit(self, script: str, folder: Path) -> str:
        """As `Queue.submit`."""
        said = self._submit(["bsub"], script, folder)
        if found := re.search(r"Job <(\d+)>", said):
            return found[1]
        raise RunError(f"LSF's `bsub` names no job: {said.strip()[:500]!r}. See what it says by hand.")

    def look(self, jobs: Iterable[str]) -> dict[str, JobState]:
        """As `Queue.look`."""
        jobs = list(jobs)
        layout = f"{' '.join(_FIELDS)} delimiter='|'"
        said = self._ask(["bjobs", "-a", "-noheader", "-o", layout, *jobs]) if jobs else ""
        rows = (line.split("|", len(_FIELDS) - 1) for line in said.splitlines() if line.count("|") >= len(_FIELDS) - 1)
        known = (dict(zip(_FIELDS, (_told(part) for part in row), strict=True)) for row in rows)
        return {**dict.fromkeys(jobs, GONE), **{one["jobid"]: _state(one) for one in known}}

    def cancel(self, jobs: Iterable[str]) -> None:
        """As `Queue.cancel`."""
        if jobs := list(jobs):
            self._ask(["bkill", *jobs])

    def find(self, name: str) -> list[str]:
        """As `Queue.find`."""
        return self._ask(["bjobs", "-noheader", "-J", name, "-o", "jobid"]).split()


def _told(text: str) -> str:
    """A field's value; LSF prints a dash where there is none."""
    return "" if text.strip() == "-" else text.strip()


def _state(job: dict[str, str]) -> JobState:
    state, node = _STATES.get(job["stat"], RUNNING), job["first_host"]
    if state == PENDING:
        return JobState(PENDING, job["pend_reason"])
    if state == RUNNING:
        return JobState(RUNNING, node=node)
    known = next((words for name, words in _ENDINGS.items() if job["exit_reason"].startswith(name)), None)
    code = int(job["exit_code"] or 0)
    return JobState(ENDED, known or failure(code, code - 128 if code > 128 else 0), node)
