"""Distribution: 10,000 no-op tasks on two workers, arms taking turns in one run.

    python benchmarks/distribute.py [--tasks 10000] [--workers 2] [--rounds 3] [--arms future ledger extxyz] [--tls]
        [--json FILE]

Arms
----
future
    One Dask future a task: ``client.map`` over the structures, ``as_completed`` over the futures.
ledger
    `MLIPCluster` with its ledger, without outputs' files.
extxyz
    `MLIPCluster` with its ledger and a self-contained extxyz file for each task.

With ``--tls`` each arm takes its turn over plain TCP and over TLS, and the ratio of the two is printed.

All arms start their own workers before the clock does; each task carries a structure of four atoms there and back.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from ase import Atoms
from ase.build import bulk
from distributed import Client, as_completed

from mlipcluster import MLIPCluster
from mlipcluster.deploy.certificates import issue
from mlipcluster.deploy.local import local_cluster
from mlipcluster.deploy.tls import from_credentials


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


@contextlib.contextmanager
def client_of(workers: int, *, encrypted: bool) -> Iterator[Client]:
    """Fresh workers, all there."""
    with tempfile.TemporaryDirectory() as folder:
        security = from_credentials(issue()) if encrypted else None
        with (
            local_cluster(workers, security=security, private=Path(folder, "private")) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            client.wait_for_workers(workers)
            yield client


def processor_seconds() -> float:
    """Of this process and all that it started; on a machine shared with other work they say more than the clock."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def timed(arm: Callable[[Client, list[Atoms]], int], client: Client, tasks: list[Atoms]) -> tuple[float, float]:
    """Seconds, by the clock and of processors, for all tasks, once everything is imported and warm."""
    arm(client, tasks[:8])
    start, work = time.perf_counter(), processor_seconds()
    count = arm(client, tasks)
    taken = time.perf_counter() - start, processor_seconds() - work
    if count != len(tasks):
        raise SystemExit(f"{count} results for {len(tasks)} tasks")
    return taken


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
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    tasks = structures(arguments.tasks)
    ways = {"": False, " tls": True} if arguments.tls else {"": False}
    arms = {name: ARMS[name] for name in arguments.arms}
    ways = {"": False, " tls": True} if arguments.tls else {"": False}
    seconds: dict[str, list[tuple[float, float]]] = {name + way: [] for name in arms for way in ways}
    for number in range(arguments.rounds):
        for name, arm in arms.items():
            for way, encrypted in ways.items():
                with client_of(arguments.workers, encrypted=encrypted) as client:
                    taken = timed(arm, client, tasks)
                seconds[name + way].append(taken)
                print(
                    f"round {number + 1} {name + way:12s} {taken[0]:8.2f} s, {taken[1]:8.2f} s of processors",
                    flush=True,
                )
    medians = {name: statistics.median(clock for clock, _ in values) for name, values in seconds.items()}
    base = medians.get("future", math.nan)
    print(f"\n{'arm':12s} {'ms a task':>10s} {'times faster than one future a task':>36s}")
    for name, median in medians.items():
        print(f"{name:12s} {1000 * median / len(tasks):10.3f} {base / median:36.2f}")
    for name in arms if arguments.tls else ():
        for index, what in enumerate(("time", "processor time")):
            pairs = zip(seconds[name], seconds[name + " tls"], strict=True)
            ratios = [encrypted[index] / plain[index] for plain, encrypted in pairs]
            middle = statistics.median(ratios)
            print(f"{name:12s} over TLS takes {middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) of the {what}")
    if arguments.json:
        arguments.json.write_text(json.dumps(seconds, indent=1) + "\n")


if __name__ == "__main__":
    main()
