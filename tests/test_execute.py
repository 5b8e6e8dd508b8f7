from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import random
import threading
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.calls import Call, Job, TaskInfo
from mlipcluster.distribute import exception_of
from mlipcluster.errors import TaskError
from mlipcluster.execute import Executor, Wishes, describe_failure, scores_of
from mlipcluster.records.packing import decode
from mlipcluster.records.seeds import call_seed

CU = bulk("Cu", cubic=True)
SPEC = CalculatorSpec("ase.calculators.emt:EMT")


class Pool:
    """Lends EMT of this process, and keeps count."""

    def __init__(self):
        self.leased = []
        self.lent = 0

    @contextlib.contextmanager
    def lease(self, spec, seed=None):
        self.leased.append((spec, seed))
        self.lent += 1
        try:
            yield EMT()
        finally:
            self.lent -= 1

    def provenance(self, spec):
        raise RuntimeError("gone")


def job(protocol, keep=None, **changes):
    blob = changes.pop("blob", None) or cloudpickle.dumps((protocol, keep))
    values = {
        "run": "run",
        "protocol": blob,
        "protocol_digest": hashlib.sha256(blob).hexdigest(),
        "calculators": {},
        "seed": 7,
        "last": False,
    }
    return Job(**{**values, **changes})


def call(atoms=CU, seed=None, calculator="", key="k" * 32, **kwargs):
    info = TaskInfo(key, "task 0", 0, 0, (), "protocol", calculator)
    return Call(info, None if atoms is None else pickle.dumps(atoms), kwargs, seed)


@pytest.fixture(scope="module")
def executor():
    return Executor(Pool())


@pytest.fixture
def execute(executor):
    def execute(protocol, *, keep=None, atoms=CU, job_options=(), **kwargs):
        result = executor.run(job(protocol, keep, **dict(job_options)), call(atoms, **kwargs))
        assert executor._pool.lent == 0
        return result

    return execute


def outputs(result):
    assert result.failure is None, result.failure.traceback
    return [decode(product.packed) for product in result.products]


# --- what protocols may return ---------------------------------------------------------------------------------------


def one(atoms):
    return atoms


def nothing(atoms):
    pass


def several(atoms):
    return [atoms, None, {"a": 1}, atoms.copy()]


def yields(atoms):
    for number in range(3):
        atoms.info["number"] = number
        yield atoms  # the same object, changed in between
    yield {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("protocol", "count", "updates"),
    [(one, 1, {}), (nothing, 0, {}), (several, 2, {"a": 1}), (yields, 3, {"a": 1, "b": 2})],
)
def test_what_a_protocol_gives(execute, protocol, count, updates):
    result = execute(protocol)
    assert (len(result.products), result.updates, result.failure) == (count, updates, None)


def test_each_yield_is_kept_as_it_was_then(execute):
    assert [atoms.info["number"] for atoms in outputs(execute(yields))] == [0, 1, 2]


def two_dicts(atoms):
    yield {"a": 1}
    yield {"b": 1}


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        (lambda atoms: "a string", "the protocol gave a str; a protocol returns or yields Atoms, None"),
        (lambda atoms: [atoms, 7], "the protocol gave a int"),
        (lambda atoms: "", "the protocol gave a str"),
        (lambda atoms: 0, "the protocol gave a int"),
        (
            lambda atoms: {"a": np.random.default_rng()},
            "'a' is a numpy.random._generator.Generator, which has no stable",
        ),
        (lambda atoms: iter([atoms]), "the protocol gave a list_iterator"),
        (two_dicts, "more than one dict"),
    ],
)
def test_what_a_protocol_must_not_give(execute, protocol, words):
    result = execute(protocol)
    assert words in result.failure.message
    assert result.products == ()
    assert result.updates == {}


def test_a_failure_half_way_keeps_nothing(execute):
    def protocol(atoms):
        yield atoms
        yield {"a": 1}
        raise KeyError("half way")

    result = execute(protocol)
    assert (result.products, result.updates, result.failure.type_name) == ((), {}, "KeyError")


