"""A served calculator in the hands of ASE's users: what it remembers, and what it does with many structures."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest
from ase import Atom
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


CHANGES = {
    "positions": lambda atoms, rng: atoms.rattle(0.01, rng=rng),
    "byte order": lambda atoms, rng: atoms.arrays.update(positions=(atoms.positions + rng.normal()).astype(">f8")),
    "precision": lambda atoms, rng: atoms.arrays.update(positions=atoms.positions.astype("<f4")),
    "cell": lambda atoms, rng: atoms.set_cell(atoms.cell * (1 + 0.01 * rng.normal()), scale_atoms=True),
    "pbc": lambda atoms, rng: atoms.set_pbc(rng.random(3) > 0.5),
    "numbers": lambda atoms, rng: atoms.set_atomic_numbers(rng.integers(1, 100, len(atoms))),
    "charges": lambda atoms, rng: atoms.set_initial_charges(rng.normal(size=len(atoms))),
    "no charges": lambda atoms, _: atoms.arrays.pop("initial_charges", None),
    "magmoms": lambda atoms, rng: atoms.set_initial_magnetic_moments(rng.normal(size=(len(atoms), 3))),
    "a number in info": lambda atoms, rng: atoms.info.update(field=rng.normal()),
    "an array in info": lambda atoms, rng: atoms.info.update(field=rng.normal(size=3)),
    "a number of info": lambda atoms, rng: atoms.info.update(field=np.array(rng.normal())),
    "no info": lambda atoms, _: atoms.info.clear(),
    "one atom less": lambda atoms, _: atoms.pop(),
    "one atom more": lambda atoms, rng: atoms.append(Atom("Cu", rng.normal(size=3))),
}


@pytest.mark.parametrize("seed", range(3))
def test_the_structure_that_arrives_is_that_of_now(serve, trial, cu, seed):
    rng, here = np.random.default_rng(seed), serve(tells=trial("Tells", info_keys=("field",)))
    atoms = cu()
    with here.calculator("tells") as calculator:
        for name in rng.choice(list(CHANGES), 150):
            CHANGES[name](atoms, rng)
            if len(atoms) < 2:
                atoms.append("Au")
            told = calculator.get_property("told", atoms)
            assert told["arrays"] == {key: array.tolist() for key, array in atoms.arrays.items()}, name
            assert told["info"] == {key: np.asarray(value).tolist() for key, value in atoms.info.items()}, name
            assert (told["cell"], told["pbc"]) == (atoms.cell.array.tolist(), atoms.pbc.tolist()), name


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
