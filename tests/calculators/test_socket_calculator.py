from __future__ import annotations

import copy
import gc
import io
import pickle
import threading
import time

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError, SCFError, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import SumCalculator

from mlipcluster.calculators.connection import Connection
from mlipcluster.calculators.pool import CalculatorPool
from mlipcluster.calculators.registry import resolve
from mlipcluster.calculators.snapshot import Snapshot
from mlipcluster.calculators.socket_calculator import SocketCalculator
from mlipcluster.errors import CalculatorError, InputError, MLIPClusterError, RemoteCalculatorError, StructureError
from mlipcluster.records.packing import freeze
from mlipcluster.socket_worker.wire import Message


@pytest.fixture(scope="module")
def pool():
    with CalculatorPool(keep=20) as pool:
        yield pool


@pytest.fixture
def lent(pool):
    """A calculator on a warm worker; what the test leaves behind, the next lease must not see."""
    with pool.lease(resolve("emt")) as calculator:
        yield calculator


def trips(calculator, monkeypatch):
    """Properties of each request that goes out from now on."""
    asked = []
    exchange = calculator.host.exchange

    def watched(head, body):
        import json

        header = json.loads(bytes(head[32:]))
        asked.append((header.get("properties"), sorted(name for name, *_ in header.get("arrays", ()))))
        return exchange(head, body)

    monkeypatch.setattr(calculator.host, "exchange", watched)
    return asked


# What travels


def test_everything_that_a_calculator_may_read_arrives(pool, trial):
    atoms = molecule("CH4", vacuum=3.0)
    atoms.set_initial_magnetic_moments(np.arange(15.0).reshape(5, 3))
    atoms.set_initial_charges([0.1, -0.0, 1e300, 1e-320, 5])
    atoms.set_tags([3, 2, 1, 0, -1])
    atoms.info.update(charge=-1, spin=2, colour="red")
    with pool.lease(trial("Tells", info_keys=["charge", "field"])) as calculator:
        atoms.info["field"] = np.array([0.1, 0.2, 0.3], np.float32)
        told = tell(calculator, atoms)
        assert told["arrays"].keys() == {"numbers", "positions", "initial_magmoms", "initial_charges", "tags"}
        for name, values in told["arrays"].items():
            np.testing.assert_array_equal(np.array(values), atoms.arrays[name])
        assert told["cell"] == atoms.cell.tolist()
        assert told["pbc"] == [False] * 3
        assert told["info"] == {"charge": -1, "field": atoms.info["field"].tolist()}
        assert told["types"] == {"charge": "int", "field": "ndarray"}


def tell(calculator, atoms):
    calculator.calculate(atoms, ["told"])
    return calculator.results["told"]


def test_changes_of_what_travels_are_seen(pool, trial, cu):
    with pool.lease(trial("Tells")) as calculator:
        assert tell(calculator, cu)["info"] == {}
        for change, where, expected in (
            (lambda: cu.info.update(charge=1), ("info",), {"charge": 1}),
            (lambda: cu.info.update(spin=3), ("info",), {"charge": 1, "spin": 3}),
            (cu.info.clear, ("info",), {}),
            (lambda: cu.set_tags([1, 2, 3, 4]), ("arrays", "tags"), [1, 2, 3, 4]),
            (lambda: cu.set_initial_magnetic_moments([1] * 4), ("arrays", "initial_magmoms"), [1.0] * 4),
            (lambda: cu.set_initial_magnetic_moments([2] * 4), ("arrays", "initial_magmoms"), [2.0] * 4),
            (lambda: cu.set_initial_magnetic_moments(None), ("arrays", "initial_magmoms"), None),
            (lambda: cu.set_pbc(False), ("pbc",), [False] * 3),
            (lambda: cu.symbols.__setitem__(slice(None), "Au"), ("arrays", "numbers"), [79] * 4),
            (cu.pop, ("arrays", "numbers"), [79] * 3),
            (lambda: cu.append("H"), ("arrays", "numbers"), [79, 79, 79, 1]),
        ):
            change()
            assert calculator.check_state(cu) or where[-1] == "tags"
            found = tell(calculator, cu)
            for key in where:
                found = found.get(key) if isinstance(found, dict) else found
            assert found == expected


