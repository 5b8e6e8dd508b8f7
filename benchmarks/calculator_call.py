"""What one call of a calculator costs: in process, here, and in what else there is; all arms take turns in one run.

A call moves all atoms a little and asks for energy, then forces, as an optimizer or molecular dynamics does. Each arm
is a process of its own in the environment of the package that it measures; a measurement is handed round the arms, a
few calls each, so that whatever else the machine does falls on all of them. Medians over all rounds are compared.

    python benchmarks/calculator_call.py --rootstock ENV/bin/python --aserpc ENV/bin/python

Rootstock is given no environment to build: its installer would fetch a Python. Its own worker (``rootstock.worker``) is
started by hand with the interpreter of ``--rootstock``, and its own client and server talk to it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

HERE = Path(__file__).resolve()
SIZES = (4, 64, 256, 1000, 10_000)
CALCULATORS = ("null", "emt")


class NullCalculator(Calculator):
    """Does what ASE asks of every calculator, and no more."""

    implemented_properties = ("energy", "free_energy", "forces", "stress")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        forces = np.zeros((len(atoms), 3))
        self.results = {"energy": 0.0, "free_energy": 0.0, "forces": forces, "stress": np.zeros(6)}


FACTORIES: dict[str, Callable[[], Calculator]] = {"null": NullCalculator, "emt": EMT}


# One arm: how to get a calculator, in a process of its own


@contextlib.contextmanager
def in_process(name: str) -> Iterator[Calculator]:
    yield FACTORIES[name]()


@contextlib.contextmanager
def ours(name: str) -> Iterator[Calculator]:
    from mlipcluster.calculators.socket_calculator import SocketCalculator

    factory = {"null": "calculator_call:NullCalculator", "emt": "ase.calculators.emt:EMT"}[name]
    with SocketCalculator(factory, paths=[str(HERE.parent)]) as calculator:
        yield calculator


@contextlib.contextmanager
def ase_socket(name: str) -> Iterator[Calculator]:
    from ase.calculators.socketio import SocketIOCalculator

    def launch(atoms: Atoms, properties: Any, port: Any, unixsocket: str) -> subprocess.Popen[bytes]:
        atoms.write(folder + "/start.traj")
        return subprocess.Popen([sys.executable, HERE, "--ase-client", name, unixsocket, folder + "/start.traj"])

    with tempfile.TemporaryDirectory() as folder:
        socket_name = f"calculator_call_{os.getpid()}"
        with SocketIOCalculator(launch_client=launch, unixsocket=socket_name) as calculator:
            yield calculator


@contextlib.contextmanager
def rootstock(name: str) -> Iterator[Calculator]:
    from rootstock.calculator import RootstockCalculator
    from rootstock.server import RootstockServer

    class Server(RootstockServer):
        def _start_worker(self) -> subprocess.Popen[bytes]:
            self._process = subprocess.Popen([sys.executable, HERE, "--rootstock-worker", name, self.socket_path])
            return self._process

    calculator = RootstockCalculator.__new__(RootstockCalculator)
    Calculator.__init__(calculator)
    with tempfile.TemporaryDirectory() as folder:
        calculator._server = Server("none", name, "cpu", root=Path(folder), usage_client=None)
        calculator._server.start()
        yield calculator
        calculator.close()


@contextlib.contextmanager
def aserpc(name: str) -> Iterator[Calculator]:
    from aserpc import RemoteCalculator

    with aserpc_broker(name) as front:
        yield RemoteCalculator(name, broker=front)


@contextlib.contextmanager
def aserpc_broker(name: str, workers: int = 1) -> Iterator[str]:
    """Address of a broker with that many workers."""
    from aserpc.client import list_calculators

    program = str(Path(sys.executable).with_name("aserpc"))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        front, back = f"ipc://{folder}/front", f"ipc://{folder}/back"
        for arguments in (
            ["broker", "--frontend", front, "--backend", back],
            *[["worker", name, "--registry", f"{HERE}:FACTORIES", "--broker", back]] * workers,
        ):
            process = subprocess.Popen([program, *arguments, "--log-level", "ERROR"], stdout=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        while name not in list_calculators(front):
            if process.poll() is not None:
                raise SystemExit("aserpc's worker did not start")
            time.sleep(0.1)
        yield front


Arms = dict[str, Callable[[str], contextlib.AbstractContextManager[Calculator]]]
ARMS: Arms = {
    "in process": in_process,
    "ours": ours,
    "ASE socket": ase_socket,
    "Rootstock": rootstock,
    "aserpc": aserpc,
}


def run_arm(arm: str, name: str, arms: Arms = ARMS) -> None:
    """Answer each line of stdin, ``size calls``, with the seconds that each call took."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the packages print is not an answer
    structures: dict[int, Atoms] = {}
    rng = np.random.default_rng(0)
    with contextlib.ExitStack() as stack:
        print(json.dumps("ready"), file=answers, flush=True)
        current, calculator = 0, None
        for line in sys.stdin:
            size, calls = map(int, line.split())
            if calculator is None or (arm == "ASE socket" and size != current):
                stack.close()  # ASE's socket calculator keeps to one structure
                calculator = stack.enter_context(arms[arm](name))
            current = size
            atoms = structures.setdefault(size, structure(size))
            atoms.calc = calculator
            call(atoms, rng)  # the structure has changed: not what is measured
            print(json.dumps([call(atoms, rng) for _ in range(calls)]), file=answers, flush=True)


