from __future__ import annotations

import pytest
from ase.build import bulk, molecule

from mlipcluster.cli import quickstart


def test_structures_are_sorted_by_the_calculator_that_knows_them():
    given = [bulk("Cu"), bulk("Si"), bulk("Ar"), molecule("H2O"), bulk("Kr", "fcc", 5.6)]
    groups, left_out = quickstart._groups((None, atoms) for atoms in given)
    assert {spec.name: len(tasks) for spec, tasks in groups.items()} == {"emt": 2, "lj-Ar": 1, "lj-Kr": 1}
    assert left_out == ["Si2"]
    assert [task["cell"] for task in next(iter(groups.values()))] == [True, False]
    assert quickstart._labels(groups) == "EMT and Lennard-Jones (Ar, Kr)"


def test_the_examples_are_found_and_the_broken_one_is_left_out(examples):
    names = {path.name for path, _ in quickstart._structures()}
    assert "Cu.cif" in names
    assert not names & {"broken.cif", "README.md"}
    assert len(names) >= 24
    assert names < {path.name for path in examples.iterdir()}


@pytest.mark.filterwarnings("ignore:.*uncommitted changes:UserWarning")
def test_when_everything_fails_that_is_what_is_shown(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(quickstart, "_structures", lambda: iter([(None, bulk("Cu", cubic=True))]))
    monkeypatch.setattr("mlipcluster.protocols.relax", lambda atoms, calc, cell, fmax: atoms.no_such_thing)
    result = cli("quickstart", "-o", tmp_path / "run", "-j", "1", "--no-progress")
    assert result.exit_code == 1
    assert "AttributeError" in result.stdout
    assert "0 outputs, 1 failed" in result.stdout


@pytest.mark.slow
def test_the_quickstart_relaxes_shows_and_makes_one_again(cli, tmp_path, monkeypatch):
    given = [(None, bulk("Cu", cubic=True)), (None, bulk("Ar", cubic=True))]
    monkeypatch.setattr(quickstart, "_structures", lambda: iter(given))
    for _ in range(2):  # the second time everything is found done
        result = cli("quickstart", "-o", tmp_path / "run", "-j", "1", "--no-progress")
        assert result.exit_code == 0, result
        assert "Cu4" in result.stdout
        assert "Ar4" in result.stdout
        assert "identical: energy, forces, stress, positions, cell (bit for bit)" in result.stdout
        assert "What else to try" in result.stdout