# --- the filter ------------------------------------------------------------------------------------------------------


def many(atoms):
    for number in range(4):
        yield Atoms("H" * number, np.zeros((number, 3)))


def test_empty_structures_are_dropped_unless_wanted(execute):
    assert [p.index for p in execute(many).products] == [1, 2, 3]
    assert [p.index for p in execute(many, job_options={"drop_empty": False}).products] == [0, 1, 2, 3]


def test_a_filter_leaves_the_numbers_of_what_it_keeps(execute):
    result = execute(many, keep=lambda atoms: len(atoms) in (1, 3))
    assert [(p.index, len(a)) for p, a in zip(result.products, outputs(result), strict=True)] == [(1, 1), (3, 3)]


def test_a_filter_that_fails_is_a_failure_of_the_call(execute):
    assert execute(one, keep=lambda atoms: atoms.info["missing"]).failure.message == "'missing'"


# --- what protocols may ask for --------------------------------------------------------------------------------------


def asks(atoms, calc, calculators, seed, rng, scratch, task, own, other=5):
    atoms.info.update(
        calc=type(calc).__name__,
        calculators=sorted(calculators),
        seed=seed,
        drawn=rng.random(),
        scratch=str(scratch),
        empty=not os.listdir(scratch),
        key=task.key,
        protocol=task.protocol,
        own=own,
        other=other,
    )
    (scratch / "file").write_text("x")
    return atoms


def test_a_protocol_gets_what_its_signature_asks_for(execute):
    options = {"calculators": {"a": SPEC, "b": SPEC.replace(threads=2)}}
    (atoms,) = outputs(execute(asks, job_options=options, calculator="a", own=[1, 2]))
    seed = call_seed(7, "k" * 32, 0, 0, ())
    assert atoms.info["calc"] == "EMT"
    assert atoms.info["calculators"] == ["a", "b"]
    assert atoms.info["seed"] == seed
    assert (atoms.info["own"], atoms.info["other"]) == ([1, 2], 5)
    assert (atoms.info["key"], atoms.info["protocol"]) == ("k" * 32, "protocol")
    assert atoms.info["empty"]
    assert not os.path.exists(atoms.info["scratch"])


def test_scratch_is_where_the_user_wants_it_and_gone_after_a_failure(execute, tmp_path):
    def protocol(atoms, scratch):
        (scratch / "x").write_text("x")
        raise RuntimeError(str(scratch))

    result = execute(protocol, job_options={"scratch_dir": str(tmp_path)})
    assert Path(result.failure.message).parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_only_calculators_that_are_asked_for_are_leased():
    pool = Pool()
    executor = Executor(pool)
    options = {"calculators": {"a": SPEC, "b": SPEC.replace(threads=2)}}
    executor.run(job(one, **options), call())
    assert pool.leased == []

    def calc_only(atoms, calc):
        return atoms

    executor.run(job(calc_only, **options), call(calculator="b"))
    assert [spec.threads for spec, _ in pool.leased] == [2]


def test_keyword_arguments_that_a_protocol_does_not_take_are_for_another(execute):
    assert execute(one, unknown=1).failure is None


def test_all_go_to_a_protocol_that_takes_any(execute):
    def protocol(atoms, **kwargs):
        atoms.info["names"] = sorted(kwargs)
        return atoms

    (atoms,) = outputs(execute(protocol, x=1))
    assert atoms.info["names"] == ["calculators", "checkpoint", "rng", "scratch", "seed", "task", "x"]


def test_the_tasks_own_argument_comes_first(executor):
    def protocol(atoms, scratch):
        atoms.info["scratch"] = scratch
        return atoms

    own = Call(call().task, call().structure, {"scratch": "mine"})
    (atoms,) = outputs(executor.run(job(protocol), own))
    assert atoms.info["scratch"] == "mine"


def test_a_protocol_without_structure(execute):
    def build(x):
        return Atoms("H" * x, np.zeros((x, 3)))

    (atoms,) = outputs(execute(build, atoms=None, x=3))
    assert len(atoms) == 3


