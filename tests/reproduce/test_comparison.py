from __future__ import annotations

import math

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from hypothesis import given
from hypothesis import strategies as st

from mlipcluster.errors import InputError
from mlipcluster.reproduction.comparison import (
    DIFFERENT,
    IDENTICAL,
    MAIN,
    WITHIN_TOLERANCE,
    Tolerance,
    compare,
    overall,
    tolerances,
    ulps_between,
)
from mlipcluster.reproduction.quantities import packed


def copper(**info) -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=1)
    atoms.info.update(info)
    forces = np.linspace(-1, 1, 12).reshape(4, 3)
    atoms.calc = SinglePointCalculator(atoms, energy=-0.1, forces=forces, stress=np.full(6, 0.01))
    return atoms


def by_name(one: Atoms, other: Atoms, **changes):
    return {quantity.name: quantity for quantity in compare(one, other, changes)}


def test_the_same_structure_is_identical_and_the_main_quantities_come_first():
    quantities = compare(copper(a=1.5), copper(a=1.5))
    assert overall(quantities) == IDENTICAL
    assert tuple(quantity.name for quantity in quantities[:5]) == MAIN
    assert all(quantity.ulps == 0 for quantity in quantities if quantity.tolerance)


@pytest.mark.parametrize(
    ("name", "small", "large"),
    [("energy", 3e-6, 5e-6), ("forces", 9e-5, 2e-4), ("stress", 9e-7, 2e-6)],  # energy: 4 atoms share it
)
def test_a_result_is_judged_by_its_own_tolerance(name, small, large):
    for change, verdict in ((small, WITHIN_TOLERANCE), (large, DIFFERENT)):
        other = copper()
        other.calc.results[name] = other.calc.results[name] + change
        quantity = by_name(copper(), other)[name]
        assert quantity.verdict == verdict
        assert quantity.difference == pytest.approx(change / (4 if name == "energy" else 1), rel=1e-6)


def test_one_bit_is_seen_and_counted():
    other = copper()
    other.positions[2, 1] = np.nextafter(other.positions[2, 1], np.inf)
    quantity = by_name(copper(), other)["positions"]
    assert (quantity.verdict, quantity.ulps) == (WITHIN_TOLERANCE, 1)


def test_cell_pbc_species_arrays_and_constraints_are_compared():
    other = copper()
    other.cell[0, 0] += 1e-3
    other.pbc = (True, True, False)
    other.numbers[0] = 47
    other.set_array("site", np.arange(4))
    other.set_constraint(FixAtoms([0]))
    found = by_name(copper(), other)
    different = {name for name, quantity in found.items() if quantity.verdict == DIFFERENT}
    assert {"cell", "pbc", "numbers", "arrays.site"} <= different
    assert any(name.startswith("constraints") for name in different)
    assert found["arrays.site"].note == "not in the record"


def test_a_missing_result_and_another_shape_are_different():
    other = copper()
    del other.calc.results["stress"]
    other.calc.results["forces"] = np.zeros((3, 3))
    found = by_name(copper(), other)
    assert found["stress"].note == "only in the record"
    assert "shape (3, 3), recorded (4, 3)" in found["forces"].note


def test_nan_equals_nan_and_nothing_else():
    assert overall(compare(copper(gap=math.nan), copper(gap=math.nan))) == IDENTICAL
    for one, other in ((math.nan, 1.0), (1.0, math.nan), (math.inf, 1.0), (math.inf, -math.inf)):
        assert by_name(copper(gap=one), copper(gap=other))["info.gap"].verdict == DIFFERENT


def test_info_is_taken_apart():
    one = copper(fit={"b0": 137.0, "points": [1.0, 2.0]}, tag="a", steps=7, names=["x", "y"])
    two = copper(fit={"b0": 137.0 + 1e-6, "points": [1.0, 2.5]}, tag="b", steps=8, names=["x", "z"])
    found = by_name(one, two)
    assert found["info.fit.b0"].verdict == WITHIN_TOLERANCE
    names = {name for name, quantity in found.items() if quantity.verdict == DIFFERENT}
    assert names == {"info.fit.points", "info.tag", "info.steps", "info.names.1"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"x": {"y": 1.0}, "x.y": 3.0}, {"x": {"y": 2.0}, "x.y": 3.0}),
        ({"x": {1: "a", "1": "b"}}, {"x": {1: "c", "1": "b"}}),
        ({"x": {"y": 1.0}}, {"x.y": 1.0}),
        ({"x": ["a"]}, {"x": {"length": 1, "0": "a"}}),
        ({"x": [2**53 + 1, 0.5]}, {"x": [2**53, 0.5]}),
        ({"x": [2**63 + 1, -1]}, {"x": [2**63, -1]}),
        ({"x": [True, 2]}, {"x": [1, 2]}),
    ],
)
def test_what_has_one_name_or_one_float_is_not_the_same(one, other):
    assert overall(compare(copper(**one), copper(**other))) == DIFFERENT
    assert overall(compare(copper(**one), copper(**one))) == IDENTICAL


