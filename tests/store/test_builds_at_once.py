"""Many builders of one environment, some of them killed: one good environment, and nothing else is left."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlipcluster.calculators.socket_calculator import SocketCalculator
from mlipcluster.store.build import build
from mlipcluster.store.layout import make_root
from mlipcluster.store.parts import running
from mlipcluster.store.prune import prune
from mlipcluster.store.status import status
from mlipcluster.store.store import Store, measured_as_built
from mlipcluster.store.workplace import Options

NO_LOCKS = """
import errno, fcntl

def refuse(descriptor, operation):
    raise OSError(errno.ENOLCK, "No locks available")

fcntl.flock = refuse
"""
PATIENCE = 300.0  # seconds


@pytest.fixture
def store(tmp_path, wheels, write_source):
    store = Store(make_root(tmp_path / 'it\'s "the"\nroot')[0].root)
    store.register(write_source("metal_env", "whats_here", "tiny"))
    return store


def mlipcluster(store, *words):
    return [sys.executable, "-m", "mlipcluster", "env", *words, "--root", str(store.root)]


def kill_some(store, builders, count, moments):
    """Kill *count* of the processes at random moments, first of all those that build just then."""
    killed = []
    while len(killed) < count and len(alive := [one for one in builders if one.poll() is None]) > 1:
        time.sleep(moments.uniform(0.0, 0.7))
        building = {owner.pid for owner in running(store.layout)}
        victim = next((one for one in alive if one.pid in building), moments.choice(alive))
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        killed.append(victim)
    return killed


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("locks", "builders", "kills"), [(True, 20, 5), (False, 6, 2)])
def test_one_good_environment_and_no_rubbish(store, tmp_path, monkeypatch, cu, locks, builders, kills):
    seed = random.randrange(10**6)
    print("seed", seed)  # shown where it fails
    if not locks:
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "sitecustomize.py").write_text(NO_LOCKS)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    started = [
        subprocess.Popen(mlipcluster(store, "build", "metal_env"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(builders)
    ]
    killed = kill_some(store, started, kills, random.Random(seed))
    said = {one.pid: [text.decode() for text in one.communicate(timeout=PATIENCE)] for one in started}
    for one in started:
        assert one in killed or one.returncode == 0, said[one.pid]
    assert len([one for one in killed if one.returncode == -signal.SIGKILL]) >= 1

    made = store.current("metal_env")
    assert all(str(made.folder) in text for text, _ in said.values() if text)
    assert measured_as_built(made) == []
    assert SocketCalculator("metal", root=store.root).get_potential_energy(cu) == pytest.approx(0.0, abs=1.0)

    until, found = time.monotonic() + PATIENCE, status(store).to_json()
    while (left := rubbish(store, made)) and time.monotonic() < until:  # what killed builders had started may still run
        done = subprocess.run(mlipcluster(store, "status", "--prune", "--json"), capture_output=True, check=True)
        found = json.loads(done.stdout)
    assert left == []
    assert (found["building"], found["abandoned"], found["old"]) == ([], [], [])
    assert store.current("metal_env") == made


def rubbish(store, made):
    """All that lies in the root besides one build and what belongs to its name."""
    known = {store.layout.link(made.digest), made.folder, store.layout.parts, store.layout.turn_file("metal_env")}
    inside = [*store.layout.builds.iterdir(), *store.layout.parts.iterdir()]
    found = [path for path in inside if path not in known]
    return found + [path for path in Path(store.root).rglob("*.part") if os.path.lexists(path)]


LATE = """
import os, sys

BEGUN = os.path.realpath(sys.prefix)


def setup(model, device="cpu"):
    from ase.calculators.emt import EMT

    class Late(EMT):
        calls = 0

        def calculate(self, *arguments):
            super().calculate(*arguments)
            self.calls += 1
            if self.calls > 1:
                import tiny

                assert os.path.realpath(tiny.__file__).startswith(BEGUN), tiny.__file__
                self.results["energy"] = float(tiny.version)

    return Late()
"""


def test_a_running_worker_stays_in_the_build_that_it_began_in(store, write_source, wheels, make_wheel, cu):
    store.register(write_source("late_env", "whats_here", "tiny", body=LATE))
    first = build(store, "late_env", Options(), print)[0]
    with SocketCalculator("late", root=store.root) as running:
        running.get_potential_energy(cu)
        assert build(store, "late_env", Options(force=True), print)[0].digest == first.digest
        make_wheel(wheels, "tiny", "2.0", {"tiny.py": "version = 2\n"})
        assert build(store, "late_env", Options(upgrade=True), print)[0].digest != first.digest
        assert [waste.what for waste in prune(store)] == []
        cu.rattle(0.01, seed=2)
        assert running.get_potential_energy(cu) == 1.0
    with SocketCalculator("late", root=store.root) as fresh:
        fresh.get_potential_energy(cu)
        cu.rattle(0.01, seed=3)
        assert fresh.get_potential_energy(cu) == 2.0
    assert len(prune(store, keep_days=0)) == 2
