from __future__ import annotations

import enum
import math

import numpy as np
import pytest

from mlipcluster.socket_worker.results import pack


class Phase(enum.IntEnum):
    SOLID = 1


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 3, "ä", [], {}, [1, [2.0, "x"]], {"a": {"b": [None, False]}}, 10**30),
        *([math.inf, -0.0], {"x": np.float64(0.1)}),
    ],
)
def test_what_json_gives_back_as_it_is_travels(value):
    packed = pack({"x": value})
    assert (packed.values, packed.lost) == ({"x": value}, [])


@pytest.mark.parametrize(
    "value",
    [
        *({1: 2.0}, {"a": {None: 1}}, {True: 1}, (1, 2), [(1,)], {"a": (1,)}, [Phase.SOLID], {1, 2}, b"x", object()),
        *([np.int64(1)], {"a": np.zeros(2)}),
    ],
)
def test_what_it_would_give_back_as_something_else_does_not(value):
    packed = pack({"x": value, "energy": 1.0})
    assert (packed.values, packed.lost) == ({}, ["x"])
    assert packed.arrays.keys() == {"energy"}


@pytest.mark.parametrize("name", [("a", "b"), 1, None])
def test_a_name_that_is_no_text_does_not_travel(name):
    packed = pack({name: 1.0, "energy": 2.0})
    assert packed.lost == [str(name)]
    assert packed.arrays.keys() == {"energy"}
    assert packed.head()
