from __future__ import annotations

import random

import numpy as np
import pytest
from ase.build import bulk

from mlipcluster.checkpoint import (
    HOME_SECONDS,
    CalculatorForgot,
    CallInterrupted,
    Checkpoint,
    Rhythm,
    needed,
)
from mlipcluster.deploy import ending
from mlipcluster.errors import ProtocolError

CU = bulk("Cu")


class Calculator:
    """What a lent calculator is to a checkpoint."""

    interrupted = False
    prepared = None

    def __init__(self):
        self.seeds = []

    def prepare(self, seed):
        self.seeds.append(seed)
        self.prepared = seed


@pytest.fixture
def job_ends_in(tmp_path, monkeypatch):
    """``job_ends_in(seconds)``"""

    def announce(seconds):
        monkeypatch.setenv(ending.VARIABLE, str(tmp_path / "ending"))
        ending.announce(tmp_path / "ending", seconds)

    return announce


def checkpoint(saved=None, calculators=None, keep=lambda _: None):
    return Checkpoint(np.random.default_rng(3), calculators or {}, 7, saved, keep)


def test_nothing_is_loaded_where_nothing_was_saved():
    assert checkpoint().load() is None


def test_structure_and_state_come_back():
    atoms = CU.copy()
    atoms.set_momenta([[1.0, 2.0, 3.0]])
    atoms.info["name"] = "a"
    state = {
        "step": 3,
        "energies": [1.5, float("inf")],
        "array": np.arange(6.0).reshape(2, 3),
        "other": CU,
        4: (1, None),
    }
    first = checkpoint()
    first.save(atoms, state)
    for again in (first, checkpoint(first.saved)):
        found, told = again.load()
        assert found == atoms
        assert found.info == atoms.info
        assert np.array_equal(found.get_momenta(), atoms.get_momenta())
        assert told["energies"] == state["energies"]
        assert told[4] == (1, None)
        assert np.array_equal(told["array"], state["array"])
        assert told["other"] == CU


def test_generators_go_on_as_if_nothing_had_happened():
    def draw(rng):
        return rng.random(), rng.spawn(1)[0].random(), random.random(), np.random.normal(), random.gauss(0, 1)  # noqa: NPY002

    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    rng = np.random.default_rng(3)
    draw(rng)
    first = Checkpoint(rng, {}, 7)
    first.save(CU)
    went_on = draw(rng)
    first.load()  # back, here
    assert draw(rng)[0] == went_on[0]
    elsewhere = np.random.default_rng(3)
    Checkpoint(elsewhere, {}, 7, first.saved).load()
    assert draw(elsewhere) == went_on


def test_calculators_are_prepared_alike_here_and_elsewhere_and_not_twice():
    here, there = Calculator(), Calculator()
    first = checkpoint(calculators={"": here})
    first.save(CU)
    first.load()
    first.save(CU)
    assert len(here.seeds) == len(set(here.seeds)) == 2
    checkpoint(first.saved, {"": there}).load()
    assert there.seeds == here.seeds[1:]
    here.prepared = None  # it has calculated
    first.load()
    assert here.seeds[2] == here.seeds[1]


def test_a_calculator_that_was_started_anew_spoils_the_save():
    calculator = Calculator()
    it = checkpoint(calculators={"": calculator})
    it.save(CU)
    calculator.interrupted = True
    with pytest.raises(CalculatorForgot):
        it.save(CU)
    assert it.saved.number == 1


@pytest.mark.parametrize(
    ("atoms", "state", "said"),
    [
        (CU, {"f": lambda: 1}, r"function has no portable form.*plain data.*made again from it after load"),
        (CU, np.random.default_rng(), "Generator has no portable form"),
        ({"a": 1}, CU, r"save\(dict\): give Atoms first"),
    ],
)
def test_what_is_no_plain_data_is_refused(atoms, state, said):
    it = checkpoint()
    with pytest.raises(ProtocolError, match=said):
        it.save(atoms, state)
    assert it.saved is None


def test_what_was_saved_before_is_loaded_before_more_is_saved():
    first = checkpoint()
    first.save(CU)
    first.save(CU)
    again = checkpoint(first.saved)
    with pytest.raises(ProtocolError, match=r"load\(\) first"):
        again.save(CU)
    again.load()
    again.save(CU)
    assert again.saved.number == 3


def test_outputs_come_after_the_last_save():
    it = checkpoint()
    it.gave = True
    with pytest.raises(ProtocolError, match="after the last save"):
        it.save(CU)


def test_it_stops_when_the_worker_ends_and_keeps_what_was_saved(job_ends_in):
    kept = []
    it = checkpoint(keep=kept.append)
    job_ends_in(1000)
    it.save(CU)
    assert not it.should_stop()
    job_ends_in(HOME_SECONDS / 2)
    assert it.should_stop()
    assert not it.stopped
    with pytest.raises(CallInterrupted):
        it.save(CU, "last")
    assert it.stopped
    assert it.load()[1] == "last"
    assert [saved.number for saved in kept] == [1, 2]


def test_without_an_ending_nothing_ever_stops():
    it = checkpoint()
    it.save(CU)
    assert not it.should_stop()


def test_it_stops_as_long_before_the_end_as_its_own_rhythm_asks(job_ends_in, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("mlipcluster.checkpoint.time.perf_counter", lambda: now[0])
    it = checkpoint()
    for passed, left, stops in ((10, 1000, False), (40, 100, False), (10, needed(40) - 1, True)):
        now[0] += passed
        job_ends_in(left)
        assert it.should_stop() == stops


def test_a_long_beginning_is_forgotten(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("mlipcluster.checkpoint.time.perf_counter", lambda: now[0])
    rhythm = Rhythm()
    for passed in (100.0, *[1.0] * 8):
        now[0] += passed
        rhythm.beat()
    assert rhythm.stride == 1.0


def test_parts_add_up(monkeypatch):
    first = checkpoint()
    first.save(CU)
    second = checkpoint(first.saved)
    second.load()
    second.save(CU)
    assert second.saved.number == 2
    assert second.saved.parts[0] == first.saved.parts[0]
    assert len(second.parts()) == 2