def test_results_named_as_something_else_are_compared_too():
    def odd(value):
        atoms = copper(z=0)
        atoms.set_tags([1, 2, 3, 4])
        atoms.calc.results |= {"cell": np.eye(3) * value, "tags": np.array([value]), "info.z": value}
        return atoms

    found = by_name(odd(1.0), odd(2.0))
    assert [found[name].verdict for name in ("cell", "tags", "info.z#2")] == [IDENTICAL, IDENTICAL, DIFFERENT]
    assert [found[name].verdict for name in ("cell#2", "tags#2")] == [DIFFERENT, DIFFERENT]
    assert overall(compare(odd(1.0), odd(1.0))) == IDENTICAL


def test_results_are_taken_apart_as_info_is():
    def described(last):
        atoms = copper()
        lists = [np.arange(2.0), np.array([0.0, 1.0, last])]
        atoms.calc.results |= {"desc": {"a": np.arange(3.0)}, "lists": lists}
        return atoms

    assert overall(compare(described(2.0), described(2.0))) == IDENTICAL
    found = by_name(described(2.0), described(3.0))
    assert {name for name, quantity in found.items() if quantity.verdict == DIFFERENT} == {"lists.1"}
    assert found["desc.a"].ulps == 0


class Agreeable:
    """An object that says it equals any other."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return True

    __hash__ = None


@pytest.mark.parametrize(
    ("one", "other"), [(Agreeable(1), Agreeable(2)), ((1.0, 2.0), [1.0, 2.0]), (np.array(["a"]), np.array(["a"], "U5"))]
)
def test_what_only_seems_equal_is_not_identical(one, other):
    assert overall(compare(copper(x=one), copper(x=one))) == IDENTICAL
    quantities = compare(copper(x=one), copper(x=other))
    assert overall(quantities) == DIFFERENT
    assert [quantity.name for quantity in quantities if quantity.verdict == DIFFERENT] == ["packed result"]


def test_the_order_of_an_array_in_memory_does_not_count():
    other = copper()
    other.calc.results["forces"] = np.asfortranarray(other.calc.results["forces"])
    assert overall(compare(copper(), other)) == IDENTICAL


def test_another_type_is_not_identical():
    found = by_name(copper(x=1.0), copper(x=np.float32(1.0)))["info.x"]
    assert found.verdict == WITHIN_TOLERANCE
    assert "float32" in found.note


def test_an_object_that_cannot_be_compared_is_different():
    class Moody:
        def __eq__(self, other):
            raise RuntimeError("not today")

        __hash__ = None

    assert by_name(copper(x=Moody()), copper(x=Moody()))["info.x"].verdict == DIFFERENT


def test_the_record_in_info_is_not_compared():
    assert overall(compare(copper(mlipcluster="{}"), copper())) == IDENTICAL


def test_tolerances_can_be_changed_and_a_quantity_left_unjudged():
    other = copper(seconds=2.0)
    other.calc.results["energy"] += 1.0
    found = by_name(copper(seconds=1.0), other, energy=1.0, **{"info.seconds": math.inf})
    assert found["energy"].verdict == found["info.seconds"].verdict == WITHIN_TOLERANCE
    assert found["energy"].tolerance == Tolerance(1.0, "eV/atom", per_atom=True)


@pytest.mark.parametrize(
    ("name", "value", "text"), [("force", 1, "did you mean 'forces'"), ("energy", -1, "zero or more")]
)
def test_a_wrong_tolerance_is_refused(name, value, text):
    with pytest.raises(InputError, match=text):
        tolerances({name: value})


def test_results_that_are_empty_or_absent():
    assert overall(compare(Atoms(), Atoms())) == IDENTICAL
    assert overall(compare(Atoms("H"), Atoms())) == DIFFERENT


@given(st.floats(-1e300, 1e300), st.integers(0, 50))
def test_ulps_count_the_floats_between(value, steps):
    other = value
    for _ in range(steps):
        other = np.nextafter(other, np.inf)
    assert ulps_between(np.array(value), np.array(other)) == steps


@given(st.lists(st.floats(width=64), min_size=1, max_size=6), st.lists(st.floats(width=64), min_size=1, max_size=6))
def test_verdicts_are_symmetric_and_identical_means_the_same_bytes(one, other):
    first, second = copper(x=np.array(one)), copper(x=np.array(other))
    there, back = by_name(first, second)["info.x"], by_name(second, first)["info.x"]
    assert (there.verdict == IDENTICAL) == (back.verdict == IDENTICAL)
    assert (there.verdict == IDENTICAL) == (np.array(one).tobytes() == np.array(other).tobytes())


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["a", "x.y", "1", "length"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from(["a", "x.y", "1", "length", 1, 0]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(VALUES, VALUES)
def test_identical_means_the_same_record_whatever_is_in_info(one, other):
    first, second = copper(x=one), copper(x=other)
    assert overall(compare(first, copper(x=one))) == IDENTICAL
    assert (overall(compare(first, second)) == IDENTICAL) == (packed(first) == packed(second))