def test_every_kind_of_result_comes_back_as_it_was(pool, trial, cu):
    with pool.lease(trial("Tells")) as calculator:
        cu.set_initial_magnetic_moments([1, 2, 3, 4])
        tell(calculator, cu)
        results = calculator.results
    expected = {
        "magmoms": np.array([1, 2, 3, 4], np.float32),
        "charges": np.array([[0.0, 2.0], [3.0, 5.0]]),
        "dipole": np.array([1.5, -0.0, np.nan]),
        "stress": np.eye(3),
        "half": np.float16(0.5),
        "complex": np.array([1 + 2j]),
        "switch": np.array([True, False]),
        "empty": np.zeros((0, 3)),
        "zero dimensions": np.array(3.25),
    }
    for name, value in expected.items():
        found = results[name]
        assert type(found) is type(value), name
        assert (found.dtype, found.shape, found.tobytes()) == (value.dtype, value.shape, value.tobytes()), name
    assert (results["whole"], results["text"], results["nothing"]) == (7, "ä", None)
    assert type(results["negative zero"]) is float
    assert np.signbit(results["negative zero"])
    assert results["infinite"] == float("inf")
    assert set(calculator.lost_results) == {"object", "objects", "long double"}


def test_results_do_not_change_afterwards(lent, cu):
    cu.calc = lent
    kept = lent.results, cu.get_forces(), lent.results["forces"]
    before = kept[1].copy()
    kept[1][0] = 7.0
    assert (cu.get_forces() == before).all()
    cu.rattle(0.1)
    cu.get_forces()
    assert (kept[2] == before).all()


# Trips


def test_all_results_of_a_step_come_in_one_trip(lent, cu, monkeypatch):
    asked = trips(lent, monkeypatch)
    cu.calc = lent
    for _ in range(3):
        cu.rattle(0.01)
        cu.get_potential_energy()
        cu.get_forces()
        cu.get_stress()
    usual = ["energy", "forces"]
    assert asked == [(usual, ["cell", "numbers", "pbc", "positions"]), (usual, ["positions"]), (usual, ["positions"])]


def test_what_is_computed_on_request_only_comes_in_one_trip_from_the_second_step_on(pool, trial, cu, monkeypatch):
    with pool.lease(trial("FailsForStress")) as calculator:
        asked = trips(calculator, monkeypatch)
        cu.calc = calculator
        for _ in range(3):
            cu.rattle(0.01)
            cu.get_potential_energy()
            cu.get_stress()
    assert [properties for properties, _ in asked] == [["energy", "forces"], *[["energy", "forces", "stress"]] * 3]


def test_only_what_changed_is_sent(lent, cu, monkeypatch):
    cu.calc = lent
    cu.get_potential_energy()
    asked = trips(lent, monkeypatch)
    cu.set_cell(cu.cell * 1.01, scale_atoms=True)
    cu.get_potential_energy()
    cu.set_cell(cu.cell * 1.01)
    cu.get_potential_energy()
    cu.wrap()
    cu.get_potential_energy()
    cu.symbols[0] = "Au"
    cu.get_potential_energy()
    lent.reset()
    cu.get_potential_energy()
    assert [arrays for _, arrays in asked] == [
        ["cell", "positions"], ["cell"], ["positions"], ["numbers"], ["cell", "numbers", "pbc", "positions"]
    ]  # fmt: skip


def test_positions_of_another_kind_of_number_are_sent_as_such(lent, cu):
    atoms = cu.copy()
    lent.get_property("energy", atoms)
    atoms.positions += 0.01
    lent.get_property("energy", atoms)  # from here on the frame's head is kept
    atoms.arrays["positions"] = atoms.positions.astype("float32") + np.float32(0.01)
    same = cu.copy()
    same.positions[:] = atoms.positions
    assert lent.get_property("energy", atoms) == EMT().get_property("energy", same)


def test_nothing_is_asked_twice(lent, cu, monkeypatch):
    cu.calc = lent
    cu.get_potential_energy()
    asked = trips(lent, monkeypatch)
    assert not lent.calculation_required(cu, ["energy", "forces"])
    other = cu.copy()
    other.calc = lent
    assert other.get_potential_energy() == cu.get_potential_energy()
    assert lent.get_property("energy", cu, allow_calculation=False) is not None
    cu.rattle(0.1)
    assert lent.get_property("energy", cu, allow_calculation=False) is None
    assert lent.calculation_required(cu, ["energy"])
    assert asked == []


