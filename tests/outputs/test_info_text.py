from __future__ import annotations

import json

import numpy as np
import pytest
from ase.io.extxyz import key_val_str_to_dict
from hypothesis import given
from hypothesis import strategies as st

from mlipcluster.outputs.info_text import RESERVED, escape, info_text, unescape

HOSTILE = [
    "",
    " ",
    "12",
    "1 2 3",
    "1e5",
    "nan",
    "Infinity",
    "T",
    "true",
    "F F",
    "_JSON {}",
    "a\\b",
    "\\",
    'say "x"',
    "it's",
]
HOSTILE += [
    "a=b",
    "a,b",
    "{x}",
    "[y",
    "tab\tx",
    "two\nlines",
    "cr\rx",
    "Zoë",
    "\u2028",
    "\0",
    "mlipcluster=",
    "\\n",
    " x ",
    "n",
]


def through_ase(info):
    hidden = []
    return key_val_str_to_dict("start=1" + info_text(info, hidden) + " end=2"), hidden


def identical(a, b):
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return isinstance(a, np.ndarray) and np.array_equal(a, b) and a.dtype.kind == b.dtype.kind
    return json.dumps(a) == json.dumps(b) and type(a) is type(b)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_comes_back_exactly(text):
    read, hidden = through_ase({"key": text})
    assert read["key"] == text
    assert hidden == []
    assert set(read) == {"start", "key", "end"}


@given(st.text())
def test_any_text_comes_back_exactly(text):
    read, hidden = through_ase({"key": text})
    assert read == {"start": 1, "key": text, "end": 2}
    assert hidden == []


@given(st.text(alphabet='\\"n x'))
def test_escaping_is_undone(text):
    assert unescape(escape(text)) == text


@pytest.mark.parametrize(
    "value",
    [
        None, True, False, 0, -3, 2**62, 10**30, 0.1, 1e-300, float("inf"), float("nan"),
        [1, "a", None, {"b": [True]}], {"a": {"b": [1.5]}}, [], {}, [[1, 2], [3, 4]][0:0],
    ],
)  # fmt: skip
def test_plain_values_come_back_exactly(value):
    read, hidden = through_ase({"key": value})
    if value == [] and isinstance(value, list):
        assert read["key"].shape == (0,)  # ASE makes arrays of lists
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        assert read["key"] == value or value != value  # noqa: PLR0124 - NaN
        assert str(read["key"]) == str(value)
    else:
        assert identical(read["key"], value)
    assert hidden == []


@pytest.mark.parametrize(
    "array",
    [np.arange(3), np.arange(3) / 7, np.eye(3), np.array([True, False]), np.array([1.5]), np.array([[1], [2]])],
)
def test_arrays_come_back_exactly(array):
    read, hidden = through_ase({"key": array})
    assert identical(read["key"], array)
    assert hidden == []


@pytest.mark.parametrize(
    "value",
    [
        object(),
        1j,
        b"x",
        {1: 2},
        [[1], [2, 3]],
        np.array([1j]),
        np.zeros((0, 3)),
        np.array([2**63], "uint64"),
        {"a": {1}},
    ],
)
def test_what_cannot_be_held_is_left_out_and_named(value):
    read, hidden = through_ase({"key": value})
    assert read == {"start": 1, "end": 2}
    assert hidden == ["info 'key'"]


@pytest.mark.parametrize("key", [*sorted(RESERVED - {"mlipcluster"}), "é", "new\nline", "", 3, None, ("a",)])
def test_keys_with_a_meaning_of_their_own_are_left_out_and_named(key):
    read, hidden = through_ase({key: 1.0})
    assert read == {"start": 1, "end": 2}
    assert hidden == [f"info {key!r}"]


@pytest.mark.parametrize("key", ["a b", 'quo"te', "back\\slash", "a=b", "it's", "{", "a.b", "a-b", "_x", "3d"])
def test_odd_keys_come_back_exactly(key):
    read, hidden = through_ase({key: "value"})
    assert read == {"start": 1, key: "value", "end": 2}
    assert hidden == []


def test_depth_is_bounded():
    deep = []
    for _ in range(1000):
        deep = [deep]
    assert through_ase({"key": deep}) == ({"start": 1, "end": 2}, ["info 'key'"])
