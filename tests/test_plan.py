from __future__ import annotations

import functools
import sys
import threading

import cloudpickle
import numpy as np
import pytest
from ase import Atoms

from mlipcluster.errors import InputError, ProtocolError
from mlipcluster.plan import LARGE_PROTOCOL, ProtocolOptions, check_keywords, plan_protocols


def relax(atoms, calc, fmax=0.02):
    return atoms


def rattle(atoms, rng, amplitude):
    yield atoms


def anything(atoms, **kwargs):
    return atoms


def keep(atoms):
    return True


def plan(*protocols, keep=None, clients=1, **options):
    return plan_protocols(protocols, ProtocolOptions(**options), keep, clients)


def test_a_list_is_as_good_as_arguments():
    assert [p.short_name for p in plan([rattle, relax])] == ["rattle", "relax"]
    assert [p.short_name for p in plan(rattle, relax)] == ["rattle", "relax"]


def test_options_for_each_or_one_for_all():
    steps = [p.step for p in plan(rattle, relax, retries=[0, 2], resources={"GPU": 1}, priorities=[5, None], clients=2)]
    assert [s.retries for s in steps] == [0, 2]
    assert [s.resources for s in steps] == [{"GPU": 1}, {"GPU": 1}]
    assert [s.priority for s in steps] == [5, None]
    steps = [p.step for p in plan(rattle, relax, clients_indices=[0, 1], resources=[None, {"GPU": 1}], clients=2)]
    assert [s.client for s in steps] == [0, 1]
    assert [s.resources for s in steps] == [{}, {"GPU": 1}]


def test_whole_numbers_of_numpy_are_numbers():
    (one,) = plan(relax, retries=np.int64(2), priorities=np.int32(5), clients_indices=np.int64(0))
    assert [type(value) for value in (one.step.retries, one.step.priority, one.step.client)] == [int, int, int]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"retries": [1]}, "retries has 1 entries for 2 protocols; give one for each, or one for all"),
        ({"priorities": [1, 2, 3]}, "priorities has 3 entries"),
        ({"resources": [{"GPU": 1}]}, "resources has 1 entries"),
        ({"retries": -1}, "retries=-1"),
        ({"retries": 0.5}, "retries=0.5"),
        ({"retries": "2"}, "retries='2': give a whole number for each protocol, or one for all"),
        ({"priorities": "high"}, "priorities='high': give a whole number"),
        ({"priorities": [None, 0.5]}, "priorities=0.5"),
        ({"clients_indices": "a"}, "clients_indices='a': give a whole number"),
        ({"clients_indices": 0.0}, "clients_indices=0.0"),
        ({"resources": "GPU"}, "resources='GPU': give names and amounts, such as {'GPU': 1}"),
        ({"resources": {"GPU": "one"}}, "resources={'GPU': 'one'}"),
        ({"clients_indices": 1}, "clients_indices=1, but there are 1 clients"),
        ({"clients_indices": [0, -1]}, "clients_indices=-1"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, words):
    with pytest.raises(InputError) as caught:
        plan(rattle, relax, **options)
    assert words in str(caught.value)


async def coroutine(atoms):
    return atoms


async def generator(atoms):
    yield atoms


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        ("relax", "'relax'"),
        (Atoms, "Atoms is not a protocol; give a function"),
        (7, "7 is not a protocol"),
        (coroutine, "protocol 'coroutine' is asynchronous"),
        (generator, "protocol 'generator' is asynchronous"),
    ],
)
def test_what_is_no_protocol_is_refused(protocol, words):
    with pytest.raises(ProtocolError) as caught:
        plan(protocol)
    assert words in str(caught.value)


def test_no_protocol_at_all():
    with pytest.raises(ProtocolError, match="no protocol was given"):
        plan()
    with pytest.raises(ProtocolError, match="no protocol was given"):
        plan([])


def test_what_cannot_be_pickled_is_named_with_a_remedy():
    lock = threading.Lock()

    def locked(atoms):
        with lock:
            return atoms

    with pytest.raises(ProtocolError, match=r"protocol 'locked' cannot be pickled: TypeError: .*Make what it needs"):
        plan(locked)


def test_a_large_protocol_is_remarked_upon():
    table = bytes(LARGE_PROTOCOL + 1)

    def looking_up(atoms):
        return table and atoms

    with pytest.warns(UserWarning, match="protocol 'looking_up' is 10 MB pickled"):
        plan(looking_up)


def test_partials_and_lambdas_are_protocols():
    fast, named = plan(functools.partial(relax, fmax=0.5), lambda atoms: atoms)
    assert fast.wanted == {"calc"}
    assert "relax" in fast.name
    assert named.wishes.first == "atoms"


def test_the_users_modules_travel_whole(tmp_path, monkeypatch):
    (tmp_path / "my_helpers.py").write_text("def double(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    import my_helpers

    def doubling(atoms, x):
        atoms.info["x"] = my_helpers.double(x)
        return atoms

    (planned,) = plan(doubling)
    assert [module.__name__ for module in planned.modules if "helpers" in module.__name__] == ["my_helpers"]
    monkeypatch.delitem(sys.modules, "my_helpers")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(tmp_path)])
    function, _ = cloudpickle.loads(planned.blob)
    assert function(Atoms("H"), 4).info["x"] == 8
    assert "my_helpers" not in cloudpickle.list_registry_pickle_by_value()  # as it was before


def test_the_filter_is_part_of_what_decides():
    def other(atoms):
        return False

    digests = {plan(relax)[0].digest, plan(relax, keep=keep)[0].digest, plan(relax, keep=other)[0].digest}
    assert len(digests) == 3
    assert plan(relax)[0].digest == plan(relax)[0].source.digest


# --- keyword arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocols", "kwargs"),
    [
        ([relax], {}),
        ([relax], {"fmax": 0.1}),
        ([rattle, relax], {"amplitude": 0.1, "fmax": 0.1}),
        ([rattle], {"amplitude": 0.1, "rng": 1}),
        ([anything], {"whatever": 1}),
        ([rattle, anything], {"amplitude": 0.1, "whatever": 1}),
    ],
)
def test_keywords_that_fit(protocols, kwargs):
    check_keywords(plan(*protocols), kwargs)


@pytest.mark.parametrize(
    ("protocols", "kwargs", "words"),
    [
        ([relax], {"fmaxx": 0.1}, "no protocol takes the keyword argument 'fmaxx'; did you mean 'fmax'"),
        ([relax], {"zzz": 0.1}, "'zzz'; they take atoms, calc, fmax"),
        ([rattle], {}, "protocol 'rattle' needs 'amplitude'; its task does not bring it"),
        ([rattle, relax], {"fmax": 1}, "protocol 'rattle' needs 'amplitude'"),
    ],
)
def test_keywords_that_do_not_fit(protocols, kwargs, words):
    with pytest.raises(ProtocolError) as caught:
        check_keywords(plan(*protocols), kwargs)
    assert words in str(caught.value)


def test_a_later_protocol_may_get_its_arguments_from_an_earlier_one():
    check_keywords(plan(relax, rattle), {})