def test_two_calculators_on_one_host_do_not_mix_their_structures(emt):
    from mlipcluster.calculators.host import WorkerHost

    with WorkerHost(emt) as host:
        one, two = SocketCalculator(emt, host=host), SocketCalculator(emt, host=host)
        structures = [bulk("Cu", cubic=True), bulk("Au", cubic=True)]
        for atoms, calculator in zip(structures, (one, two), strict=True):
            atoms.calc = calculator
        for turn in range(4):
            for atoms in structures:
                atoms.positions[0, 0] += 0.1 * turn
                expected = atoms.copy()
                expected.calc = EMT()
                assert atoms.get_potential_energy() == pytest.approx(expected.get_potential_energy(), abs=1e-9)


# What cannot be had


def test_a_property_that_the_calculator_lacks_raises(pool, trial, cu):
    with pool.lease(trial("Trial")) as calculator:
        cu.calc = calculator
        for _ in range(2):
            with pytest.raises(PropertyNotImplementedError, match="stress"):
                cu.get_stress()
            cu.get_forces()
        assert "stress" not in calculator.results


def test_a_property_that_is_promised_and_missing_raises(pool, trial, cu):
    with pool.lease(trial("Tells")) as calculator, pytest.raises(PropertyNotImplementedError, match="not present"):
        calculator.get_property("polarization", cu)


def test_what_fails_for_one_structure_does_not_spoil_what_it_can_do(pool, trial, cu):
    with pool.lease(trial("FailsForStress")) as calculator:
        cu.calc = calculator
        assert cu.get_stress().tolist() == [1.0] * 6
        cu.pbc = False
        assert cu.get_potential_energy() == cu.positions.sum()
        with pytest.raises(ValueError, match="no stress without periodicity"):
            cu.get_stress()
        cu.pbc = True
        assert cu.get_stress().tolist() == [1.0] * 6


def test_a_calculation_that_fails_is_not_tried_twice(pool, trial, cu):
    with pool.lease(trial("Fails")) as calculator, pytest.raises(ValueError, match="asked 1 times"):
        calculator.get_property("energy", cu)


@pytest.mark.parametrize(
    ("error", "base", "words"),
    [
        ("KeyError", KeyError, "KeyError: He"),
        ("OSError", FileNotFoundError, "weights.pt"),
        ("SCFError", SCFError, "did not converge"),
        ("own", ZeroDivisionError, "OwnError: my own"),
        ("mute", RemoteCalculatorError, "message could not be had"),
    ],
)
def test_an_exception_of_the_calculator_keeps_its_type_and_traceback(pool, trial, cu, error, base, words):
    with pool.lease(trial("Raises", args=[error])) as calculator:
        pid = calculator.host.pid
        cu.calc = calculator
        for _ in range(2):
            with pytest.raises(base, match=words) as caught:
                cu.get_potential_energy()
            assert isinstance(caught.value, RemoteCalculatorError)
            assert "in work" in caught.value.remote_traceback
        assert calculator.host.pid == pid


def test_an_element_that_the_model_does_not_know(lent):
    with pytest.raises(MLIPClusterError, match="EMT") as caught:
        lent.get_property("energy", bulk("U"))
    assert isinstance(caught.value, (NotImplementedError, KeyError))
    lent.get_property("energy", bulk("Cu"))


def test_a_bad_structure_is_refused_before_it_is_sent(lent, cu, monkeypatch):
    cu.calc = lent
    energy = cu.get_potential_energy()
    good = cu.positions.copy()
    asked = trips(lent, monkeypatch)
    cu.positions[1, 2] = np.nan
    for _ in range(2):
        with pytest.raises(StructureError, match="atom 1"):
            cu.get_potential_energy()
    with pytest.raises(StructureError, match="no atoms"):
        lent.get_property("energy", Atoms())
    with pytest.raises(StructureError, match="without volume"):
        lent.get_property("energy", Atoms("Cu", pbc=True))
    assert asked == []
    cu.positions = good
    assert cu.get_potential_energy() == pytest.approx(energy, abs=1e-12)


def test_without_any_structure(lent):
    with pytest.raises(InputError, match="give atoms"):
        lent.get_property("energy")
    assert lent.atoms is None
    assert lent.check_state(bulk("Cu")) == all_changes


# Calculators of other kinds


