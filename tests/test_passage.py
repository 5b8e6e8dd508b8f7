from __future__ import annotations

import pytest

from mlipcluster.calls import Call, Job, TaskInfo
from mlipcluster.checkpoint import Saved
from mlipcluster.passage import Passage
from mlipcluster.saves import HERE


@pytest.fixture
def passage():
    calls = tuple(Call(TaskInfo(str(n), "", 0, 0, (), "p"), None, {}, slot=f"slot {n}") for n in range(3))
    passage = Passage(Job("a passage", b"", "", {}, 7), calls)
    yield passage
    passage.leave()


def saved(number):
    return Saved(number, 1.0, (), "{}")


def test_calls_are_run_in_order_and_only_the_one_that_runs_is_told_of(passage):
    for number in range(3):
        assert passage.begin() is None
        assert [running.slot for running in HERE.running("a passage", {})] == [f"slot {number}"]
        assert passage.call.slot == f"slot {number}"
        passage.end(b"result", "printed" if number == 1 else "")
    assert passage.over
    assert passage.printed == {1: "printed"}
    assert HERE.running("a passage", {}) == []


def test_a_call_that_begins_again_does_so_from_its_newest_save(passage):
    passage.begin()
    assert not passage.got_on
    passage.keep(saved(1))
    assert passage.got_on
    assert passage.begin() == saved(1)
    assert not passage.got_on
    passage.end(b"result", "")
    assert not passage.got_on, "that was another call's"
    passage.keep(saved(1))
    assert passage.got_on


def test_what_is_handed_back_is_nobodys(passage):
    passage.begin()
    passage.end(b"result", "")
    passage.halted = True
    assert passage.over
    passage.leave()
    assert HERE.running("a passage", {}) == []
