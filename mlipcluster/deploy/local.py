"""Dask workers on this machine.

Dask's own ``LocalCluster`` starts its workers by multiprocessing, which imports the user's script once more in each
and so fails in scripts without ``if __name__ == "__main__"``. Here each worker is a plain subprocess beneath a
Dask nanny, as on every other kind of cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import dask
import psutil
from distributed import Scheduler, SpecCluster
from distributed.deploy.subprocess import SubprocessWorker
from distributed.security import Security
from distributed.utils import silence_logging_cmgr

from mlipcluster.deploy import calm, dashboard, tls
from mlipcluster.deploy.crew import ClusterCrew
from mlipcluster.deploy.deployment import Deployment, Place, check_whole
from mlipcluster.deploy.node_folder import node_folder
from mlipcluster.errors import InputError, RunError
from mlipcluster.process import python_command

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
STRAGGLING_SECONDS = 0.05
"""How long what was still to be sent may find its connection closed, and say so."""
CLOSE_AGAIN_SECONDS = 0.01
EARLY_SECONDS = 30.0
EARLY_DEATHS = 3
"""A worker that dies so often in a row, each time that soon after its start, will not do better at the next."""
TAIL = 2000
"""Characters of a log that an error quotes."""


@dataclass(frozen=True)
class Local(Deployment):
    """Workers on this machine.

    Attributes
    ----------
    max_workers : int, optional
        At most; each runs one protocol at a time. Default: one a processor core.
    min_workers : int, optional
        With it, the number of workers follows the queue of work.
    cores : int
        Threads that NumPy and the like use in each.

    Raises
    ------
    InputError
        A number cannot be meant.
    """

    kind: ClassVar[str] = "local"
    remote: ClassVar[bool] = False

    max_workers: int | None = None
    min_workers: int | None = None
    cores: int = 1

    def __post_init__(self) -> None:
        for name, least in (("max_workers", 1), ("min_workers", 0), ("cores", 1)):
            if (value := getattr(self, name)) is not None:
                check_whole(name, value, least)
        if self.min_workers is not None and self.min_workers > self.most:
            raise InputError(f"min_workers={self.min_workers} is more than max_workers={self.most}; lower it.")

    @property
    def most(self) -> int:
        """Number of workers at most."""
        return self.max_workers or os.cpu_count() or 1

    @property
    def interpreter(self) -> str:
        """This process's own."""
        return sys.executable

    def start(self, place: Place) -> LocalCrew:
        """Start the scheduler in this process and the workers beside it."""
        log = place.logs / "workers.log"
        workers = self.most
        place.logs.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            # Workers that are ended, or killed, leave their folders behind.
            folder = stack.enter_context(node_folder(dask.config.get("temporary-directory", None)))
            cluster = local_cluster(
                workers,
                minimum=self.min_workers,
                threads=self.cores,
                dashboard_address=place.dashboard_address,
                security=place.security,
                private=place.private,
                log=log,
                scratch=folder,
            )
            return LocalCrew(cluster, workers, log, stack.pop_all())


class LocalCrew(ClusterCrew):
    """Workers on this machine, whose words go to a file."""

    checked = True  # they are this process's own Python

    def __init__(self, cluster: SpecCluster, workers: int, log: Path, ends: contextlib.ExitStack) -> None:
        super().__init__(cluster)
        self._workers = workers
        self._log = log
        self._ends = ends

    def slots(self) -> int:
        """As many as there will be in a moment."""
        return self._workers

    def look_after(self) -> None:
        """See that workers can still be started: without any, Dask would wait for ever."""
        started = list(self.cluster.workers.values()) if isinstance(self.cluster, SpecCluster) else []
        if started and all(worker.gave_up for worker in started):
            raise RunError(
                f"the workers end soon after each start; their last words:\n{tail(self._log)}\nMend that, then run "
                "the same again; all that is finished is saved."
            )

    def close(self) -> None:
        """End the workers, and remove what they have left on this machine."""
        with self._ends:
            super().close()


def local_cluster(  # noqa: PLR0913 - a crew's, and its tests'
    workers: int,
    *,
    minimum: int | None = None,
    threads: int = 1,
    dashboard_address: str = "127.0.0.1:0",
    security: Security | None = None,
    private: Path | None = None,
    log: Path | None = None,
    scratch: Path | None = None,
) -> SpecCluster:
    """Start a scheduler in this process and workers beside it.

    Parameters
    ----------
    workers, minimum, threads, dashboard_address, security, private
        As `Local` and its place have them; with *security*, *private* is needed.
    log : pathlib.Path, optional
        File that takes what the workers say of themselves.
    scratch : pathlib.Path, optional
        Folder for what they write that is theirs alone. Default: Dask's.
    """
    host = "tls://127.0.0.1" if security else "127.0.0.1"
    scheduler = {"host": host, "port": 0, "dashboard": True, "dashboard_address": dashboard_address}
    variables = dict(tls.worker_variables(security, private)) if private else {}
    if scratch is not None:
        variables["DASK_TEMPORARY_DIRECTORY"] = str(scratch)
    worker = {"cls": LoggedWorker, "options": _worker_options(threads, variables, log)}
    cluster = QuietCluster(
        name="mlipcluster",
        scheduler={"cls": Scheduler, "options": {**scheduler, "security": security}},
        worker=worker,
        workers=dict.fromkeys(range(workers), worker) if minimum is None else {},
        security=security,
    )
    if minimum is not None:
        cluster.adapt(minimum=minimum, maximum=workers)
    return cluster