@pytest.mark.parametrize(("name", "energy"), [("Cached", 4.0), ("OldStyle", None)])
def test_calculators_of_other_kinds(pool, trial, cu, name, energy):
    with pool.lease(trial(name)) as calculator:
        cu.calc = calculator
        for _ in range(2):
            cu.positions += 0.1
            assert cu.get_potential_energy() == (cu.positions.sum() if energy is None else energy)
            assert cu.get_forces().shape == (4, 3)
        with pytest.raises(PropertyNotImplementedError):
            cu.get_stress()


@pytest.mark.parametrize("name", ["ReadsCharge", "AsksItself"])
def test_a_charge_is_seen_by_calculators_that_answer_themselves_too(pool, trial, cu, name):
    with pool.lease(trial(name)) as calculator:
        cu.calc = calculator
        for charge in (0, 1, -1):
            cu.info["charge"] = charge
            assert cu.get_potential_energy() == charge


def test_methods_that_a_calculator_has_of_its_own_are_what_is_asked(pool, trial, cu):
    with pool.lease(trial("Shifted")) as calculator:
        cu.calc = calculator
        for _ in range(2):
            cu.positions += 0.1
            assert cu.get_forces().shape == (4, 3)
            assert cu.get_potential_energy() == 100.0 + cu.positions.sum()
            assert cu.get_potential_energy(force_consistent=True) == 100.0
            assert cu.get_stress().tolist() == [1.0] * 6
        assert calculator.results["energy"] == 100.0 + cu.positions.sum()


def test_what_a_calculator_still_holds_of_another_structure_does_not_come_along(pool, trial, cu):
    other = cu.copy()
    other.positions += 1.0
    with pool.lease(trial("FillsLazily")) as calculator:
        cu.calc = other.calc = calculator
        assert cu.get_stress()[0] == cu.positions.sum()
        calculator.reset()
        assert other.get_potential_energy() == other.positions.sum()
        assert calculator.results.keys() == {"energy", "forces"}
        assert other.get_stress()[0] == other.positions.sum()


def test_results_that_would_arrive_as_something_else_are_told_as_lost(pool, trial, cu):
    with pool.lease(trial("OddResults")) as calculator:
        cu.calc = calculator
        assert cu.get_potential_energy() == cu.positions.sum()
        assert calculator.results["plain"] == {"one": [2.0, None]}
        assert set(calculator.lost_results) == {"by number", "pair", "('a', 'tuple')"}
        assert calculator.host.restarts == 0


def test_results_that_are_too_many_are_an_error_of_that_calculation_alone(pool, trial, cu):
    with pool.lease(trial("ManyResults")) as calculator:
        cu.calc = calculator
        with pytest.raises(RemoteCalculatorError, match="at most 1024 travel"):
            cu.get_potential_energy()
        cu.positions += 0.1
        assert cu.get_potential_energy() == cu.positions.sum()
        assert calculator.host.restarts == 0


# What users of ASE expect of a calculator


def test_pickles_and_copies_keep_results_and_start_a_process_of_their_own(lent, cu):
    cu.calc = lent
    energy, forces = cu.get_potential_energy(), cu.get_forces()
    for other in (pickle.loads(pickle.dumps(cu)), copy.deepcopy(cu)):
        with other.calc as calculator:
            assert calculator.spec == lent.spec
            assert other.get_potential_energy() == energy
            assert (other.get_forces() == forces).all()
            assert not calculator.host.alive
            assert calculator.atoms == cu
    with pickle.loads(pickle.dumps(cu)).calc as calculator:
        cu.positions[0] += 0.1
        expected = cu.copy()
        expected.calc = EMT()
        assert calculator.get_property("energy", cu) == expected.get_potential_energy()


def test_structures_that_share_a_calculator_each_keep_what_was_found(pool):
    images, energies = [bulk("Cu", a=3.5 + number / 10) for number in range(3)], []
    with pool.lease(resolve("emt")) as calculator:
        for atoms in images:
            atoms.calc = calculator
            energies.append(atoms.get_potential_energy())
    assert [freeze(atoms).get_potential_energy() for atoms in images] == energies
    images[0].rattle(0.1)
    assert freeze(images[0]).calc is None
    assert freeze(images[1].copy()).calc is None


def test_what_one_protocol_call_found_the_next_one_does_not_recall(pool, cu):
    other = cu.copy()
    with pool.lease(resolve("emt")) as calculator:
        cu.calc = other.calc = calculator
        cu.get_potential_energy()
        other.get_potential_energy()
        calculator.prepare()
        assert freeze(cu).calc is None


