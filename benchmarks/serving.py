"""Served calculators: what a call costs, and how many come through; all arms take turns in one run.

    python benchmarks/serving.py --aserpc ENV/bin/python --mlipx ENV/bin/python [--tls] [--parts calls throughput]

Calls
-----
As in ``calculator_call.py``: all atoms have moved, energy is wanted, then forces; each arm is a process of its own in
the environment of the package that it measures. ``socket`` is a `SocketCalculator`, whose process nobody shares.

Throughput
----------
Clients, each a process of its own, ask workers for EMT of 256 atoms as fast as they are answered, for the same seconds:
calls a second of all together, and the longest call over the mean one.

Peers whose interpreter is not given are left out. ``mlipx.serve`` is in mlipx's repository and not in 0.1.5 of PyPI.
Its broker and worker are started by hand. The broker refuses a call while it knows of no free worker, where others let
the call wait: its clients here ask again after a millisecond, and the time that passes counts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import calculator_call as base
import numpy as np
from ase.calculators.calculator import Calculator

HERE = Path(__file__).resolve()
PARTS = ("calls", "throughput")
CROWDS = ((8, 1), (8, 2))
"""Clients and workers."""
CROWD_ATOMS = 256


# Ours


def run_mlipcluster(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "mlipcluster", *arguments], stdout=subprocess.DEVNULL, **options)


@contextlib.contextmanager
def server(name: str, workers: int = 1, *, tls: bool = False) -> Iterator[str]:
    """What :func:`remote` takes: address and, over TLS, credentials of a server."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o700)
        words = ["serve", name, "--calculators", f"{base.HERE}:FACTORIES", "--address", f"{folder}/s"]
        words += ["--max-workers", str(workers)]
        address = f"{folder}/s"
        if tls:
            address = f"tls://127.0.0.1:{free_port()} {folder}/tls"
            if run_mlipcluster("tls", "new", f"{folder}/tls").wait():
                raise SystemExit("no credentials were made")
            words += ["--listen", address.split()[0], "--tls", f"{folder}/tls"]
        with run_mlipcluster(*words, cwd=folder) as process:
            try:
                wait_for(process, f"{folder}/s")
                yield address
            finally:
                process.terminate()


def wait_for(process: subprocess.Popen[bytes], path: str) -> None:
    while not os.path.exists(path):
        if process.poll() is not None:
            raise SystemExit(f"the server ended with status {process.returncode}")
        time.sleep(0.05)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def remote(name: str, address: str) -> Calculator:
    from mlipcluster.serving.remote_calculator import RemoteCalculator

    where, _, credentials = address.partition(" ")
    return RemoteCalculator(name, where, security=credentials or None)


@contextlib.contextmanager
def served(name: str, *, tls: bool = False) -> Iterator[Calculator]:
    with server(name, tls=tls) as address:
        yield remote(name, address)


@contextlib.contextmanager
def served_over_tls(name: str) -> Iterator[Calculator]:
    with served(name, tls=True) as calculator:
        yield calculator


# Peers


def aserpc_remote(name: str, address: str) -> Calculator:
    from aserpc import RemoteCalculator

    return RemoteCalculator(name, broker=address)


MLIPX_BROKER = """
import logging, sys
from mlipx.serve.broker import run_broker
logging.disable(logging.WARNING)
run_broker(*sys.argv[1:])
"""
MLIPX_WORKER = """
import logging, pathlib, sys
from mlipx.serve.worker import run_worker
logging.disable(logging.WARNING)
run_worker(sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), timeout=86400)
"""
MLIPX_MODELS = f"""
import sys, types
sys.path.insert(0, {str(HERE.parent)!r})
from calculator_call import FACTORIES
ALL_MODELS = {{name: types.SimpleNamespace(get_calculator=factory) for name, factory in FACTORIES.items()}}
"""


@contextlib.contextmanager
def mlipx(name: str) -> Iterator[Calculator]:
    with mlipx_broker(name) as front:
        yield mlipx_remote(name, front)


