from __future__ import annotations

import copy
import json
import pickle
import sys
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlipcluster.calculators.spec import HIDDEN, CalculatorSpec
from mlipcluster.errors import InputError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
SPECS = st.builds(
    CalculatorSpec,
    st.sampled_from(["a:b", "a.b.c:D", "a:B.c"]),
    args=st.lists(JSON, max_size=2).map(tuple),
    kwargs=st.dictionaries(st.text(max_size=5), JSON, max_size=2),
    python=st.none() | st.just("/usr/bin/python3"),
    paths=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    device=st.none() | st.just("cuda:0"),
    threads=st.integers(1, 8),
    startup_timeout=st.floats(0.1, 1e6),
    call_timeout=st.none() | st.floats(0.1, 1e6),
    state=st.sampled_from(["fresh", "reset"]),
    info_keys=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    environment=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
    name=st.text(max_size=5),
)


@given(SPECS)
def test_round_trips(spec):
    for other in (
        CalculatorSpec.from_json(json.loads(json.dumps(spec.to_json()))),
        pickle.loads(pickle.dumps(spec)),
        cloudpickle.loads(cloudpickle.dumps(spec)),
        copy.deepcopy(spec),
        spec.replace(),
    ):
        assert other == spec
        assert hash(other) == hash(spec)
        assert other.identity() == spec.identity()


@given(SPECS, SPECS)
def test_equal_means_described_equally(one, other):
    assert (one == other) == (json.dumps(one.to_json(), sort_keys=True) == json.dumps(other.to_json(), sort_keys=True))


def test_arguments_in_another_order_are_the_same_calculator():
    assert CalculatorSpec("a:b", kwargs={"x": 1, "y": 2}) == CalculatorSpec("a:b", kwargs={"y": 2, "x": 1})


def test_what_decides_the_answer_and_what_does_not():
    spec = CalculatorSpec("a:b")
    for changes in (
        {"factory": "a:c"}, {"args": [1]}, {"kwargs": {"x": 1}}, {"device": "cpu"}, {"threads": 2},
        {"state": "reset"}, {"info_keys": []}, {"environment": {"A": "1"}},
    ):  # fmt: skip
        assert spec.replace(**changes).identity() != spec.identity()
    for changes in ({"python": "/x"}, {"paths": ["/x"]}, {"startup_timeout": 1}, {"call_timeout": 1}, {"name": "x"}):
        assert spec.replace(**changes).identity() == spec.identity()
        assert spec.replace(**changes) != spec


def test_numpy_scalars_and_paths_become_plain(tmp_path):
    spec = CalculatorSpec("a:b", kwargs={"r": np.float64(0.1), "n": np.int64(3), "f": tmp_path, "t": (1, 2)})
    assert json.loads(json.dumps(spec.to_json()["kwargs"])) == {"r": 0.1, "n": 3, "f": str(tmp_path), "t": [1, 2]}


def test_what_was_handed_in_may_change_afterwards():
    kwargs = {"x": [1]}
    spec = CalculatorSpec("a:b", kwargs=kwargs)
    kwargs["x"].append(2)
    assert spec == CalculatorSpec("a:b", kwargs={"x": [1]})


def test_it_cannot_be_changed():
    """Else what it says of itself, and what a worker was started with, could differ."""
    spec = CalculatorSpec("a:b", args=([1, {"y": 2}],), kwargs={"x": 1.0, "z": {"w": [1]}})
    before = spec.to_json(), hash(spec)
    for change in (
        lambda: spec.kwargs.__setitem__("x", 2.0),
        lambda: spec.kwargs.update(x=2.0),
        lambda: spec.kwargs["z"].pop("w"),
        lambda: spec.kwargs["z"]["w"].append(2),
        lambda: spec.args[0][1].update(y=3),
    ):
        with pytest.raises((TypeError, AttributeError)):
            change()
    spec.to_json()["kwargs"]["x"] = 2.0
    spec.identity()["args"][0].append(3)
    assert (spec.to_json(), hash(spec)) == before


