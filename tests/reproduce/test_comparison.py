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