@contextlib.contextmanager
def mlipx_broker(name: str, workers: int = 1) -> Iterator[str]:
    """Address of a broker with that many workers."""
    from mlipx.serve.client import get_broker_detailed_status

    def start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        return process

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        front, back, models = f"ipc://{folder}/front", f"ipc://{folder}/back", Path(folder, "models.py")
        models.write_text(MLIPX_MODELS, encoding="utf-8")
        wait_for(start(MLIPX_BROKER, front, back), f"{folder}/back")
        started = [start(MLIPX_WORKER, name, back, str(models)) for _ in range(workers)]
        while get_broker_detailed_status(front)["models"].get(name, {}).get("worker_count", 0) < workers:
            if any(process.poll() is not None for process in started):
                raise SystemExit("mlipx's worker did not start")
            time.sleep(0.1)
        yield front


def mlipx_remote(name: str, address: str) -> Calculator:
    from mlipx.serve.client import RemoteCalculator

    class PatientCalculator(RemoteCalculator):
        def calculate(self, *arguments: Any, **options: Any) -> None:
            while True:
                try:
                    return super().calculate(*arguments, **options)
                except RuntimeError as error:
                    if "No workers available" not in str(error):
                        raise
                    time.sleep(0.001)

    return PatientCalculator(name, broker=address)


ARMS: base.Arms = {
    "in process": base.in_process,
    "socket": base.ours,
    "served": served,
    "served over TLS": served_over_tls,
    "aserpc": base.aserpc,
    "mlipx": mlipx,
}
PEERS = ("aserpc", "mlipx")
#: What is shared by clients: how it is started, with so many workers, and how a client asks it.
SYSTEMS: dict[str, tuple[Callable[..., contextlib.AbstractContextManager[str]], Callable[[str, str], Calculator]]] = {
    "served": (server, remote),
    "aserpc": (base.aserpc_broker, aserpc_remote),
    "mlipx": (mlipx_broker, mlipx_remote),
}


# Calls


def show_calls(name: str, medians: dict[int, dict[str, float]]) -> None:
    arms = list(next(iter(medians.values())))
    peers = [arm for arm in arms if arm in PEERS]
    ratios = [(ours, peer) for ours in arms if ours.startswith("served") for peer in peers]
    print(f"\n{name} calculator, one call with energy and forces: median µs\n")
    print("| atoms | " + " | ".join([*arms, *(f"{ours} / {peer}" for ours, peer in ratios)]) + " |")
    print("|---" * (len(arms) + len(ratios) + 1) + "|")
    for size, by_arm in medians.items():
        cells = [f"{1e6 * by_arm[arm]:,.0f}" for arm in arms]
        cells += [f"{by_arm[ours] / by_arm[peer]:.3f}" for ours, peer in ratios]
        print(f"| {size:,} | " + " | ".join(cells) + " |", flush=True)


# Throughput


def host(system: str, workers: int) -> None:
    """Start a system, say its address, and end it when nobody listens any more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with SYSTEMS[system][0]("emt", workers) as address:
        print(address, file=answers, flush=True)
        sys.stdin.read()


def client(system: str, address: str, seconds: float) -> None:
    """At a word, call for some seconds; say how long each call took."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    rng = np.random.default_rng(os.getpid())
    atoms = base.structure(CROWD_ATOMS)
    atoms.calc = SYSTEMS[system][1]("emt", address)
    base.call(atoms, rng)
    print("ready", file=answers, flush=True)
    sys.stdin.readline()
    until, times = time.perf_counter() + seconds, []
    while time.perf_counter() < until:
        times.append(base.call(atoms, rng))
    print(json.dumps(times), file=answers, flush=True)


