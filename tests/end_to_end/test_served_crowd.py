"""A crowd of clients that come and go while workers are killed: every answer right, and nothing left behind.

``MLIPCLUSTER_TEST_CROWD_SECONDS`` says for how long, ``MLIPCLUSTER_TEST_CROWD_CLIENTS`` how many at a time.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from mlipcluster import RemoteCalculator
from mlipcluster.serving.address import parse
from mlipcluster.serving.asking import ask
from mlipcluster.serving.dial import dial

SECONDS = float(os.environ.get("MLIPCLUSTER_TEST_CROWD_SECONDS", "20"))
CLIENTS = int(os.environ.get("MLIPCLUSTER_TEST_CROWD_CLIENTS", "40"))
SERVER = """
import sys, types
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.serving.offer import Offer
from mlipcluster.serving.server import Options, Server
import signal
spec = CalculatorSpec("ase.calculators.emt:EMT")
known = types.SimpleNamespace(name="emt", source="test", spec=spec, command=None)
server = Server(Offer({"emt": known}), sys.argv[1], Options(max_workers=2))
signal.signal(signal.SIGTERM, lambda *_: server.stop())
server.run()
"""
MEGABYTE = 1 << 20


@pytest.fixture
def server(tmp_path):
    path = str(tmp_path / "mine" / "s")
    process = subprocess.Popen([sys.executable, "-c", SERVER, path])
    try:
        yield path, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def structure(rng):
    atoms = bulk(rng.choice(["Cu", "Au", "Al", "Ni"]), "fcc", a=rng.uniform(3.5, 4.2), cubic=rng.random() < 0.5)
    atoms.rattle(0.1, seed=rng.randrange(1 << 30))
    return atoms


class Crowd:
    """Clients, one a thread, and what went wrong with them."""

    def __init__(self, path):
        self.path = path
        self.wrong = []
        self.right = 0
        self.over = threading.Event()

    def client(self, seed):
        rng = random.Random(seed)
        try:
            while not self.over.is_set():
                self.visit(rng)
        except Exception as error:
            self.wrong.append(repr(error))

    def visit(self, rng):
        """Come, ask a few times, and go; now and then in the middle of a request."""
        if rng.random() < 0.1:
            connection = dial(parse(self.path))
            connection.socket.sendall(rng.randbytes(rng.randrange(1, 200)))
            connection.close()
            return
        with RemoteCalculator("emt", self.path) as calculator:
            atoms = structure(rng)
            for _ in range(rng.randrange(1, 5)):
                atoms.positions += 0.01
                atoms.calc = calculator
                found = atoms.get_potential_energy(), atoms.get_forces().tobytes()
                atoms.calc = EMT()
                if found != (atoms.get_potential_energy(), atoms.get_forces().tobytes()):
                    self.wrong.append(str(atoms))
                self.right += 1
        time.sleep(rng.uniform(0, 0.05))

    def killer(self):
        rng = random.Random(0)
        while not self.over.wait(rng.uniform(0.3, 2.0)):
            workers = [worker["pid"] for worker in ask("status", self.path)["workers"] if worker["pid"]]
            if workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(workers), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 200)
def test_a_crowd_with_workers_killed_at_random(server, tmp_path):
    path, process = server
    while not os.path.exists(path):
        time.sleep(0.05)
    crowd = Crowd(path)
    threads = [threading.Thread(target=crowd.client, args=(seed,)) for seed in range(CLIENTS)]
    threads.append(threading.Thread(target=crowd.killer))
    for thread in threads:
        thread.start()
    time.sleep(SECONDS / 3)
    memory = process.memory_info().rss
    time.sleep(2 * SECONDS / 3)
    crowd.over.set()
    for thread in threads:
        thread.join()
    grown = process.memory_info().rss - memory
    print(f"{crowd.right} answers, {grown / MEGABYTE:.1f} MB more than after the first third")
    assert crowd.wrong == []
    assert crowd.right > CLIENTS
    assert grown < 20 * MEGABYTE
    with RemoteCalculator("emt", path) as calculator:
        atoms = structure(random.Random(1))
        atoms.calc = calculator
        atoms.get_potential_energy()
        # Socket, epoll, the pair that wakes it, this client; of each worker connection, lifeline, output, socket.
        assert process.num_fds() < 40
        assert len(process.children()) <= 2
    workers = process.children(recursive=True)
    process.terminate()
    process.wait(30)
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []
    assert not (tmp_path / "mine").exists()
