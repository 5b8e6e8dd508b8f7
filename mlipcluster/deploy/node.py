"""What a job runs on its node: ``python -m mlipcluster.deploy.node SPEC TAG``.

It learns when the job ends, looks whether its Python is fit to work with the driver's, and starts the job's workers,
each beneath a nanny of Dask's. It ends when the last of them does: because there is no more work, because the job's end
is near or was announced by SIGTERM, or because the driver is gone.

What is imported before the check has to run in any Python that a user may name.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlipcluster.deploy import ending
from mlipcluster.deploy.devices import handed_out
from mlipcluster.deploy.handshake import Facts, check, facts_here, told
from mlipcluster.deploy.job_end import seconds_left
from mlipcluster.deploy.job_spec import LEAVE, MARGIN, JobSpec, Refusal
from mlipcluster.deploy.node_folder import node_folder
from mlipcluster.errors import MismatchError, MLIPClusterError, RunError

if TYPE_CHECKING:
    from distributed import Nanny

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
LOOK_SECONDS = 1.0
LAST_SECONDS = 1.0
"""Before the end: workers that are still there then are killed, so that the job's folder can be removed."""


def main() -> None:
    """Run a job's workers to their end."""
    path, tag = Path(sys.argv[1]), sys.argv[2]
    # Until there are workers: what was made is removed on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end before a worker was started"))
    try:
        spec = JobSpec.read(path)
        _refuse_strangers(spec, tag)
        with node_folder(spec.scratch) as folder:
            _run(spec, tag, folder)
    except MLIPClusterError as error:
        differences = getattr(error, "differences", ())
        if isinstance(error, MismatchError):
            Refusal(str(error), differences).write(path, tag)
        sys.exit(f"{type(error).__name__}: {error}")


def _refuse_strangers(spec: JobSpec, tag: str) -> None:
    """Look whether this Python can work with the driver's."""
    who = f"the worker of job {tag} on {os.uname().nodename}"
    differences = check(
        Facts.from_json(spec.driver), facts_here(environment=False), who, same_versions=spec.same_versions
    )
    if differences:
        print(f"differs from the driver: {told(differences)}", flush=True)  # noqa: T201 - into the job's log


def _check_credentials(spec: JobSpec) -> None:
    """Look whether this node sees what workers show to the scheduler, and its clock agrees with it."""
    from mlipcluster.deploy import tls  # only now: with it comes Dask, which reads its settings from the environment

    tls.check_here(spec.variables)


def _run(spec: JobSpec, tag: str, folder: Path) -> None:
    left = seconds_left(spec.walltime)
    if left <= spec.margin:
        raise RunError(
            f"the walltime of {spec.walltime:.0f} s is shorter than a start-up: {left:.0f} s are left of it, and "
            f"workers take no more work in the last {spec.margin:.0f}; give a longer walltime."
        )
    os.environ.update(_variables(spec, folder))
    _check_credentials(spec)
    ending.announce(folder / "ending", left)
    try:
        asyncio.run(_Workers(spec, tag, folder).work())
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which asyncio has set back to what ends this process at once
        _end_children()


def _variables(spec: JobSpec, folder: Path) -> dict[str, str]:
    """What all workers of the job have in common, and their nannies see too."""
    temporary = folder / "tmp"
    temporary.mkdir()
    return {
        **spec.variables,
        **dict.fromkeys(THREADS, str(max(1, spec.cores // spec.processes))),
        "TMPDIR": str(temporary),
        "DASK_TEMPORARY_DIRECTORY": str(folder / "dask"),
        ending.VARIABLE: str(folder / "ending"),
        LEAVE: str(folder / "leave"),
        MARGIN: str(spec.margin),
    }


def _end_children() -> None:
    """End workers that could not be asked to: one that has not joined yet hears nobody."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()


class _Workers:
    """The workers of one job, from their start to the end of the last."""

    def __init__(self, spec: JobSpec, tag: str, folder: Path) -> None:
        self._spec = spec
        self._tag = tag
        self._folder = folder
        self._nannies: list[Nanny] = []
        self._joined = 0
        self._told = False

    async def work(self) -> None:
        """Start them and wait until none is left.

        Raises
        ------
        RunError
            None of them could be started.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_end)
        devices = handed_out(self._spec.gpus, self._spec.processes, os.environ)
        ends = asyncio.create_task(self._end_in_time())
        works = [asyncio.create_task(self._work(worker, *given)) for worker, given in enumerate(devices)]
        everything = asyncio.create_task(_all(works))
        await asyncio.wait({everything, ends}, return_when=asyncio.FIRST_COMPLETED)
        failures = [error for work in works if work.done() and (error := work.exception())]
        for task in (everything, ends, *works):
            task.cancel()
        if not self._joined:
            why = "; ".join(dict.fromkeys(_words(failure) for failure in failures)) or "they ended while they started"
            raise RunError(
                f"no worker of job {self._tag} on {os.uname().nodename} could join the scheduler at "
                f"{self._spec.scheduler}: {why}. See that nodes can reach that address: interface= or host= choose it."
            )

    async def _work(self, worker: int, variables: Mapping[str, str], gpus: int) -> None:
        """One worker, from its start to its end."""
        from distributed import Nanny

        nanny = Nanny(self._spec.scheduler, **self._options(worker, variables, gpus))
        self._nannies.append(nanny)
        await nanny
        self._joined += 1
        finished = asyncio.ensure_future(nanny.finished())
        lonely = 0.0
        while not finished.done():
            await asyncio.wait([finished], timeout=LOOK_SECONDS)
            lonely = lonely + LOOK_SECONDS if nanny.process is None or nanny.worker_address is None else 0.0
            if lonely > self._spec.patience:  # the worker ended and could not be started again
                await nanny.close()

    def _options(self, worker: int, variables: Mapping[str, str], gpus: int) -> dict[str, Any]:
        return {
            "nthreads": 1,
            "name": f"{self._tag}-{worker}",
            "memory_limit": 0,
            "dashboard": False,
            "dashboard_address": "127.0.0.1:0",
            "death_timeout": self._spec.patience,
            "local_directory": str(self._folder / "dask"),
            "env": dict(variables),
            "resources": {"GPU": gpus} if gpus else {},
            "preload": ["mlipcluster.deploy.tenure"],
        }

    def _told_to_end(self) -> None:
        """The batch system is about to end the job: workers take no more work, and what runs has its grace."""
        print(f"told to end within {self._spec.grace:.0f} s", flush=True)  # noqa: T201 - into the job's log
        if not self._told:
            self._told = True
            ending.announce(self._folder / "ending", min(self._spec.grace, ending.remaining()))
            (self._folder / "leave").touch()

    async def _end_in_time(self) -> None:
        """Whatever happens, leave before the batch system has to kill: only then is nothing left on the node."""
        left = math.inf
        while left > 0 and not (self._told and not self._joined):
            left = ending.remaining() - LAST_SECONDS
            await asyncio.sleep(min(LOOK_SECONDS, max(0.0, left)))
        await asyncio.gather(*(nanny.close(timeout=LAST_SECONDS) for nanny in self._nannies), return_exceptions=True)


async def _all(tasks: Iterable[asyncio.Task[None]]) -> None:
    await asyncio.wait(list(tasks))


def _words(failure: BaseException) -> str:
    """What an exception says, and what it stands for: Dask's own says only that a nanny failed to start."""
    cause = failure.__cause__ or failure
    return f"{type(cause).__name__}: {cause}"


if __name__ == "__main__":
    main()