@pytest.mark.parametrize("file_format", ["extxyz", "traj", "json"])
def test_results_stay_when_tags_change(lent, cu, file_format, tmp_path):
    cu.calc = lent
    energy = cu.get_potential_energy()
    cu.set_tags([1, 2, 3, 4])
    assert not lent.calculation_required(cu, ["energy"])
    assert lent.get_property("energy", cu, allow_calculation=False) == energy
    assert freeze(cu).get_potential_energy() == energy
    ase.io.write(tmp_path / "a", cu, format=file_format)
    assert ase.io.read(tmp_path / "a", format=file_format).get_potential_energy() == pytest.approx(energy, abs=1e-7)


def test_tags_are_sent_when_something_is_asked(pool, trial, cu):
    with pool.lease(trial("Tells")) as calculator:
        tell(calculator, cu)
        cu.set_tags([1, 2, 3, 4])
        assert calculator.get_property("charges", cu) is not None
        assert calculator.results["told"]["arrays"]["tags"] == [1, 2, 3, 4]


def test_results_belong_to_a_structure_whose_info_holds_a_tuple(pool, trial, cu):
    with pool.lease(trial("ReadsCharge", info_keys=["charge", "field"])) as calculator:
        cu.calc = calculator
        cu.info["field"] = (0.0, float("nan"), -1.0)
        cu.get_potential_energy()
        assert not calculator.calculation_required(cu, ["energy"])
        assert freeze(cu).get_potential_energy() == 0.0


def test_parameters_cannot_be_set(lent):
    before = dict(lent.parameters)
    with pytest.raises(InputError, match=r"set\(asap_cutoff=True\); make another"):
        lent.set(asap_cutoff=True)
    assert lent.parameters == before
    assert lent.set() == {}


def test_an_unused_calculator_starts_no_process_and_pickles():
    calculator = SocketCalculator("emt", call_timeout=3)
    other = pickle.loads(pickle.dumps(calculator))
    assert other.spec == calculator.spec
    assert repr(calculator) == "SocketCalculator('emt')"
    assert calculator.name == "emt"
    assert not calculator.host.alive
    calculator.close()


def test_todict_describes_it(lent):
    assert resolve(lent.todict()) == lent.spec


@pytest.mark.parametrize("file_format", ["extxyz", "traj", "json"])
def test_ase_writes_its_results(lent, cu, file_format, tmp_path):
    cu.calc = lent
    energy, forces = cu.get_potential_energy(), cu.get_forces()
    ase.io.write(tmp_path / "a", cu, format=file_format)
    again = ase.io.read(tmp_path / "a", format=file_format)
    assert again.get_potential_energy() == pytest.approx(energy, abs=1e-7)
    assert np.allclose(again.get_forces(), forces, atol=1e-7)


def test_sums_of_calculators(lent, cu):
    cu.calc = SumCalculator([lent, LennardJones()])
    total = cu.get_potential_energy(), cu.get_forces(), cu.get_stress()
    for value, part in zip(total, ("energy", "forces", "stress"), strict=True):
        expected = EMT().get_property(part, cu) + LennardJones().get_property(part, cu)
        assert np.allclose(value, expected)


def test_atoms_is_a_copy_of_what_was_calculated(lent, cu):
    cu.calc = lent
    cu.get_potential_energy()
    before = cu.copy()
    cu.positions[0] += 0.1
    assert lent.atoms == before
    lent.atoms.positions[0] += 7.0
    assert lent.get_atoms() is not lent.atoms
    lent.atoms = None
    assert lent.check_state(before) == all_changes


def test_a_changed_results_dict_is_what_ase_returns(lent, cu):
    """Some of ASE's own code writes there."""
    cu.calc = lent
    cu.get_potential_energy()
    lent.results["energy"] = 5.0
    assert cu.get_potential_energy() == 5.0


def test_several_threads_one_calculator(lent):
    structures = [bulk(name, cubic=True) for name in ("Cu", "Au", "Ag", "Ni")]
    expected = {}
    for atoms in structures:
        atoms.calc = EMT()
        expected[str(atoms.symbols)] = atoms.get_potential_energy()
    answers = []

    def work(atoms):
        answers.extend((str(atoms.symbols), lent.get_property("energy", atoms)) for _ in range(10))

    threads = [threading.Thread(target=work, args=(atoms,)) for atoms in structures]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 40
    assert all(energy == pytest.approx(expected[symbols], abs=1e-10) for symbols, energy in answers)


