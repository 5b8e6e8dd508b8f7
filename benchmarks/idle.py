"""What idle workers cost: processor time of driver, nanny and worker, with Dask's own settings and with ours.

python benchmarks/idle.py [--seconds 20]
"""

from __future__ import annotations

import argparse
import contextlib
import time

import psutil
from distributed import Client

from mlipcluster.deploy import calm
from mlipcluster.deploy.local import local_cluster


def share(seconds: float) -> dict[str, float]:
    """Percent of a core that each process of a cluster with one idle worker uses."""
    with local_cluster(1) as cluster, Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(1)
        driver = psutil.Process()
        nanny = next(p for p in driver.children() if p.children())
        worker = max(nanny.children(), key=lambda process: process.memory_info().rss)
        named = {"driver": driver, "nanny": nanny, "worker": worker}
        time.sleep(3)
        before = {name: sum(process.cpu_times()[:2]) for name, process in named.items()}
        time.sleep(seconds)
        return {name: 100 * (sum(p.cpu_times()[:2]) - before[name]) / seconds for name, p in named.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20.0)
    seconds = parser.parse_args().seconds
    ours = share(seconds)
    calm.calmly, calm.VARIABLES = contextlib.nullcontext, {}
    dask = share(seconds)
    print(f"{'':8}{'Dask':>8}{'ours':>8}   % of a core, idle")
    for name, value in dask.items():
        print(f"{name:8}{value:8.2f}{ours[name]:8.2f}")


if __name__ == "__main__":
    main()
