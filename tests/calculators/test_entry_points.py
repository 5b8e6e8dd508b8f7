from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlipcluster.calculators.known import built_in, known
from mlipcluster.calculators.registry import names, resolve
from mlipcluster.calculators.socket_calculator import SocketCalculator
from mlipcluster.errors import InputError

PACKAGE = """
def calculators():
    return {
        "packaged": {"factory": "ase.calculators.lj:LennardJones", "args": [], "kwargs": {"sigma": 2.0}},
        "never": {"factory": "factory_that_is_not_imported:make", "device": "auto"},
        "emt": {"factory": "ase.calculators.lj:LennardJones"},
        "twice": {"factory": "first:one"},
        "made": lambda: __import__("ase.calculators.emt", fromlist=["EMT"]).EMT(),
    }


def theirs():
    return {"LJ": {"factory": "ase.calculators.lj:LennardJones"}, "twice": {"factory": "second:one"}}


class TheirSpawnConfig:
    def __init__(self, name, *command):
        self.name, self.command, self.env, self.cwd, self.idle_timeout = name, [*command], {"A": "1"}, None, 120.0


def spawns():
    return {
        "spawned": TheirSpawnConfig("spawned", "mlipcluster", "worker", "ase.calculators.lj:LennardJones"),
        "old": TheirSpawnConfig("old", "aserpc", "worker", "lj"),
    }


def fails():
    raise OSError("no such licence")
"""
POINTS = """
[mlipcluster.calculators]
broken = offers_calculators:fails
gone = offers_calculators:no_such_function
fine = offers_calculators:calculators

[aserpc.calculators]
theirs = offers_calculators:theirs

[aserpc.spawn]
spawns = offers_calculators:spawns
"""


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """An installed package that offers calculators, some well, some badly."""
    (tmp_path / "offers_calculators.py").write_text(PACKAGE)
    info = tmp_path / "offers_calculators-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: offers-calculators\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("offers_calculators", None)


def test_each_says_where_it_comes_from_and_a_later_one_takes_no_name(package):
    found = known()
    assert {name: one.source for name, one in found.items() if "offers" in one.source} == {
        "packaged": "entry point mlipcluster.calculators: fine (offers-calculators)",
        "never": "entry point mlipcluster.calculators: fine (offers-calculators)",
        "twice": "entry point mlipcluster.calculators: fine (offers-calculators)",
        "made": "entry point mlipcluster.calculators: fine (offers-calculators)",
        "LJ": "entry point aserpc.calculators: theirs (offers-calculators)",
        "spawned": "entry point aserpc.spawn: spawns (offers-calculators)",
    }
    assert found["packaged"].spec.kwargs == {"sigma": 2.0}
    assert found["twice"].spec.factory == "first:one"
    assert found["emt"].source == "built in"
    assert found["spawned"].spec is None
    assert (found["spawned"].command.env, found["spawned"].command.idle_timeout) == ({"A": "1"}, 120.0)


def test_one_that_fails_is_told_and_hides_no_other(package):
    complaints = known().complaints
    assert len(complaints) == 3
    broken, gone, old = complaints
    assert broken.startswith(
        "entry point mlipcluster.calculators: broken (offers-calculators) cannot be read: OSError: no such"
    )
    assert broken.endswith("correct or uninstall offers-calculators")
    assert "gone (offers-calculators) cannot be read: AttributeError" in gone
    assert "'old'" in old
    assert "write `mlipcluster worker`" in old


def test_short_names_resolve(package):
    assert resolve("packaged").factory == "ase.calculators.lj:LennardJones"
    assert resolve("emt") == built_in()["emt"]
    assert set(names()) >= {*built_in(), "packaged", "never", "LJ"}
    with pytest.raises(
        InputError, match=r"LJ, chgnet, emt.*Did you mean 'packaged'.*Not looked at: entry point .*broken"
    ):
        resolve("packagd")
    with pytest.raises(
        InputError, match=r"'spawned' \(entry point.* is started by a command.*`mlipcluster serve spawned`"
    ):
        resolve("spawned")


def test_what_a_package_makes_itself_is_reached_in_a_worker(package):
    with SocketCalculator("made") as calculator:
        assert "energy" in calculator.implemented_properties


def test_factories_are_not_imported(package):
    """In a process of its own, which has imported nothing yet."""
    code = (
        "import sys; from mlipcluster.calculators.registry import resolve; resolve('emt');"
        "assert 'offers_calculators' not in sys.modules, 'not asked for';"
        "assert resolve('never').device == 'auto';"
        "print(sorted({'torch', 'dask', 'pandas', 'factory_that_is_not_imported'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(package)}, capture_output=True, text=True, check=False
    )
    assert (ran.stdout, ran.stderr) == ("[]\n", "")