def test_a_thread_that_asks_for_the_provenance_waits_for_the_calculation(trial, cu, tmp_path, monkeypatch):
    inside, most, answers = [], [], {}
    exchange = Connection.exchange

    def watched(connection, *arguments):
        inside.append(None)
        most.append(len(inside))
        try:
            return exchange(connection, *arguments)
        finally:
            inside.pop()

    monkeypatch.setattr(Connection, "exchange", watched)
    with SocketCalculator(trial("WaitsFor", args=[str(tmp_path / "go")])) as calculator:
        work = {
            "energy": lambda: calculator.get_property("energy", cu),
            "own": calculator.provenance,
            "host's": calculator.host.provenance,
        }
        threads = []
        for name, ask in work.items():
            threads.append(threading.Thread(target=lambda n=name, a=ask: answers.update({n: a()}), daemon=True))
            threads[-1].start()
            while not (tmp_path / "go.begun").exists():
                time.sleep(0.01)
        threading.Timer(0.3, (tmp_path / "go").touch).start()
        for thread in threads:
            thread.join(60)
        assert max(most) == 1
        assert answers.pop("energy") == cu.positions.sum()
        assert {provenance.implemented_properties for provenance in answers.values()} == {("energy", "forces")}


def test_an_answer_to_another_question_is_refused(lent, cu, monkeypatch):
    answer = lent.host.provenance()
    monkeypatch.setattr(lent.host, "exchange", lambda *_: Message(1, {"kind": "provenance", "provenance": answer}, {}))
    with pytest.raises(CalculatorError, match="'provenance' to a calculation"):
        lent.get_property("energy", cu)


def test_it_is_collected_without_the_garbage_collector(emt):
    import weakref

    gc.disable()
    try:
        calculator = SocketCalculator(emt)
        calculator.get_property("energy", bulk("Cu"))
        gone = weakref.ref(calculator)
        del calculator
        assert gone() is None
    finally:
        gc.enable()


def test_errors_end_with_the_remedy(pool):
    with pool.lease(resolve("emt")) as calculator:
        pass
    with pytest.raises(CalculatorError, match="SocketCalculator of your own"):
        calculator.get_property("energy", bulk("Cu"))
    assert io.StringIO(repr(calculator)).read() == "SocketCalculator('emt')"


def test_a_structure_that_was_refused_leaves_nothing_stale(cu):
    with SocketCalculator("emt") as calculator:
        cu.calc = calculator
        cu.get_potential_energy()
        cu.positions[0] += 0.3
        cu.info["charge"] = object()
        with pytest.raises(Exception, match="charge"):
            cu.get_potential_energy()
        cu.info["charge"] = 1
        energy = cu.get_potential_energy()
    fresh = cu.copy()
    fresh.calc = EMT()
    assert energy == fresh.get_potential_energy()


def test_an_interrupted_copy_leaves_nothing_stale(cu, monkeypatch):
    with SocketCalculator("emt") as calculator:
        cu.calc = calculator
        cu.get_potential_energy()
        cu.rattle(0.1, seed=1)
        cu.cell *= 1.01
        with monkeypatch.context() as patch:
            patch.setattr(Snapshot, "_take_array", interrupt_after_one(Snapshot._take_array))
            with pytest.raises(KeyboardInterrupt):
                cu.get_potential_energy()
        energy = cu.get_potential_energy()
    fresh = cu.copy()
    fresh.calc = EMT()
    assert energy == fresh.get_potential_energy()


def test_an_interrupt_while_it_waits_for_its_turn_loses_no_change(cu, monkeypatch):
    class Interrupted:
        def __enter__(self):
            raise KeyboardInterrupt

        def __exit__(self, *_):
            return None

    with SocketCalculator("emt") as cu.calc:
        cu.get_potential_energy()
        cu.rattle(0.1, seed=1)
        with monkeypatch.context() as patch:
            patch.setattr(cu.calc.host, "lock", Interrupted())
            with pytest.raises(KeyboardInterrupt):
                cu.get_potential_energy()
        energy = cu.get_potential_energy()
    fresh = cu.copy()
    fresh.calc = EMT()
    assert energy == fresh.get_potential_energy()


def interrupt_after_one(take):
    """Ctrl-C after the first array was copied."""
    copied = []

    def interrupted(*arguments):
        if copied:
            raise KeyboardInterrupt
        copied.append(take(*arguments))

    return interrupted