@contextlib.contextmanager
def started(python: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A process of this file, which ends when its input does."""
    variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [python, str(HERE), *words]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env={**os.environ, **variables}, **pipes) as process:
        yield process


def crowd(system: str, python: str, clients: int, workers: int, seconds: float) -> dict[str, float]:
    """Calls a second of all clients, and the longest call over the mean one."""
    with contextlib.ExitStack() as stack:
        it = stack.enter_context(started(python, "--host", system, str(workers)))
        address = it.stdout.readline().strip()
        words = ["--client", system, address, str(seconds)]
        crowd = [stack.enter_context(started(python, *words)) for _ in range(clients)]
        for process in crowd:
            if process.stdout.readline() != "ready\n":
                raise SystemExit(f"a client of {system} ended with status {process.wait()}")
        for process in crowd:
            print(file=process.stdin, flush=True)
        times = [json.loads(process.stdout.readline()) for process in crowd]
    calls = [time for of_one in times for time in of_one]
    return {"calls a second": len(calls) / seconds, "longest / mean": max(calls) / statistics.mean(calls)}


def throughput(pythons: dict[str, str], rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    found: dict[str, list[dict[str, float]]] = {}
    for turn in range(rounds):
        for clients, workers in CROWDS:
            systems = list(pythons.items())
            for system, python in systems[turn % len(systems) :] + systems[: turn % len(systems)]:
                key = f"{system}, {clients} clients on {workers}"
                found.setdefault(key, []).append(crowd(system, python, clients, workers, seconds))
    return {
        key: {what: statistics.median(one[what] for one in several) for what in several[0]}
        for key, several in sorted(found.items())
    }


def show_throughput(found: dict[str, dict[str, float]]) -> None:
    print(f"\nEMT of {CROWD_ATOMS} atoms\n\n| | calls a second | longest call / mean |\n|---|---|---|")
    for key, numbers in found.items():
        print(f"| {key} | {numbers['calls a second']:.1f} | {numbers['longest / mean']:.2f} |", flush=True)


def interpreters(options: argparse.Namespace) -> dict[str, str]:
    """Arms and who runs them."""
    ours = ["in process", "socket", "served", *(["served over TLS"] if options.tls else [])]
    pythons = {arm: sys.executable for arm in ours if arm not in options.without}
    for peer in PEERS:
        if python := getattr(options, peer):
            pythons[peer] = str(Path(python).absolute())
        else:
            print(f"{peer}: left out; give --{peer} an interpreter that has it")
    return pythons


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aserpc", metavar="PYTHON", help="interpreter of an environment with aserpc")
    parser.add_argument(
        "--mlipx",
        metavar="PYTHON",
        help="interpreter of an environment with mlipx's serve, which is in its repository and not in 0.1.5 of PyPI",
    )
    parser.add_argument("--tls", action="store_true", help="ours over TLS on loopback as well")
    parser.add_argument("--without", nargs="+", default=(), choices=("socket", "served"), help="arms to leave out")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--sizes", type=int, nargs="+", default=base.SIZES, choices=base.SIZES, metavar="ATOMS")
    parser.add_argument("--calculators", nargs="+", default=base.CALCULATORS, choices=base.CALCULATORS)
    parser.add_argument("--rounds", type=int, default=15, help="turns that each arm gets; a fifth of it in the crowds")
    parser.add_argument("--calls", type=int, default=20, help="calls a turn, fewer where one takes long")
    parser.add_argument("--seconds", type=float, default=5.0, help="that a crowd asks for")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers, times in seconds")
    parser.add_argument("--arm", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--host", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--client", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        base.run_arm(*options.arm, ARMS)
    elif options.host:
        host(options.host[0], int(options.host[1]))
    elif options.client:
        client(*options.client[:2], float(options.client[2]))
    else:
        run(options)


def run(options: argparse.Namespace) -> None:
    pythons, results = interpreters(options), {}
    if "calls" in options.parts:
        for name in options.calculators:
            results[name] = base.measure(name, pythons, options, HERE)
            show_calls(name, results[name])
    if "throughput" in options.parts:
        shared = {arm: python for arm, python in pythons.items() if arm in SYSTEMS}
        results["throughput"] = throughput(shared, max(1, options.rounds // 5), options.seconds)
        show_throughput(results["throughput"])
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
