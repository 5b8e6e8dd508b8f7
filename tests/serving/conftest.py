"""Servers for tests, and calculators that misbehave."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import psutil
import pytest
from ase.build import bulk

from mlipcluster.calculators.known import Known
from mlipcluster.calculators.spawn import SpawnConfig
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.serving.asking import ask
from mlipcluster.serving.credentials import server_context
from mlipcluster.serving.offer import Offer
from mlipcluster.serving.remote_calculator import RemoteCalculator
from mlipcluster.serving.server import Options, Server

TRIAL = str(Path(__file__).parents[1] / "calculators" / "trial")


@pytest.fixture
def trial():
    """Specification of a calculator in ``tests/calculators/trial/trial.py``."""

    def specify(name, **fields):
        return CalculatorSpec(f"trial:{name}", paths=(TRIAL,), **{"startup_timeout": 120.0, **fields})

    return specify


@pytest.fixture
def offered():
    """What a server serves: ``offered(name=spec or spawn configuration)``."""

    def offer(**given):
        found = {}
        for name, what in given.items():
            spec = what if isinstance(what, CalculatorSpec) else None
            command = None if spec is not None else what
            found[name] = Known(name, "a test", spec, command)
        return Offer(found)

    return offer


@pytest.fixture
def spawned():
    """Configuration of a command that starts a worker: ``spawned("python", "-c", …)``."""

    def configure(*command, **fields):
        return SpawnConfig("spawned", list(command), **fields)

    return configure


class Here:
    """A running server, and what tests ask of it."""

    def __init__(self, server):
        self.server = server
        self.address = server.address

    def calculator(self, name="emt", **options):
        return RemoteCalculator(name, self.address, **options)

    def status(self):
        return ask("status", self.address)

    def workers(self, state=None):
        found = self.status()["workers"]
        return [worker for worker in found if state is None or worker["state"] == state]

    def pids(self):
        return [worker["pid"] for worker in self.workers() if worker["pid"]]


@pytest.fixture
def serve(tmp_path, offered):
    """Run a server in a thread: ``serve(options, name=spec, …)``; EMT where nothing is said.

    With *tls*, a folder of credentials, it listens for other machines as well; with *nodes* workers run there.
    """
    running = []

    def start(options=None, address=None, tls=None, nodes=None, **given):
        offer = offered(**(given or {"emt": CalculatorSpec("ase.calculators.emt:EMT")}))
        server = Server(offer, address or tmp_path / "own" / "s", options or Options(), nodes)
        if tls is not None:
            server.listeners.listen_tls("127.0.0.1", 0, server_context(tls))
        server.__enter__()
        running.append(server)
        return Here(server)

    yield start
    for server in running:
        server.__exit__()


@pytest.fixture
def serve_on_nodes(serve, tmp_path):
    """As *serve*, with workers in Dask workers of this machine, which dial the server over TLS."""
    from mlipcluster.deploy.local import Local
    from mlipcluster.serving.nodes import Nodes

    def start(options=None, deployment=None, **given):
        return serve(options, nodes=Nodes(deployment or Local(max_workers=1), tmp_path / "nodes"), **given)

    return start


@pytest.fixture
def large(tmp_path):
    """A calculator whose answers have more bytes than its questions: 8 MiB beside the energy."""
    (tmp_path / "large.py").write_text(
        "import numpy as np\nfrom ase.calculators.calculator import Calculator\n"
        "class Large(Calculator):\n    implemented_properties = ['energy', 'hessian']\n"
        "    def calculate(self, *arguments):\n        super().calculate(*arguments)\n"
        "        self.results = {'energy': 1.5, 'hessian': np.arange(1 << 20, dtype=float)}\n"
    )
    return CalculatorSpec("large:Large", paths=(str(tmp_path),))


@pytest.fixture
def below():
    """Processes that a test started, and those that they did: ``below("word of their command")``; or all."""
    others = set(psutil.Process().children(recursive=True))  # what tests before it share

    def find(word=""):
        found = []
        for process in set(psutil.Process().children(recursive=True)) - others:
            with contextlib.suppress(psutil.Error):  # it has just ended
                found += [process] if word in " ".join(process.cmdline()) else []
        return found

    return find


@pytest.fixture
def until():
    """Wait for something; what it gave when it was true at last."""

    def wait(done, seconds=60.0):
        begun = time.monotonic()
        while not (found := done()):
            assert time.monotonic() - begun < seconds, f"not within {seconds} s"
            time.sleep(0.02)
        return found

    return wait


@pytest.fixture
def cu():
    """Copper, a little off its lattice: ``cu(seed)``."""

    def make(seed=0):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, seed=seed)
        return atoms

    return make