def test_a_default_of_the_first_parameter_holds_where_there_is_no_structure(execute):
    def build(symbol="Au", a=4.0):
        return bulk(symbol, "fcc", a)

    (atoms,) = outputs(execute(build, atoms=None, a=4.1))
    assert atoms == bulk("Au", "fcc", 4.1)

    def tell(atoms):
        assert atoms is None
        return CU

    outputs(execute(tell, atoms=None))


def test_a_pinned_seed_is_the_seed():
    def protocol(atoms, seed, rng):
        atoms.info.update(seed=seed, drawn=rng.random())
        return atoms

    executor = Executor(Pool())
    free = executor.run(job(protocol), call())
    pinned = executor.run(job(protocol, seed=123), call(seed=free.seed))
    assert pinned.seed == free.seed
    assert free.products[0].digest == pinned.products[0].digest


# --- the same answer whatever ran before -----------------------------------------------------------------------------


def draws(atoms, rng):
    atoms.info["drawn"] = [rng.random(), random.random(), np.random.random()]  # noqa: NPY002 - users' code does
    return atoms


def test_random_numbers_do_not_depend_on_what_ran_before(execute):
    first = execute(draws)
    execute(draws, key="0" * 32)
    again = execute(draws)
    other = Executor(Pool()).run(job(draws), call())
    assert first.products[0].digest == again.products[0].digest == other.products[0].digest
    assert execute(draws, key="0" * 32).products[0].digest != first.products[0].digest


def test_what_a_call_does_to_its_arguments_is_its_own(executor):
    def protocol(atoms, parameters):
        parameters["n"] += 1
        atoms.info["n"] = parameters["n"]
        atoms.positions += 1
        return atoms

    shared = {"n": 0}
    calls = [call(parameters=shared), call(parameters=shared)]
    results = [executor.run(job(protocol), c) for c in calls]
    assert [outputs(r)[0].info["n"] for r in results] == [1, 1]
    assert results[0].products[0].digest == results[1].products[0].digest
    assert shared == {"n": 0}


def test_results_of_a_calculator_that_went_on_are_not_taken_for_the_structure(execute):
    def protocol(atoms):
        other = atoms.copy()
        other.rattle(0.1)
        atoms.calc = other.calc = EMT()
        atoms.get_potential_energy()
        other.get_potential_energy()  # the calculator's results are now those of the other
        moved = other.copy()
        moved.calc = other.calc
        moved.positions[0] += 0.3
        return [atoms, other, moved]

    first, second, third = outputs(execute(protocol))
    assert first.calc is None
    assert second.calc.results["energy"] > 0
    assert third.calc is None


def test_the_next_protocol_gets_the_results_too(execute):
    def protocol(atoms):
        atoms.calc = EMT()
        atoms.get_forces()
        return atoms

    (product,) = execute(protocol).products
    passed_on = pickle.loads(product.structure)
    assert passed_on.calc.results["energy"] == decode(product.packed).calc.results["energy"]
    (last,) = execute(protocol, job_options={"last": True}).products
    assert last.structure == b""
    assert last.digest == product.digest


def test_another_energy_is_another_output(execute):
    def energy(value):
        def protocol(atoms):
            atoms.calc = SinglePointCalculator(atoms, energy=value)
            return atoms

        return protocol

    digests = {execute(energy(value)).products[0].digest for value in (1.0, 2.0)}
    assert len(digests) == 2


# --- failures --------------------------------------------------------------------------------------------------------


class RefusedError(Exception):
    def __init__(self, reason, code):
        super().__init__(f"refused: {reason}")
        self.code = code


class SilentError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class HoldingError(Exception):
    def __init__(self):
        super().__init__("holds a lock")
        self.lock = threading.Lock()


def raising(error):
    def protocol(atoms):
        raise error

    return protocol


def test_an_exception_comes_back_as_it_was_raised(execute):
    failure = execute(raising(ZeroDivisionError("by nought"))).failure
    error = exception_of(failure)
    assert (type(error), str(error)) == (ZeroDivisionError, "by nought")
    assert "in protocol" in str(error.__cause__)


