"""A served calculator in the hands of ASE's users: what it remembers, and what it does with many structures."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest
from ase.calculators.emt import EMT

from mlipcluster.errors import ServerGoneError, StructureError
from mlipcluster.serving.remote_calculator import RemoteCalculator
from mlipcluster.serving.server import Options


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda calculator: pickle.loads(pickle.dumps(calculator))])
def test_a_copy_knows_which_entries_of_info_count(serve, trial, cu, copied):
    here = serve(tells=trial("Tells", info_keys=("field",)))
    atoms = cu()
    atoms.info["field"] = 1.0
    with here.calculator("tells") as calculator:
        assert calculator.get_property("told", atoms)["info"] == {"field": 1.0}
        other = copied(calculator)
    assert not other.check_state(atoms)
    atoms.info["field"] = 5.0
    with other:
        assert other.get_property("told", atoms)["info"] == {"field": 5.0}


@pytest.mark.parametrize("many", [False, True])
def test_another_server_is_told_which_entries_of_info_count_there(serve, trial, cu, many):
    def told(atoms):
        if many:
            return calculator.evaluate([atoms], ("told",))[0]["told"]["info"]
        return calculator.get_property("told", atoms)["info"]

    atoms = cu()
    atoms.info["field"] = 1.0
    here = serve(tells=trial("Tells"))
    with here.calculator("tells") as calculator:
        assert told(atoms) == {}
        here.server.__exit__()
        serve(tells=trial("Tells", info_keys=("field",)))
        atoms.rattle(0.1)
        assert told(atoms) == {"field": 1.0}


def test_a_copy_asks_the_same_server_in_another_folder(serve, cu, monkeypatch, tmp_path):
    here = serve(address=tmp_path / "own" / "s")
    monkeypatch.chdir(tmp_path)
    calculator = RemoteCalculator("emt", "own/s")
    monkeypatch.chdir("/")
    for one in (calculator, copy.deepcopy(calculator), pickle.loads(pickle.dumps(calculator))):
        with one:
            assert one.address == here.address
            one.get_property("energy", cu())


def test_positions_of_another_kind_of_number_are_sent_as_such(serve, cu):
    atoms = cu()
    with serve().calculator(timeout=60) as calculator:
        calculator.get_property("energy", atoms)
        atoms.arrays["positions"] = (atoms.positions + 0.01).astype("float32")
        same = cu()
        same.positions[:] = atoms.positions
        assert calculator.get_property("energy", atoms) == EMT().get_property("energy", same)


def test_closing_waits_for_the_call_of_another_thread(serve, trial, cu, until):
    here, found = serve(slow=trial("Sleeps", args=(1.0,))), []
    large = cu() * (30, 30, 30)
    calculator = here.calculator("slow")

    def ask():
        try:
            found.append(calculator.get_property("energy", large))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    until(lambda: here.workers("busy"))
    calculator.close()
    thread.join()
    assert found == [pytest.approx(large.positions.sum())]


def test_a_time_that_no_kernel_can_wait(serve, cu):
    with serve().calculator(timeout=1e9) as calculator:
        (found,) = calculator.evaluate([cu()])
        assert found["energy"] == calculator.get_property("energy", cu())


def test_of_many_one_that_is_too_large_costs_no_other(serve, cu):
    here = serve(Options(max_request=1000))
    with here.calculator() as calculator:
        first, large, last = calculator.evaluate([cu(), cu() * (4, 4, 4), cu(1)], errors="return")
        assert isinstance(large, StructureError)
        assert "max_request=1000" in str(large)
        assert [first["energy"], last["energy"]] == [calculator.get_property("energy", cu(seed)) for seed in (0, 1)]


def test_what_says_more_in_its_info_than_travels_is_named(serve, trial, cu):
    here = serve(tells=trial("Tells", info_keys=("field",)))
    wordy = cu()
    wordy.info["field"] = "x" * (1 << 24)
    with here.calculator("tells") as calculator:
        plain, refused = calculator.evaluate([cu(), wordy], ("told",), errors="return")
        assert "told" in plain
        assert isinstance(refused, StructureError)
        with pytest.raises(StructureError, match="field in its info"):
            calculator.get_property("told", wordy)


@pytest.mark.parametrize("many", [False, True])
def test_a_server_that_is_about_to_end_is_outlasted(serve, trial, cu, until, many):
    """It refuses whoever asks for as long as it finishes what it works on: that is one loss, not one for each try."""
    slow = trial("Sleeps", args=(2.0,))
    here = serve(slow=slow)
    found = {}

    def ask(key, seed, **options):
        with here.calculator("slow", **options) as calculator:
            try:
                if many:
                    (found[key],) = [one["energy"] for one in calculator.evaluate([cu(seed)], ("energy",))]
                else:
                    found[key] = calculator.get_property("energy", cu(seed))
            except Exception as error:
                found[key] = error

    threads = [threading.Thread(target=ask, args=("running", 0))]
    threads[0].start()
    until(lambda: here.workers("busy"))
    here.server.stop()
    until(lambda: here.server.dispatch.stopping)
    threads.append(threading.Thread(target=ask, args=("refused", 1), kwargs={"retries": 1}))
    threads[1].start()
    here.server._thread.join()
    serve(slow=slow)
    for thread in threads:
        thread.join()
    assert found == {
        "running": pytest.approx(cu(0).positions.sum()),
        "refused": pytest.approx(cu(1).positions.sum()),
    }


def test_what_was_answered_before_the_server_was_lost_for_good_is_kept(serve, trial, cu, until):
    here, found = serve(Options(max_workers=1), slow=trial("Sleeps", args=(1.0,))), []
    structures = [cu(seed) for seed in range(3)]

    def ask():
        with here.calculator("slow", retries=0) as calculator:
            found.extend(calculator.evaluate(structures, ("energy",), errors="return"))

    thread = threading.Thread(target=ask)
    thread.start()
    until(lambda: here.workers("busy"))
    here.server.stop()
    thread.join()
    assert found[0]["energy"] == pytest.approx(structures[0].positions.sum())
    assert [type(one) for one in found[1:]] == [ServerGoneError, ServerGoneError]
