"""OAR.

https://oar.readthedocs.io/en/2.5/user/commands/oarsub.html, …/oarstat.html, …/oardel.html; the states of jobs:
https://oar.readthedocs.io/en/2.5/admin/database-scheme.html#jobs
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, ClassVar

from mlipcluster.deploy import jobqueue, walltime
from mlipcluster.deploy.batch import Batch
from mlipcluster.deploy.queues import ENDED, GONE, PENDING, RUNNING, JobState, Queue, failure
from mlipcluster.errors import RunError

TERM = 15


@dataclass(frozen=True, kw_only=True)
class OAR(Batch):
    """Workers in jobs of OAR; `account` is the project. See `Batch`.

    Attributes
    ----------
    memory_property : str, optional
        The site's property of a node's memory a core, in MB (``oarnodes`` lists them): `memory` is asked for with it.
    """

    kind: ClassVar[str] = "oar"
    jobqueue_class: ClassVar[str] = "oar:OARJob"
    warns: ClassVar[bool] = True
    account_setting: ClassVar[str] = "project"

    memory_property: str | None = None

    @property
    def system(self) -> Queue:
        """OAR's commands."""
        return OARQueue()

    def job_options(self, name: str, logs: str) -> dict[str, Any]:
        """As `Batch.job_options`; cores come with their GPUs, in OAR's tree of resources."""
        options = super().job_options(name, logs)
        if self.gpus and jobqueue.user_setting(self.kind, "resource-spec") is None:
            options["resource_spec"] = f"/nodes=1/gpu={self.gpus}"
        told = self.memory_property or jobqueue.user_setting(self.kind, "memory-per-core-property-name")
        options["memory_per_core_property_name"] = told if told and self.memory is not None else "not_applicable"
        return options

    def first_commands(self, name: str, logs: str) -> list[str]:
        """Errors go where all else goes."""
        return ["exec 2>&1"]

    def _own_directives(self, name: str, logs: str) -> list[str]:
        own = [f'-O "{logs}/{name}-%jobid%.log"', f'-E "{logs}/{name}-%jobid%.err"']
        if self.grace:
            own.append(f"--checkpoint {math.ceil(self.grace)} --signal {TERM}")
        return own

    def _read_walltime(self, value: Any) -> float:
        return walltime.seconds_of(value, two=3600, alone=3600)


_STATES = dict.fromkeys(("Waiting", "Hold", "toLaunch", "toAckReservation", "Launching"), PENDING)
_STATES |= dict.fromkeys(("Running", "Finishing", "Suspended", "Resuming"), RUNNING)
"""All others (terminated, error) are of jobs that have ended."""
_ENDINGS = {
    "WALLTIME": "TIMEOUT",
    "BESTEFFORT_KILL": "PREEMPTED",
    "PING_CHECKER_NODE_SUSPECTED": "NODE_FAIL",
    "FRAG_JOB_REQUEST": "CANCELLED",
}
"""What happened to a job, in the order in which it counts: the end of a walltime is also a request to frag."""


class OARQueue(Queue):
    """Through oarsub, oarstat and oardel."""

    system = "OAR"
    busy = ("cannot connect to", "connection refused", "could not connect", "too many connections")
    uncertain = ("timed out", "timeout")
    unknown = ("no such job", "does not exist", "was not found", "job not found", "already killed", "is not running")

    def submit(self, script: str, folder: Path) -> str:
        """As `Queue.submit`; OAR would want the script's file on the node, so it gets the text as its command."""
        lines = script.split("\n")
        head = list(takewhile(lambda line: not line or line.startswith("#"), lines))
        options = [line.removeprefix("#OAR ") for line in head if line.startswith("#OAR ")]
        inline = "\n".join(lines[len(head) :])
        said = self._submit(["oarsub", *shlex.split(" ".join(options)), inline], None, folder)
        if found := re.search(r"OAR_JOB_ID=(\d+)", said):
            return found[1]
        raise RunError(f"OAR's `oarsub` names no job: {said.strip()[:500]!r}. See what it says by hand.")

    def look(self, jobs: Iterable[str]) -> dict[str, JobState]:
        """As `Queue.look`."""
        jobs = list(jobs)
        known = self._jobs("-u") if jobs else {}
        for job in jobs:
            if job not in known:  # only when asked for by its number a job is told of that has ended
                known |= self._jobs("-j", job)
        return {job: _state(known[job]) if job in known else GONE for job in jobs}

    def cancel(self, jobs: Iterable[str]) -> None:
        """As `Queue.cancel`."""
        if jobs := list(jobs):
            self._ask(["oardel", *jobs])

    def find(self, name: str) -> list[str]:
        """As `Queue.find`."""
        known = self._jobs("-u")
        return [job for job, facts in known.items() if facts.get("name") == name and facts["state"] in _STATES]

    def _jobs(self, *which: str) -> dict[str, dict[str, Any]]:
        said = self._ask(["oarstat", "-f", "-J", *which])
        try:
            return dict(json.loads(said)) if said.strip() else {}
        except ValueError as error:
            raise RunError(f"OAR's `oarstat -J` prints what is no JSON ({error}); see what it says by hand.") from None


def _state(job: dict[str, Any]) -> JobState:
    said = job.get("state", "")
    node = next(iter(job.get("assigned_network_address") or ()), "")
    state = _STATES.get(said, ENDED)
    if state == PENDING:
        return JobState(PENDING, job.get("message") or said)
    if state == RUNNING:
        return JobState(RUNNING, node=node)
    events = {event.get("type") for event in job.get("events") or ()}
    known = (words for event, words in _ENDINGS.items() if event in events)
    return JobState(ENDED, next(known, None) or _ending(job.get("exit_code"), said), node)


def _ending(code: Any, state: str) -> str:
    """From the status as ``wait`` gives it, a number alone or with its parts behind it."""
    if found := re.match(r"\d+", str(code)):
        return failure(int(found[0]) >> 8, int(found[0]) & 127)
    return "FAILED" if state == "Error" else ""
