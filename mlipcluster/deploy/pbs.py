"""PBS: OpenPBS and PBS Professional.

The PBS Professional reference guide, chapters of qsub, qstat, qdel and qselect, and of job states and exit codes:
https://2024.help.altair.com/2024.1.0/PBS%20Professional/PBSReferenceGuide2024.1.pdf
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mlipcluster.deploy import jobqueue, walltime
from mlipcluster.deploy.batch import Batch
from mlipcluster.deploy.queues import ENDED, GONE, PENDING, RUNNING, JobState, Queue, failure, user_name
from mlipcluster.errors import RunError


@dataclass(frozen=True, kw_only=True)
class PBS(Batch):
    """Workers in jobs of OpenPBS or PBS Professional. See `Batch`."""

    kind: ClassVar[str] = "pbs"
    jobqueue_class: ClassVar[str] = "pbs:PBSJob"
    job_variable: ClassVar[str] = "$PBS_JOBID"

    @property
    def system(self) -> Queue:
        """PBS's commands."""
        return PBSQueue()

    def job_options(self, name: str, logs: str) -> dict[str, Any]:
        """As `Batch.job_options`, with GPUs among the resources, which PBS wants in one line."""
        options = super().job_options(name, logs)
        if jobqueue.user_setting(self.kind, "resource-spec") is None:
            options["resource_spec"] = self._resources()
        return options

    def _resources(self) -> str:
        parts = ["select=1", f"ncpus={self.cores}"]
        if self.memory is not None:
            parts.append(f"mem={mebibytes(self.memory)}mb")
        if self.gpus:
            parts.append(f"ngpus={self.gpus}")
        return ":".join(parts)

    def _read_walltime(self, value: Any) -> float:
        return walltime.seconds_of(value, two=60, alone=1)

    def _own_directives(self, name: str, logs: str) -> list[str]:
        return ["-S /bin/bash", "-j oe", "-o /dev/null", "-r n"]

    def first_commands(self, name: str, logs: str) -> list[str]:
        """What is printed goes to its file at once: PBS itself brings it only when the job has ended."""
        return [f'exec >"{logs}/{name}-{self.job_variable}.log" 2>&1', 'cd "$PBS_O_WORKDIR"']


def mebibytes(memory: str | int) -> int:
    """A memory in MiB, rounded up."""
    from dask.utils import parse_bytes

    return -(-parse_bytes(memory) // 2**20)


_STATES = {"Q": PENDING, "H": PENDING, "W": PENDING, "T": PENDING, "M": PENDING, "F": ENDED, "X": ENDED}
"""Letters of ``job_state``; all others (running, exiting, suspended) are of jobs that have a node."""
_ENDINGS = {-24: "FAILED (too many CPUs)", -25: "FAILED (too many CPUs)", -26: "OUT_OF_MEMORY", -27: "OUT_OF_MEMORY"}
_ENDINGS |= {-29: "TIMEOUT"}
NO_HISTORY = "job history"
"""Words of ``qstat -x`` where the server keeps none, which is the default of OpenPBS."""
SIGNALLED = 256
"""What PBS adds to the number of a signal that ended a job."""


class PBSQueue(Queue):
    """Through qsub, qstat, qselect and qdel."""

    system = "PBS"
    busy = ("connection refused", "cannot connect to server", "too many connections", "no server to connect")
    uncertain = ("connection timed out", "end of file", "timed out")
    unknown = ("unknown job id", "job has finished", "request invalid for state")

    def submit(self, script: str, folder: Path) -> str:
        """As `Queue.submit`."""
        return self._submit(["qsub"], script, folder).strip().splitlines()[-1]

    def look(self, jobs: Iterable[str]) -> dict[str, JobState]:
        """As `Queue.look`."""
        jobs = list(jobs)
        said = self._status(jobs) if jobs else ""
        return {**dict.fromkeys(jobs, GONE), **{job: _state(facts) for job, facts in _full_status(said).items()}}

    def _status(self, jobs: list[str]) -> str:
        """With how jobs ended, where the server remembers that (``job_history_enable``)."""
        try:
            return self._ask(["qstat", "-x", "-f", *jobs])
        except RunError as error:
            if NO_HISTORY not in str(error):
                raise
            return self._ask(["qstat", "-f", *jobs])

    def cancel(self, jobs: Iterable[str]) -> None:
        """As `Queue.cancel`."""
        if jobs := list(jobs):
            self._ask(["qdel", *jobs])

    def find(self, name: str) -> list[str]:
        """As `Queue.find`."""
        return self._ask(["qselect", "-u", user_name(), "-N", name]).split()


def _full_status(said: str) -> dict[str, dict[str, str]]:
    """What ``qstat -f`` prints: ``Job Id: …``, then ``    name = value``, long values going on after a tab."""
    found: dict[str, dict[str, str]] = {}
    facts: dict[str, str] = {}
    for line in re.sub(r"\n\t", "", said).splitlines():
        if line.startswith("Job Id:"):
            facts = found.setdefault(line.partition(":")[2].strip(), {})
        elif " = " in line:
            name, _, value = line.strip().partition(" = ")
            facts[name] = value
    return found


def _state(facts: dict[str, str]) -> JobState:
    state = _STATES.get(facts.get("job_state", ""), RUNNING)
    node = facts.get("exec_host", "").partition("/")[0]
    if state != ENDED:
        return JobState(state, facts.get("comment", "") if state == PENDING else "", node)
    if "Exit_status" not in facts:
        return JobState(ENDED, "CANCELLED", node)
    status = int(facts["Exit_status"])
    if status in _ENDINGS or status < 0:
        return JobState(ENDED, _ENDINGS.get(status, f"FAILED (PBS says {status})"), node)
    return JobState(ENDED, failure(status, status - SIGNALLED if status > SIGNALLED else 0), node)
