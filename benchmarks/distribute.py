"""Distribution: 10,000 no-op tasks on two workers, arms taking turns in one run.

    python benchmarks/distribute.py [--tasks 10000] [--workers 2] [--rounds 3] [--json FILE]

Arms
----
future
    One Dask future a task: ``client.map`` over the structures, ``as_completed`` over the futures.
ledger
    `MLIPCluster` with its ledger, without outputs' files.
extxyz
    `MLIPCluster` with its ledger and a self-contained extxyz file for each task.

All arms start their own workers before the clock does; each task carries a structure of four atoms there and back.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ase import Atoms
from ase.build import bulk
from distributed import Client, as_completed

from mlipcluster import MLIPCluster
from mlipcluster.deploy.local import Local


def nothing(atoms: Atoms) -> Atoms:
    """Give the structure back."""
    return atoms


def structures(count: int) -> list[Atoms]:
    """Cells of four copper atoms, each of another size."""
    return [bulk("Cu", cubic=True, a=3.6 + 1e-5 * number) for number in range(count)]


def one_future_a_task(client: Client, tasks: list[Atoms]) -> int:
    """Number of results."""
    futures = client.map(nothing, tasks, pure=False)
    return sum(1 for _ in as_completed(futures, loop=client.loop, with_results=True))


def ours(client: Client, tasks: list[Atoms], **options: object) -> int:
    """Number of results."""
    folder = tempfile.mkdtemp(prefix="benchmark-")
    try:
        run = MLIPCluster(tasks, client=client, output_path=folder, seed=1, progress=False, **options)
        return sum(1 for _ in run.generate(nothing))
    finally:
        shutil.rmtree(folder)


ARMS: dict[str, Callable[[Client, list[Atoms]], int]] = {
    "future": one_future_a_task,
    "ledger": lambda client, tasks: ours(client, tasks, output_types=()),
    "extxyz": ours,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    tasks = structures(arguments.tasks)
    seconds: dict[str, list[float]] = {name: [] for name in ARMS}
    for number in range(arguments.rounds):
        for name, arm in ARMS.items():
            with Local(arguments.workers).start() as cluster, Client(cluster, set_as_default=False) as client:
                client.wait_for_workers(arguments.workers)
                arm(client, tasks[: 4 * arguments.workers])  # everything imported and warm
                start = time.perf_counter()
                count = arm(client, tasks)
                seconds[name].append(time.perf_counter() - start)
            if count != len(tasks):
                raise SystemExit(f"{name}: {count} results for {len(tasks)} tasks")
            print(f"round {number + 1} {name:8s} {seconds[name][-1]:8.2f} s", flush=True)
    base = statistics.median(seconds["future"])
    print(f"\n{'arm':8s} {'ms a task':>10s} {'times faster than one future a task':>36s}")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:8s} {1000 * median / len(tasks):10.3f} {base / median:36.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(seconds, indent=1) + "\n")


if __name__ == "__main__":
    main()
