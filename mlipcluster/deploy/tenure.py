"""How long a job's worker stays: it says so to the scheduler, takes no more work near its end, and leaves in order.

A preload of Dask's worker (`dask_setup`), in the worker's own event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

from distributed import Worker
from distributed.core import Status

from mlipcluster.deploy import ending
from mlipcluster.deploy.job_spec import LEAVE, MARGIN

TOPIC = "mlipcluster"
"""Of the events that say that a worker is about to leave."""
FOR_EVER = 1e9
"""Seconds, for a worker whose end nobody knows: Dask adds and subtracts, so that it has to be finite."""
LOOK_SECONDS = 0.5
LAST_SECONDS = 2.0
"""Before the end, for what is left to be done in order."""
FETCH_SECONDS = 5.0
"""How long a worker that leaves waits for its results to be fetched."""


async def dask_setup(worker: Worker) -> None:
    """Called by Dask before the worker joins."""
    seconds = lasting()
    worker.state.total_resources["seconds"] = worker.state.available_resources["seconds"] = seconds
    # Held by the worker, so that it is not collected meanwhile.
    worker._mlipcluster_tenure = asyncio.create_task(_watch(worker, seconds))  # type: ignore[attr-defined] # noqa: SLF001


def lasting() -> float:
    """Seconds for which this worker takes work."""
    return max(0.0, min(FOR_EVER, ending.remaining() - float(os.environ.get(MARGIN, "0"))))


async def _watch(worker: Worker, told: float) -> None:
    """Keep the scheduler told, until it is time to leave."""
    leave = Path(os.environ.get(LEAVE, "/nonexistent"))
    while not leave.exists() and (seconds := lasting()) > 0:
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
    while _is_busy(worker) and ending.remaining() > LAST_SECONDS:
        await asyncio.sleep(0.05)
    for _ in range(int(FETCH_SECONDS / 0.05)):
        if not worker.data or ending.remaining() < LAST_SECONDS:
            break
        await asyncio.sleep(0.05)
    await worker.close_gracefully(reason=why)


def _is_busy(worker: Worker) -> bool:
    return worker.state.executing_count > 0


def retire(dask_worker: Worker) -> bool:
    """Have a worker leave, for `Client.run`; False if it is at work, so that it stays."""
    if _is_busy(dask_worker):
        return False
    leave: Any = asyncio.get_running_loop().create_task(leave_in_order(dask_worker, "there is no more work for it"))
    dask_worker._mlipcluster_leave = leave  # type: ignore[attr-defined] # noqa: SLF001
    return True
