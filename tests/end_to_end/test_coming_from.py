"""The pages of aserpc and of mlipx serve, command by command and call by call, with what each is called here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from mlipcluster import RemoteCalculator, Served, get_calculator

pytestmark = pytest.mark.slow

REGISTRY = """
from ase.calculators.lj import LennardJones

# Registry: name -> calculator factory
CALCULATORS = {
    "LJ": LennardJones,
}
"""
MODELS = """
class GenericASECalculator:
    def __init__(self, module, class_name, device="auto", kwargs=None, extra=None, name=None):
        self.module, self.class_name, self.device = module, class_name, device
        self.kwargs, self.extra, self.name = kwargs or {}, extra, name

ALL_MODELS = {}
ALL_MODELS["mace-mpa-0"] = GenericASECalculator(
    module="ase.calculators.lj",
    class_name="LennardJones",
    device="auto",
    kwargs={"sigma": 3.4},
    extra=["mace"],
)
ALL_MODELS["emt"] = GenericASECalculator(module="ase.calculators.emt", class_name="EMT", extra=["emt"])
for _model_key, _model_instance in ALL_MODELS.items():
    if hasattr(_model_instance, "name") and _model_instance.name is None:
        _model_instance.name = _model_key
"""
SPAWN = """
import sys
from mlipcluster import SpawnConfig

def get_spawn_configs():
    return {
        "lj": SpawnConfig(
            name="lj",
            command=[
                sys.executable, "-m", "mlipcluster", "worker", "ase.calculators.lj:LennardJones", "--name", "{name}",
                "--address", "{broker}", "--idle-timeout", "{idle_timeout}", "--kwargs", '{"sigma": 3.4}',
            ],
            idle_timeout=60.0,
        ),
    }
