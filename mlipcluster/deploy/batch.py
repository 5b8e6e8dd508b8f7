"""What all batch systems share: the fields of a deployment, how they are checked, and its job script."""

from __future__ import annotations

import os
import re
import shlex
import sys
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mlipcluster.deploy import checking, jobqueue, walltime
from mlipcluster.deploy.deployment import Deployment, Place, Range
from mlipcluster.deploy.queues import Queue
from mlipcluster.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self

    from mlipcluster.deploy.crew import Crew

START_SECONDS = 10.0
"""What a worker's start takes at least: a job that has no more than that, and its grace, can never work."""
PLACEHOLDER = "1 GB"
"""Stands for a memory that nobody names; its directive is left out."""


@dataclass(frozen=True, kw_only=True)
class Batch(Deployment):
    """Workers in the jobs of a batch system.

    What is None is taken from the section of the system in the user's ``~/.config/dask/jobqueue.yaml``, if it is there,
    else as said below.

    Attributes
    ----------
    queue : str, optional
        Queue or partition. Default: the site's.
    cores : int, optional
        Of a job; its processes share them. Default: one a process.
    memory : str or int, optional
        Of a job, ``"32 GB"`` or bytes. Default: the site's.
    gpus : int
        Of a job.
    processes : int, optional
        Workers of a job, each of which runs one protocol at a time. Default: one a GPU, times `processes_per_gpu`; one
        where there is no GPU.
    processes_per_gpu : int
        How many share a GPU.
    walltime : str or float, optional
        How long a job may last: ``"12:00:00"``, ``"2-00:00:00"``, ``"90 min"`` or seconds. Default: half an hour.
    account : str, optional
        Account or project that pays.
    workers : Range or int, optional
        At least and at most so many workers in all, between which their number follows the work; one number: always
        so many.
    min_workers, max_workers : int, optional
        The same in two parts. Default: 0 and 1.
    max_queued : int, optional
        At most so many jobs wait in the queue at a time.
    directives : sequence of str
        More directives for the head of the job script, without ``#SBATCH`` and the like.
    prologue : sequence of str
        Shell commands of the job before its workers start: ``"module load cuda"``.
    python : str, optional
        What runs the workers: an interpreter, the folder of an environment, or the name of an environment in the root.
        Default: this process's interpreter.
    interface, host : str, optional
        Network interface, or name or address, of this machine on which workers reach it.
    scratch : str, optional
        Folder of the node beneath which each job has one of its own, variables such as ``$SCRATCH`` being the node's.
        Default: its ``TMPDIR``.
    start_timeout : float, optional
        The run gives up after so many seconds without any worker.
    idle_timeout : float
        Seconds without work after which a job is given back.
    grace : float
        Seconds between the warning and the end of a job: for what is running to finish or to save itself.
    environment : mapping of str to str
        Variables of the workers.
    same_versions : bool
        Refuse workers whose packages differ from this process's, instead of recording that.

    Raises
    ------
    InputError
        A field cannot be meant; the message names it.
    """

    jobqueue_class: ClassVar[str]
    warns: ClassVar[bool] = False
    """Whether the system itself sends SIGTERM `grace` seconds before the end."""
    account_setting: ClassVar[str] = "account"
    one_line: ClassVar[bool] = False
    memory_directive: ClassVar[str] = ""
    """What to leave out where nobody names a memory."""

    queue: str | None = None
    cores: int | None = None
    memory: str | int | None = None
    gpus: int = 0
    processes: int | None = None
    processes_per_gpu: int = 1
    walltime: str | float | None = None
    account: str | None = None
    workers: Range | int | None = None
    min_workers: int | None = None
    max_workers: int | None = None
    max_queued: int | None = None
    directives: Sequence[str] = ()
    prologue: Sequence[str] = ()
    python: str | None = None
    interface: str | None = None
    host: str | None = None
    scratch: str | None = None
    start_timeout: float | None = None
    idle_timeout: float = 60.0
    grace: float = 30.0
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)
    same_versions: bool = False

    def __post_init__(self) -> None:
        for name in ("directives", "prologue"):
            given = getattr(self, name)
            listed = tuple(given) if isinstance(given, (list, tuple)) else (given,)
            object.__setattr__(self, name, listed)
        if isinstance(self.workers, (list, tuple)) and len(self.workers) == 2:
            object.__setattr__(self, "workers", Range(*self.workers))
        if isinstance(self.environment, Mapping):
            object.__setattr__(self, "environment", dict(self.environment))
        checking.check(self)
        if self.walltime is not None and walltime.seconds_of(self.walltime) <= self.grace + START_SECONDS:
            raise InputError(
                f"walltime={self.walltime!r} leaves no time to work: workers need about {START_SECONDS:.0f} s to start "
                f"and stop grace={self.grace:g} s before the end. Give a longer walltime, or a shorter grace."
            )

    @property
    @abstractmethod
    def system(self) -> Queue:
        """The batch system's commands."""

    @property
    def range(self) -> Range:
        """How many workers, at least and at most."""
        if isinstance(self.workers, Range):
            return self.workers
        if self.workers is not None:
            return Range(self.workers, self.workers)
        return Range(self.min_workers or 0, self.max_workers or max(1, self.min_workers or 0))

    @property
    def interpreter(self) -> str:
        """The Python that runs the workers, as they see it.

        Raises
        ------
        InputError
            It is the name of an environment, and no root says where that is.
        """
        python = self.settled().python or sys.executable
        if os.sep not in python:
            raise InputError(
                f"python={python!r} names an environment of a root, and no root is named. Give root= or cluster=, or "
                "the path of the interpreter or of the environment's folder."
            )
        is_program = re.fullmatch(r"(python|pypy)[\d.]*", os.path.basename(python)) and not os.path.isdir(python)
        return python if is_program else os.path.join(python, "bin", "python")

    def offers(self) -> Mapping[str, float]:
        """A worker's GPUs, where the job has some."""
        return {"GPU": float(max(1, self.gpus // (self.settled().processes or 1)))} if self.gpus else {}

    def settled(self) -> Self:
        """The same, with what the user's Dask configuration or the defaults say in place of None.

        `walltime` is in seconds then, and `cores` and `processes` are numbers.
        """
        told = {
            name: jobqueue.user_setting(self.kind, key)
            for name, key in {**jobqueue.FIELDS, "account": self.account_setting}.items()
            if getattr(self, name) in (None, ()) and (name != "interface" or self.host is None)
        }
        if told.get("walltime") is not None:
            told["walltime"] = self._read_walltime(told["walltime"])
        whole = replace(self, **{name: value for name, value in told.items() if value is not None})
        processes = whole.processes or max(1, whole.gpus * whole.processes_per_gpu)
        lasts = walltime.seconds_of(walltime.DEFAULT if whole.walltime is None else whole.walltime)
        return replace(whole, walltime=lasts, processes=processes, cores=whole.cores or processes)

    def script(self, command: Sequence[str], *, name: str, logs: Path) -> str:
        """The script of a job.

        Parameters
        ----------
        command : sequence of str
            What the job runs; it takes the place of the job's shell, so that it gets the system's signals.
        name : str
            Of the job.
        logs : pathlib.Path
            Folder for what the job prints: `log` is the file.
        """
        whole = self.settled()
        exports = [f"export {key}={shlex.quote(value)}" for key, value in whole.environment.items()]
        return jobqueue.write_script(
            self.jobqueue_class,
            whole.job_options(name, checking.plain(logs)),
            [*whole.first_commands(name, checking.plain(logs)), *exports, *whole.prologue],
            f"exec {shlex.join(command)}",
            one_line=self.one_line,
        )

    def node_command(self, spec: str, tag: str) -> list[str]:
        """What a job runs: its spec's file and its own name are the arguments of `mlipcluster.deploy.node`."""
        return [self.interpreter, "-m", "mlipcluster.deploy.node", spec, tag]

    def log(self, logs: Path, name: str, job: str) -> Path:
        """The file that takes what a job prints."""
        return logs / f"{name}-{job}.log"

    def start(self, place: Place) -> Crew:
        """Start the scheduler in this process, and jobs as soon as there is work."""
        from mlipcluster.deploy.jobs import JobCrew

        return JobCrew(self.settled(), place)

    def job_options(self, name: str, logs: str) -> dict[str, Any]:
        """Keyword arguments of dask-jobqueue's class, once all is settled."""
        options = {
            "cores": self.cores,
            "memory": PLACEHOLDER if self.memory is None else str(self.memory),
            "processes": self.processes,
            "queue": self.queue,
            self.account_setting: self.account,
            "walltime": self._written_walltime(float(self.walltime or 0)),
            "job_name": name,
            "name": name,
            "python": "python",
            "job_extra_directives": self._directives(name, logs),
        }
        if self.memory is None and self.memory_directive:
            skipped = jobqueue.user_setting(self.kind, "job-directives-skip") or []
            options["job_directives_skip"] = [*skipped, self.memory_directive]
        return options

    def _directives(self, name: str, logs: str) -> Any:
        return [*self._own_directives(name, logs), *self._told_directives()]

    def _told_directives(self) -> Sequence[str]:
        return self.directives or jobqueue.user_setting(self.kind, "job-extra-directives") or ()

    @abstractmethod
    def _own_directives(self, name: str, logs: str) -> list[str]:
        """What dask-jobqueue does not write: the log, GPUs, that a job is not run a second time."""

    def first_commands(self, name: str, logs: str) -> list[str]:
        """Shell commands before all others."""
        del name, logs
        return []

    def _read_walltime(self, value: Any) -> float:
        """A walltime as this system reads it."""
        return walltime.seconds_of(value, alone=1)

    def _written_walltime(self, seconds: float) -> str:
        return walltime.clock(seconds)
