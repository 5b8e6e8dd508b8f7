"""Moab, over TORQUE.

https://docs.adaptivecomputing.com/maui/commands (msub, showq, canceljob; job states),
https://docs.adaptivecomputing.com/torque/archive/3-0-2/2.1jobsubmission.php (resources)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree as ET

from mlipcluster.deploy.pbs import PBS, SIGNALLED, mebibytes
from mlipcluster.deploy.queues import ENDED, GONE, PENDING, RUNNING, JobState, Queue, failure, user_name
from mlipcluster.errors import RunError


@dataclass(frozen=True, kw_only=True)
class Moab(PBS):
    """Workers in jobs of Moab. See `Batch`."""

    kind: ClassVar[str] = "moab"
    jobqueue_class: ClassVar[str] = "moab:MoabJob"
    job_variable: ClassVar[str] = "$MOAB_JOBID"

    @property
    def system(self) -> Queue:
        """Moab's commands."""
        return MoabQueue()

    def _resources(self) -> str:
        memory = f",mem={mebibytes(self.memory)}mb" if self.memory is not None else ""
        return f"nodes=1:ppn={self.cores}" + (f":gpus={self.gpus}" if self.gpus else "") + memory

    def _own_directives(self, name: str, logs: str) -> list[str]:
        return [*super()._own_directives(name, logs), "-E"]


_STATES = {"Running": RUNNING, "Starting": RUNNING, "Suspended": RUNNING, "Completed": ENDED, "Removed": ENDED}
_STATES |= {"Vacated": ENDED}
"""Moab's job states; all others are of jobs that wait."""
_ENDINGS = {"CNCLD": "CANCELLED", "-10": "OUT_OF_MEMORY", "-11": "TIMEOUT"}
"""Moab's own completion code, and TORQUE's."""
_REASONS = {"Removed": "CANCELLED", "Vacated": "PREEMPTED"}


class MoabQueue(Queue):
    """Through msub, showq and canceljob."""

    system = "Moab"
    busy = ("cannot connect to", "connection refused", "unable to contact", "communication error")
    uncertain = ("timed out", "timeout")
    unknown = ("cannot locate job", "invalid job", "no such job", "could not find job")

    def submit(self, script: str, folder: Path) -> str:
        """As `Queue.submit`."""
        return self._submit(["msub"], script, folder).split()[-1]

    def look(self, jobs: Iterable[str]) -> dict[str, JobState]:
        """As `Queue.look`."""
        found = dict.fromkeys(jobs, GONE)
        for option in ((), ("-c",)) if found else ():
            found.update((job["JobID"], _state(job)) for job in self._jobs(*option) if job.get("JobID") in found)
        return found

    def cancel(self, jobs: Iterable[str]) -> None:
        """As `Queue.cancel`."""
        for job in jobs:
            self._ask(["canceljob", job])

    def find(self, name: str) -> list[str]:
        """As `Queue.find`."""
        return [job["JobID"] for job in self._jobs() if job.get("JobName") == name]

    def _jobs(self, *option: str) -> Iterator[dict[str, str]]:
        """One's own jobs that wait and run, or with ``-c`` those that have ended lately."""
        said = self._ask(["showq", *option, "--xml", "-w", f"user={user_name()}"])
        try:
            tree = ET.fromstring(said)  # noqa: S314 - of the system's own command
        except ET.ParseError as error:
            raise RunError(f"Moab's `showq --xml` prints what is no XML ({error}); see what it says by hand.") from None
        for queue in tree.iter("queue"):
            for job in queue.iter("job"):
                yield {**job.attrib, "option": queue.get("option", "")}


def _state(job: dict[str, str]) -> JobState:
    said = job.get("State", "")
    state = ENDED if job["option"] == "completed" else _STATES.get(said, PENDING)
    node = job.get("MasterHost", "")
    if state == PENDING:
        reason = said if job["option"] != "blocked" else f"blocked: {job.get('BlockReason', said)}"
        return JobState(PENDING, reason)
    if state == RUNNING:
        return JobState(RUNNING, node=node)
    return JobState(ENDED, _REASONS.get(said) or _ending(job.get("CompletionCode", "")), node)


def _ending(code: str) -> str:
    found = re.match(r"CNCLD|-?\d+", code)
    if found is None or found[0] in _ENDINGS:
        return _ENDINGS[found[0]] if found else ""
    status = int(found[0])
    return failure(status, status - SIGNALLED if status > SIGNALLED else 0)
