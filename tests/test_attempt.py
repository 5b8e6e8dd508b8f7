"""Calls that save themselves, and what can go wrong between two saves."""

from __future__ import annotations

import contextlib
import hashlib
import pickle

import cloudpickle
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from mlipcluster.attempt import Watcher
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.calls import Call, Job, TaskInfo
from mlipcluster.checkpoint import HOME_SECONDS
from mlipcluster.deploy import ending
from mlipcluster.execute import Executor

CU = bulk("Cu", cubic=True)
SPEC = CalculatorSpec("ase.calculators.emt:EMT")


class Lent(EMT):
    """A lent calculator whose process may be made to have ended."""

    interrupted = False
    prepared = None

    def prepare(self, seed):
        self.reset()
        self.interrupted, self.prepared = False, seed


class Pool:
    @contextlib.contextmanager
    def lease(self, spec, seed=None):
        yield Lent()


@pytest.fixture
def execute():
    """``execute(protocol, checkpoint=None) -> (result, saves)``"""

    def execute(protocol, checkpoint=None, clock=lambda *_: None):
        blob = cloudpickle.dumps((protocol, None))
        job = Job("run", blob, hashlib.sha256(blob).hexdigest(), {"": SPEC}, 7)
        call = Call(TaskInfo("k" * 32, "task 0", 0, 0, (), "p"), pickle.dumps(CU), {}, checkpoint=checkpoint)
        saves = []
        return Executor(Pool()).run(job, call, Watcher(clock, saves.append)), saves

    return execute


@pytest.fixture
def ends(tmp_path, monkeypatch):
    """``ends(seconds)``: the job does."""
    monkeypatch.setenv(ending.VARIABLE, str(tmp_path / "ending"))
    return lambda seconds: ending.announce(tmp_path / "ending", seconds)


def test_a_save_after_an_output_is_refused(execute):
    def protocol(atoms, checkpoint):
        checkpoint.save(atoms)
        yield None
        checkpoint.save(atoms)
        yield atoms
        checkpoint.save(atoms)

    result, saves = execute(protocol)
    assert len(saves) == 2
    assert "ProtocolError" in result.failure.type_name
    assert "after an output" in result.failure.message
    assert not result.interrupted


def test_a_protocol_that_swallows_its_interruption_is_interrupted_all_the_same(execute, ends):
    def protocol(atoms, checkpoint):
        try:
            checkpoint.save(atoms, 1)
        except BaseException:
            atoms.info["swallowed"] = True
        return atoms

    ends(HOME_SECONDS / 2)
    result, saves = execute(protocol)
    assert result.interrupted
    assert result.products == ()
    assert result.failure is None
    assert result.checkpoint == saves[0]


def test_what_was_saved_before_a_calculator_was_lost_is_not_done_again(execute):
    made = []

    def protocol(atoms, calc, checkpoint):
        found = checkpoint.load()
        done = found[1] if found else 0
        while done < 3:
            done += 1
            made.append(done)
            if len(made) in (2, 4):
                calc.interrupted = True  # its process ended, and the protocol made nothing of it
            checkpoint.save(atoms, done)
        atoms.info["made"] = made.copy()
        return atoms

    result, _ = execute(protocol)
    assert result.failure is None
    assert result.products[0].scores["made"] == [1, 2, 2, 3, 3]
    assert len(result.parts) == 3


def test_a_calculator_that_is_lost_again_and_again_is_a_failure(execute):
    def protocol(atoms, calc, checkpoint):
        if checkpoint.load() is None:
            checkpoint.save(atoms)
        calc.interrupted = True
        raise RuntimeError("lost")

    result, saves = execute(protocol)
    assert result.failure.message == "lost"
    assert len(saves) == 1


def test_saving_where_it_already_stood_is_not_getting_on(execute):
    """A loop that saves at its top saves once more what it has just loaded."""
    tries = []  # of the copy that the executor unpickles

    def protocol(atoms, calc, checkpoint):
        found = checkpoint.load()
        for done in range(found[1] if found else 0, 3):
            checkpoint.save(atoms, done)
            tries.append(done)
            if done == 1:
                calc.interrupted = len(tries) < 20
                raise RuntimeError(f"this structure ends the calculator's process: {tries}")

    result, _ = execute(protocol)
    assert result.failure.message.endswith("process: [0, 1, 1]")


def test_a_call_that_lost_its_calculator_shortly_before_the_end_goes_on_elsewhere(execute, ends):
    def protocol(atoms, calc, checkpoint):
        checkpoint.save(atoms, 1)
        calc.interrupted = True
        end_now()
        raise RuntimeError("the calculator was ended with its job")

    def end_now():
        ends(HOME_SECONDS / 2)

    ends(1000)
    result, saves = execute(protocol)
    assert result.interrupted
    assert result.checkpoint == saves[0]


def test_times_are_those_of_all_parts(execute):
    used = []

    def protocol(atoms, checkpoint):
        checkpoint.load()
        checkpoint.save(atoms)
        return atoms

    first, saves = execute(protocol)
    assert first.parts == ()
    assert first.stride > 0
    second, later = execute(protocol, saves[0], lambda running, seconds: used.append((running, seconds)))
    assert later[0].number == 2
    assert second.parts[0] == saves[0].parts[0]
    assert second.started == saves[0].parts[0].started
    assert second.seconds == sum(part.seconds for part in second.parts)
    assert used == [(True, saves[0].parts[0].seconds), (False, 0.0)]