def test_an_exception_with_a_constructor_of_its_own_comes_back():
    error = exception_of(describe_failure(RefusedError("why", 3)))
    assert type(error) is RefusedError
    assert (str(error), error.code) == ("refused: why", 3)


def test_an_exception_that_cannot_travel_is_told_in_words():
    error = exception_of(describe_failure(HoldingError()))
    assert type(error) is TaskError
    assert "HoldingError: holds a lock" in str(error)


def test_an_exception_without_words_is_still_a_failure():
    failure = describe_failure(SilentError())
    assert failure.type_name.endswith("SilentError")
    assert "SilentError" in failure.message


def test_sys_exit_is_a_failure_and_never_ends_the_driver(execute):
    failure = execute(raising(SystemExit(0))).failure
    assert failure.type_name == "SystemExit"
    error = exception_of(failure)
    assert type(error) is TaskError
    assert "SystemExit" in str(error)


def test_a_calculator_that_cannot_be_leased_is_a_failure_of_the_call():
    class Broken(Pool):
        def lease(self, spec, seed=None):
            raise OSError("no calculator")

    def protocol(atoms, calc):
        return atoms

    result = Executor(Broken()).run(job(protocol, calculators={"": SPEC}), call())
    assert (result.failure.type_name, result.failure.message) == ("OSError", "no calculator")


def test_a_protocol_that_cannot_be_loaded_is_a_failure(executor):
    broken = job(one, blob=cloudpickle.dumps((one, None))[:-10])
    assert executor.run(broken, call()).failure is not None
    assert executor.run(job(one), call()).failure is None


def test_interrupts_are_not_swallowed(executor):
    with pytest.raises(KeyboardInterrupt):
        executor.run(job(raising(KeyboardInterrupt())), call())


# --- signatures ------------------------------------------------------------------------------------------------------


def keyword_only(*, atoms, x):
    return atoms


def starred(*args, x=1):
    return args[0]


@pytest.mark.parametrize(
    ("protocol", "kwargs", "takes"),
    [
        (one, {}, True),
        (lambda calc: calc, {}, False),
        (lambda x: x, {"x": 1}, False),
        (lambda structure, x: x, {"x": 1}, True),
        (keyword_only, {"x": 1}, False),
        (starred, {}, True),
    ],
)
def test_whether_the_first_parameter_is_the_structure(protocol, kwargs, takes):
    assert Wishes.of(protocol).takes_atoms(kwargs) is takes


# --- scores ----------------------------------------------------------------------------------------------------------


def test_scores():
    atoms = CU.copy()
    atoms.calc = SinglePointCalculator(atoms, energy=-1.5, forces=[[0, 3, 4]] + [[0, 0, 1]] * 3)
    atoms.info.update(
        barrier=np.float64(0.5),
        count=np.int64(3),
        flag=np.bool_(True),
        vector=np.arange(3),
        names=["a", "b"],
        text="x",
        missing=float("nan"),
        big=np.zeros(1000),
        nested={"a": 1},
        thing=object(),
        none=None,
        energy=99.0,
    )
    assert scores_of(atoms) == {
        "formula": "Cu4",
        "natoms": 4,
        "energy": -1.5,
        "max_force": 5.0,
        "barrier": 0.5,
        "count": 3,
        "flag": True,
        "vector": [0, 1, 2],
        "names": ["a", "b"],
        "text": "x",
        "missing": pytest.approx(float("nan"), nan_ok=True),
    }
    assert type(scores_of(atoms)["count"]) is int


def test_fixed_atoms_have_no_force_to_speak_of():
    from ase.constraints import FixAtoms

    atoms = CU.copy()
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=[[0, 3, 4]] + [[0, 0, 1]] * 3)
    atoms.set_constraint(FixAtoms([0]))
    assert scores_of(atoms)["max_force"] == 1.0


def test_scores_without_a_calculator():
    assert scores_of(Atoms("H")) == {"formula": "H", "natoms": 1}
