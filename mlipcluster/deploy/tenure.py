"""How long a job's worker stays: it says so to the scheduler, takes no more work near its end, and leaves in order.

A preload of Dask's worker (`dask_setup`), in the worker's own event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import time
from collections.abc import Callable

from distributed import Worker
from distributed.core import Status

from mlipcluster.deploy import ending
from mlipcluster.deploy.job_spec import LEAVE, MARGIN

TOPIC = "mlipcluster"
"""Of the events that say that a worker is about to leave."""
FOR_EVER = 1e9
"""Seconds, for a worker whose end nobody knows: Dask adds and subtracts, so that it has to be finite."""
LOOK_SECONDS = 0.5
POLL_SECONDS = 0.05
LAST_SECONDS = 2.0
"""Before the end, for what is left to be done in order."""
FETCH_SECONDS = 5.0
"""How long a worker that leaves waits for its results to be fetched."""


async def dask_setup(worker: Worker) -> None:
    """Called by Dask before the worker joins."""
    # A batch system sends SIGTERM to all that a job runs. The job's first process acts on it; what is started from here
    # on inherits that it does not.
    with contextlib.suppress(ValueError):  # not in the main thread, where somebody runs a worker in his own process
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    seconds = lasting()
    worker.state.total_resources["seconds"] = worker.state.available_resources["seconds"] = seconds
    # Held by the worker, so that it is not collected meanwhile.
    worker._mlipcluster_tenure = asyncio.create_task(_watch(worker, seconds))  # type: ignore[attr-defined] # noqa: SLF001


def lasting() -> float:
    """Seconds for which this worker takes work."""
    return max(0.0, min(FOR_EVER, ending.remaining() - float(os.environ.get(MARGIN, "0"))))


async def _watch(worker: Worker, told: float) -> None:
    """Keep the scheduler told, until it is time to leave."""
    while not _is_told_to_leave() and (seconds := lasting()) > 0:
        if told - seconds > max(LOOK_SECONDS, 0.005 * seconds) and worker.status == Status.running:
            with contextlib.suppress(OSError):  # the network is cut; the next time
                await worker.set_resources(seconds=seconds)
                told = seconds
        await asyncio.sleep(LOOK_SECONDS)
    if worker.status in (Status.running, Status.paused):
        await leave_in_order(worker, "its job ends")


async def leave_in_order(worker: Worker, why: str) -> None:
    """Take no more work, wait for what runs and until its results are fetched, then leave.

    What waits on this worker goes to others; the scheduler does not take it for lost.
    """
    worker.log_event(TOPIC, {"event": "leaves", "worker": worker.address, "name": str(worker.name), "why": why})
    worker.status = Status.paused
    await _until(lambda: not _is_busy(worker), math.inf)
    await _until(lambda: not worker.data, FETCH_SECONDS)
    told = {"stimulus_id": f"{TOPIC}-leaves-{time.time()}"}
    with contextlib.suppress(Exception):  # the scheduler may be gone: so is this worker, then
        # Dask's own `Worker.close_gracefully` ends as one that was lost where nobody can take its results.
        await worker.scheduler.retire_workers(workers=[worker.address], close_workers=False, remove=True, **told)
        await worker.scheduler.unregister(address=worker.address, expected=True, close=False, **told)
    await worker.close(reason=why)


async def _until(done: Callable[[], bool], seconds: float) -> None:
    """Wait for that, but not longer than so many seconds, nor to the job's very end."""
    patience = time.monotonic() + seconds
    while not done() and time.monotonic() < patience and ending.remaining() > LAST_SECONDS:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(POLL_SECONDS)


def _is_told_to_leave() -> bool:
    return os.path.exists(os.environ.get(LEAVE, "/nonexistent"))


def _is_busy(worker: Worker) -> bool:
    return worker.state.executing_count > 0


async def retire(dask_worker: Worker) -> None:
    """Have a worker leave, for `Client.run`, which does not wait for that; it stays if it has been given work."""
    if dask_worker.status == Status.running and not _is_busy(dask_worker):
        await leave_in_order(dask_worker, "there is no more work for it")
