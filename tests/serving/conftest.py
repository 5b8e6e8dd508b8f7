"""Servers for tests, and calculators that misbehave."""

from __future__ import annotations

import time
from pathlib import Path

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

    With *tls*, a folder of credentials, it listens for other machines as well.
    """
    running = []

    def start(options=None, address=None, tls=None, **given):
        offer = offered(**(given or {"emt": CalculatorSpec("ase.calculators.emt:EMT")}))
        server = Server(offer, address or tmp_path / "own" / "s", options or Options())
        if tls is not None:
            server.listeners.listen_tls("127.0.0.1", 0, server_context(tls))
        server.__enter__()
        running.append(server)
        return Here(server)

    yield start
    for server in running:
        server.__exit__()


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