"""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder with the pages' files, and a server's address of its own, which all commands find."""
    (tmp_path / "registry.py").write_text(REGISTRY)
    (tmp_path / "models.py").write_text(MODELS)
    (tmp_path / "spawn.py").write_text(SPAWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLIPCLUSTER_SERVE_ADDRESS", str(tmp_path / "own" / "s"))


def mlipcluster(*words):
    done = subprocess.run([sys.executable, "-m", "mlipcluster", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def start():
    """Run a command in the background until the test ends: ``start("serve")``."""
    running = []

    def run(*words):
        running.append(subprocess.Popen([sys.executable, "-m", "mlipcluster", *words], stderr=subprocess.PIPE))
        return running[-1]

    yield run
    for process in reversed(running):
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 0


def wait_for(done):
    begun = time.monotonic()
    while not done():
        assert time.monotonic() - begun < 60
        time.sleep(0.05)


def serve(start, *words):
    start("serve", *words)
    wait_for(lambda: os.path.exists(os.environ["MLIPCLUSTER_SERVE_ADDRESS"]))


def state():
    return json.loads(mlipcluster("status", "--json"))


def water(calculator):
    found = molecule("H2O")
    found.calc = calculator
    return found.get_potential_energy()


# aserpc


def test_broker_list_worker_and_the_remote_calculator(start):
    assert "registry.py:CALCULATORS" in mlipcluster("list", "--calculators", "registry.py:CALCULATORS")
    assert "LJ" not in mlipcluster("list")
    serve(start)
    start("worker", "LJ", "--calculators", "registry.py:CALCULATORS")
    wait_for(lambda: "LJ" in Served())
    expected = water(LennardJones())
    for calculator in (RemoteCalculator("LJ"), RemoteCalculator("LJ", retries=2)):
        with calculator:
            assert water(calculator) == expected
    assert "LJ" in mlipcluster("list", "--address", os.environ["MLIPCLUSTER_SERVE_ADDRESS"])


def test_factories_with_arguments_under_names_of_their_own(start):
    serve(start)
    start("worker", "ase.calculators.lj:LennardJones", "--name", "small", "--kwargs", '{"sigma": 2.0}')
    start("worker", "ase.calculators.lj:LennardJones", "--name", "large", "--kwargs", '{"sigma": 3.4, "epsilon": 2.0}')
    start("worker", "ase.calculators.emt:EMT", "--args", "[]")
    wait_for(lambda: {"small", "large", "ase.calculators.emt:EMT"} <= set(Served()))
    with Served()["small"] as small, Served()["large"] as large:
        assert water(small) == water(LennardJones(sigma=2.0))
        assert water(large) == water(LennardJones(sigma=3.4, epsilon=2.0))


def test_a_manager_that_starts_workers_by_commands_and_scales_to_zero(start):
    serve(start, "--calculators", "spawn.py:get_spawn_configs")
    assert state()["workers"] == []
    with RemoteCalculator("lj") as calculator:
        assert water(calculator) == water(LennardJones(sigma=3.4))
    assert [worker["name"] for worker in state()["workers"]] == ["lj"]


def test_idle_workers_end(start):
    serve(start, "--idle-timeout", "0.5")
    with RemoteCalculator("lj") as calculator:
        water(calculator)
        wait_for(lambda: not state()["workers"])
        assert water(calculator) == water(LennardJones())


def test_settings_come_from_variables_and_from_the_project(monkeypatch, tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.mlipcluster.serve]\nidle_timeout = 120.0\nretries = 3\n")
    monkeypatch.setenv("MLIPCLUSTER_SERVE_RETRIES", "5")
    told = mlipcluster("config")
    (idle,) = (line for line in told.splitlines() if line.startswith("serve.idle_timeout"))
    (retries,) = (line for line in told.splitlines() if line.startswith("serve.retries"))
    assert "120" in idle
    assert "MLIPCLUSTER_SERVE_RETRIES" in retries


# mlipx serve


def test_autostart_with_models_of_ones_own_and_status(start):
    serve(start, "--calculators", "models.py:ALL_MODELS", "--idle-timeout", "600", "--start-timeout", "60")
    served = Served()
    assert "mace-mpa-0" in list(served)
    assert "mace-mpa-0" in served
    with served["mace-mpa-0"] as calculator:
        assert water(calculator) == water(LennardJones(sigma=3.4))
    told = mlipcluster("status")
    assert "mace-mpa-0" in told
    assert "1 of at most 2 workers" in " ".join(told.split())


def test_served_or_not_by_argument_and_by_variable(start, monkeypatch):
    copper = bulk("Cu", cubic=True)
    copper.rattle(0.1, seed=1)
    copper.calc = EMT()
    expected = copper.get_potential_energy()
    serve(start, "--calculators", "models.py:ALL_MODELS")
    for use, variable, kind in (
        (True, None, "RemoteCalculator"),
        (False, None, "SocketCalculator"),
        (None, "true", "RemoteCalculator"),
        (None, "false", "SocketCalculator"),
        (None, None, "RemoteCalculator"),
    ):
        monkeypatch.delenv("MLIPCLUSTER_USE_SERVE", raising=False)
        if variable is not None:
            monkeypatch.setenv("MLIPCLUSTER_USE_SERVE", variable)
        with get_calculator("emt", use_serve=use) as calculator:
            assert type(calculator).__name__ == kind
            copper.calc = calculator
            assert copper.get_potential_energy() == pytest.approx(expected, rel=1e-12)


def test_several_workers_of_one_model(start):
    serve(start)
    for _ in range(3):
        start("worker", "mace-mpa-0", "--calculators", "models.py:ALL_MODELS")
    wait_for(lambda: [worker["name"] for worker in state()["workers"]].count("mace-mpa-0") == 3)
    with RemoteCalculator("mace-mpa-0") as calculator:
        energies = [found["energy"] for found in calculator.evaluate([molecule("H2O")] * 30)]
    assert set(energies) == {water(LennardJones(sigma=3.4))}
    assert all(worker["calls"] for worker in state()["workers"])
