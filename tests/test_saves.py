from __future__ import annotations

import pickle

import pytest

from mlipcluster.checkpoint import Saved
from mlipcluster.saves import Saves


def saved(number):
    return Saved(number, 1.0, (), "{}")


@pytest.fixture
def saves():
    return Saves()


def test_the_driver_is_told_what_it_does_not_know_and_how_long_calls_run(saves):
    saves.begin("run", "a")
    saves.begin("run", "b")
    saves.begin("other", "c")
    saves.keep("run", "a", saved(1))
    saves.keep("run", "a", saved(2))
    told = {running.slot: running for running in saves.running("run", {})}
    assert told.keys() == {"a", "b"}
    assert (told["a"].saved.number, told["b"].saved) == (2, None)
    assert all(running.seconds >= 0 for running in told.values())
    assert {r.slot: r.saved for r in saves.running("run", {"a": 2})} == {"a": None, "b": None}
    assert pickle.loads(pickle.dumps(told["a"])) == told["a"]


def test_a_call_that_begins_again_keeps_what_it_saved_and_one_that_is_over_does_not(saves):
    saves.begin("run", "a")
    saves.keep("run", "a", saved(3))
    saves.begin("run", "a")
    assert saves.newest("run", "a").number == 3
    saves.end("run", "a")
    assert saves.newest("run", "a") is None
    assert saves.running("run", {}) == []
    saves.keep("run", "a", saved(4))  # of a process that has not heard yet
    assert saves.newest("run", "a") is None
