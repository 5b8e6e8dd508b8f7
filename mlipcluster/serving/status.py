"""What a server says of itself: what could be served, and what runs."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import psutil

from mlipcluster.serving.pools import summary

if TYPE_CHECKING:
    from mlipcluster.serving.server import Server


def listed(server: Server) -> dict[str, Any]:
    """What the server serves, and where each calculator comes from."""
    rows = []
    for name in server.offer.names():
        known = server.offer.get(name)
        rows.append({"name": name, "source": known.source if known is not None else "joined by hand"})
    return {"calculators": rows}


def seen(server: Server) -> dict[str, Any]:
    """What runs at this moment: of calculators, and of each worker."""
    now = time.monotonic()
    workers = []
    for number, worker in server.dispatch.workers.items():
        seat = server.seats.get(number)
        workers.append(
            {
                "number": number,
                "name": worker.name,
                "state": worker.state,
                "seconds": now - worker.since,
                "calls": worker.calls,
                "mean_seconds": worker.seconds / worker.calls if worker.calls else None,
                "where": seat.where if seat is not None else None,
                "pid": seat.pid if seat is not None else None,
                "devices": list(seat.told.get("devices", ())) if seat is not None else [],
                "memory": seat.memory if seat is not None else None,
            }
        )
    return {
        "pid": os.getpid(),
        "address": server.address,
        "tls_addresses": list(server.listeners.tls_addresses),
        "waits_for": server.waits_for,
        "uptime": time.time() - server.started,
        "clients": len(server.clients),
        "stopping": server.dispatch.stopping,
        "max_workers": server.options.max_workers,
        "idle_timeout": server.options.idle_timeout,
        "served": server.offer.names(),
        "calculators": summary(server.dispatch.pools.values()),
        "workers": workers,
    }


def measured(told: dict[str, Any]) -> dict[str, Any]:
    """The same with the memory, in bytes, that each worker on this machine holds, with all that it started."""
    for worker in told["workers"]:
        if worker["pid"] is not None:
            worker["memory"] = memory_of(worker["pid"])
    return told


def memory_of(pid: int) -> int | None:
    """Bytes of a process and all below it; None when it has ended."""
    try:
        process = psutil.Process(pid)
        return int(sum(one.memory_info().rss for one in [process, *process.children(recursive=True)]))
    except psutil.Error:
        return None
