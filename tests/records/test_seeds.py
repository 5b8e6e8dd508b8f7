from __future__ import annotations

import random
import sys
import types

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from mlipcluster.errors import InputError
from mlipcluster.records.seeds import ROOT_BITS, call_seed, new_root, seed_everything

KEY = "0123456789abcdef" * 2


def test_every_place_has_a_seed_of_its_own():
    places = [
        (root, key, replicate, step, lineage)
        for root in (0, 1, 2**40)
        for key in (KEY, KEY[::-1], "0" * 32, "not hexadecimal, ü")
        for replicate in (0, 1)
        for step in (0, 1, 2)
        for lineage in ((), (0,), (1,), (0, 0), (0, 1), (1, 0))
    ]
    seeds = [call_seed(*place) for place in places]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


@given(st.integers(0, 2**70), st.text(), st.integers(0, 10**6), st.integers(0, 50), st.lists(st.integers(0, 10**6)))
def test_a_seed_is_a_function_of_its_place(root, key, replicate, step, lineage):
    seed = call_seed(root, key, replicate, step, tuple(lineage))
    assert seed == call_seed(root, key, replicate, step, tuple(lineage))
    assert 0 <= seed < 2**63


def test_seeds_are_what_they_always_were():
    # Recorded runs are made again from their root seed alone.
    assert call_seed(7, KEY, 0, 0, ()) == 624888357221258743
    assert call_seed(7, KEY, 1, 2, (3, 4)) == 4735159316795314741


@pytest.mark.parametrize("root", [-1, 1.5, "x"])
def test_a_root_that_is_no_seed_is_named(root):
    with pytest.raises(InputError, match="take an integer that is not negative"):
        call_seed(root, KEY, 0, 0, ())


def test_new_roots_differ_and_fit_json_readers():
    roots = {new_root() for _ in range(50)}
    assert len(roots) == 50
    assert all(0 <= root < 2**ROOT_BITS for root in roots)


def _draw(rng):
    return random.random(), np.random.random(), rng.random()  # noqa: NPY002 - the old generator is what is tested


def test_everything_random_is_seeded():
    first = _draw(seed_everything(5))
    assert first == _draw(seed_everything(5))
    other = _draw(seed_everything(6))
    assert all(a != b for a, b in zip(first, other, strict=True))
    _draw(seed_everything(2**63 - 1))


def test_torch_is_seeded_only_if_it_is_there(monkeypatch):
    seeds = []
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(manual_seed=seeds.append))
    seed_everything(5)
    assert seeds == [5]
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace())
    seed_everything(5)
    monkeypatch.delitem(sys.modules, "torch")
    seed_everything(5)
    assert "torch" not in sys.modules