SECRETIVE = CalculatorSpec(
    "a:b",
    args=("https://me:hunter2@models.org/m.pt",),
    kwargs={"mirrors": ["http://x.org/m.pt?token=hunter2&rev=1"]},
    environment={"HF_TOKEN": "hunter2", "MY_API_KEY": "hunter2", "HF_HOME": "/models"},
)


def test_secrets_reach_the_calculators_process_and_no_record():
    assert "hunter2" not in str([SECRETIVE.recorded(), SECRETIVE.identity(), SECRETIVE])
    assert SECRETIVE.recorded()["environment"] == [["HF_HOME", "/models"], ["HF_TOKEN", HIDDEN], ["MY_API_KEY", HIDDEN]]
    assert dict(SECRETIVE.environment)["HF_TOKEN"] == "hunter2"
    assert CalculatorSpec("a:b", kwargs={"x": 1}).recorded() == {"factory": "a:b", "kwargs": {"x": 1}}


def test_another_token_opens_the_same_model():
    for environment in ({"HF_TOKEN": "other"}, {}):
        other = SECRETIVE.replace(environment={"HF_HOME": "/models", **environment})
        assert other.identity() == SECRETIVE.identity()
        assert other != SECRETIVE  # a worker of its own all the same
    assert SECRETIVE.replace(environment={"HF_HOME": "/others"}).identity() != SECRETIVE.identity()


def test_what_a_record_hides_is_looked_up_here():
    recorded = CalculatorSpec.from_json(SECRETIVE.recorded())
    assert recorded.identity() == SECRETIVE.identity()
    here = recorded.revealed({"HF_TOKEN": "mine", "HF_HOME": "/elsewhere"})
    assert here.environment == (("HF_HOME", "/models"), ("HF_TOKEN", "mine"))


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"factory": "emt"}, "module:callable"),
        ({"factory": "a:"}, "module:callable"),
        ({"factory": "a b:c"}, "module:callable"),
        ({"factory": None}, "module:callable"),
        ({"args": [object()]}, "args"),
        ({"kwargs": {"x": float("nan")}}, "kwargs"),
        ({"kwargs": {"x": {1: 2}}}, "kwargs"),
        ({"kwargs": {"x": np.zeros(3)}}, "kwargs"),
        ({"paths": "abc"}, "paths"),
        ({"threads": 0}, "threads"),
        ({"threads": True}, "threads"),
        ({"threads": "4"}, "threads"),
        ({"startup_timeout": 0}, "startup_timeout"),
        ({"startup_timeout": None}, "startup_timeout"),
        ({"call_timeout": -1}, "call_timeout"),
        ({"call_timeout": float("nan")}, "call_timeout"),
        ({"call_timeout": 1e10}, "None to wait for ever"),
        ({"call_timeout": float("inf")}, "None to wait for ever"),
        ({"startup_timeout": 1e10}, "at most 2,000,000$"),
        ({"state": "re set"}, "state"),
        ({"state": None}, "state"),
        ({"info_keys": "charge"}, "info_keys"),
        ({"info_keys": [1]}, "info_keys"),
        ({"environment": [1]}, "environment"),
        ({"device": 0}, "device"),
        ({"name": 3}, "name"),
        ({"cores": 3}, "cores"),
    ],
)
def test_a_bad_field_is_named(fields, word):
    with pytest.raises(InputError, match=word):
        CalculatorSpec.from_json({"factory": "a:b", **fields})


def test_a_missing_factory_is_named():
    with pytest.raises(InputError, match="factory"):
        CalculatorSpec.from_json({})


def test_interpreter(tmp_path):
    assert CalculatorSpec("a:b").interpreter == Path(sys.executable)
    assert CalculatorSpec("a:b", python=str(tmp_path)).interpreter == tmp_path / "bin" / "python"
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    assert CalculatorSpec("a:b", python=link).interpreter == link


def test_label():
    assert CalculatorSpec("ase.calculators.emt:EMT").label == "EMT"
    assert CalculatorSpec("ase.calculators.emt:EMT", name="emt").label == "emt"