def _worker_options(threads: int, variables: Mapping[str, str], log: Path | None) -> dict[str, Any]:
    environment = {
        **calm.VARIABLES,
        **os.environ,
        **dict.fromkeys(THREAD_VARIABLES, str(threads)),
        "DASK_LOGGING__DISTRIBUTED": "warning",
        **variables,
    }
    nanny = {
        "nthreads": 1,
        "memory_limit": 0,
        "dashboard": False,
        "dashboard_address": "127.0.0.1:0",
        "host": "127.0.0.1",
    }
    return {
        "worker_class": "distributed.Nanny",
        "worker_kwargs": nanny,
        "environment": environment,
        "log": log,
    }


class QuietCluster(SpecCluster):
    """A cluster whose scheduler prints errors only, until the last of its connections is gone.

    Dask's own ``silence_logs`` ends a moment too early: senders that find their connection closed print tracebacks.
    Its dashboard is on the loopback, wherever the scheduler itself listens.
    """

    def __init__(self, **options: Any) -> None:
        self._quiet = contextlib.ExitStack()
        for root in ("distributed", "bokeh"):
            self._quiet.enter_context(silence_logging_cmgr(logging.ERROR, root))
        told = options["scheduler"]["options"]
        told["dashboard_address"] = dashboard.loopback(told.get("dashboard_address", "127.0.0.1:0"))
        with calm.calmly(), dashboard.closed_to_strangers():
            super().__init__(**options)

    @property
    def dashboard_link(self) -> str:
        """Where the dashboard is; Dask's own takes the scheduler's host for it."""
        port = self.scheduler_info.get("services", {}).get("dashboard")
        return dashboard.link(port) if port else ""

    async def _close(self) -> None:
        await super()._close()
        await asyncio.sleep(STRAGGLING_SECONDS)
        self._quiet.close()


class LoggedWorker(SubprocessWorker):
    """A worker in a process, and a session, of its own, whose words go to a file; started again when it dies.

    Attributes
    ----------
    gave_up : bool
        It died again and again right after its start, and is not started any more.
    """

    def __init__(self, scheduler: str, environment: Mapping[str, str], log: Path | None, **options: Any) -> None:
        super().__init__(scheduler, **options)
        self._environment = environment
        self._log = log
        self._lifeline: int | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.gave_up = False

    async def _start(self) -> None:
        await self._start_process()
        self._watcher = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """End it and what it started."""
        if self._watcher is not None:
            self._watcher.cancel()
        while True:
            try:
                await super().close()
                break
            except psutil.NoSuchProcess:  # one that it started has ended between Dask's look and its kill
                await asyncio.sleep(CLOSE_AGAIN_SECONDS)
        self._let_go()

    async def _watch(self) -> None:
        """Start it again whenever it dies; nobody else does, and its tasks would wait for ever."""
        early = 0
        while self.process is not None:
            started = time.monotonic()
            if await self.process.wait() == 0:
                return  # it was asked to end
            early = early + 1 if time.monotonic() - started < EARLY_SECONDS else 0
            if early >= EARLY_DEATHS:
                self.gave_up = True
                return
            self._let_go()
            try:
                await self._start_process()
            except OSError:  # no room for another process, or for its log
                self.gave_up = True
                return

    async def _start_process(self) -> None:
        spec = json.dumps({"cls": self.worker_class, "opts": self.worker_kwargs})
        far_end, self._lifeline = os.pipe()
        try:
            with open(self._log or os.devnull, "ab") as log:  # noqa: ASYNC230 - a local file, once a worker
                self.process = await asyncio.create_subprocess_exec(
                    *python_command("mlipcluster.deploy.worker", str(far_end), self.scheduler, "--spec", spec),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environment,
                    pass_fds=(far_end,),
                    start_new_session=True,  # Ctrl-C is for the driver, which ends the workers in order
                )
        finally:
            os.close(far_end)

    def _let_go(self) -> None:
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None


def tail(log: Path | None) -> str:
    """The end of a log, as an error quotes it; ``""`` where it cannot be read."""
    try:
        return log.read_text(errors="replace")[-TAIL:].strip() if log is not None else ""
    except OSError:
        return ""