def call(atoms: Atoms, rng: np.random.Generator) -> float:
    """Seconds for one step: everything has moved, energy and forces are wanted."""
    atoms.positions += rng.normal(0.0, 1e-4, atoms.positions.shape)
    started = time.perf_counter()
    atoms.get_potential_energy()
    atoms.get_forces()
    return time.perf_counter() - started


def structure(size: int) -> Atoms:
    """Copper, *size* atoms, a little off its lattice."""
    repeats = {4: (1, 1, 1), 64: (4, 2, 2), 256: (4, 4, 4), 1000: (10, 5, 5), 10_000: (25, 10, 10)}[size]
    atoms = bulk("Cu", cubic=True) * repeats
    atoms.rattle(0.02, seed=1)
    return atoms


def ase_client(name: str, socket_name: str, file: str) -> None:
    """The other side of ASE's socket calculator."""
    import ase.io
    from ase.calculators.socketio import SocketClient

    atoms = ase.io.read(file)
    atoms.calc = FACTORIES[name]()
    SocketClient(unixsocket=socket_name).run(atoms)


def rootstock_worker(name: str, socket_path: str) -> None:
    """The other side of Rootstock's calculator."""
    from rootstock.worker import run_worker

    run_worker(lambda checkpoint, device: FACTORIES[name](), name, "cpu", socket_path)


# The turns


class Arm:
    """A running arm."""

    def __init__(self, arm: str, name: str, python: str, script: Path = HERE) -> None:
        self.name = arm
        variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        self._process = subprocess.Popen(
            [python, script, "--arm", arm, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **dict.fromkeys(variables, "1")},
        )
        self._answer()

    def measure(self, size: int, calls: int) -> list[float]:
        """Seconds of each of *calls* calls."""
        print(size, calls, file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> Any:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"arm {self.name!r} ended with status {self._process.wait()}")
        return json.loads(line)


def measure(
    name: str, pythons: dict[str, str], options: argparse.Namespace, script: Path = HERE
) -> dict[int, dict[str, float]]:
    """Median seconds by size and arm."""
    arms = [Arm(arm, name, python, script) for arm, python in pythons.items()]
    medians: dict[int, dict[str, float]] = {}
    try:
        for size in options.sizes:
            times: dict[str, list[float]] = {arm.name: [] for arm in arms}
            calls = max(1, min(options.calls, int(0.5 / statistics.median(arms[0].measure(size, 3)))))
            for turn in range(options.rounds):
                for arm in arms[turn % len(arms) :] + arms[: turn % len(arms)]:
                    times[arm.name] += arm.measure(size, calls)
            medians[size] = {arm: statistics.median(seconds) for arm, seconds in times.items()}
    finally:
        for arm in arms:
            arm.close()
    return medians


def show(name: str, medians: dict[int, dict[str, float]]) -> None:
    arms = list(next(iter(medians.values())))
    print(f"\n{name} calculator, one call with energy and forces: median µs; in brackets, over in process\n")
    print("| atoms | " + " | ".join(arms) + " | ours / in process | ours / Rootstock | overheads, ours / Rootstock |")
    print("|---" * (len(arms) + 4) + "|")
    for size, by_arm in medians.items():
        base = by_arm["in process"]
        cells = [
            f"{1e6 * seconds:,.0f}" + (f" ({1e6 * (seconds - base):+,.0f})" if arm != "in process" else "")
            for arm, seconds in by_arm.items()
        ]
        ratios = [f"{by_arm['ours'] / base:.2f}"]
        if "Rootstock" in by_arm:
            ratios.append(f"{by_arm['ours'] / by_arm['Rootstock']:.3f}")
            ratios.append(f"{(by_arm['ours'] - base) / (by_arm['Rootstock'] - base):.3f}")
        print(f"| {size:,} | " + " | ".join([*cells, *ratios]) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rootstock", metavar="PYTHON", help="interpreter of an environment with rootstock")
    parser.add_argument("--aserpc", metavar="PYTHON", help="interpreter of an environment with aserpc")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, choices=SIZES, metavar="ATOMS")
    parser.add_argument("--calculators", nargs="+", default=CALCULATORS, choices=CALCULATORS)
    parser.add_argument("--rounds", type=int, default=15, help="turns that each arm gets")
    parser.add_argument("--calls", type=int, default=20, help="calls a turn, fewer where one takes long")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the medians, in seconds")
    parser.add_argument("--arm", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--ase-client", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--rootstock-worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    for function, arguments in (
        (run_arm, options.arm),
        (ase_client, options.ase_client),
        (rootstock_worker, options.rootstock_worker),
    ):
        if arguments:
            function(*arguments)
            return
    pythons = dict.fromkeys(("in process", "ours", "ASE socket"), sys.executable)
    for arm, python in (("Rootstock", options.rootstock), ("aserpc", options.aserpc)):
        if python:
            pythons[arm] = str(Path(python).absolute())
        else:
            print(f"{arm}: left out; give --{arm.lower()} an interpreter that has it")
    results = {}
    for name in options.calculators:
        results[name] = measure(name, pythons, options)
        show(name, results[name])
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
