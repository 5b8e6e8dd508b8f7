from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlipcluster.durations import WIDENING, Durations

SECONDS = st.floats(1e-6, 1e6)
SIZES = st.integers(0, 10**6)


def test_nothing_is_known_at_first():
    durations = Durations()
    assert durations.mean(0, 8) is None
    assert durations.upper(0, 8) is None
    durations.note(0, 8, 1.0)
    assert durations.mean(1, 8) is None, "another protocol"


def test_sizes_between_two_powers_of_two_are_alike_and_others_scale():
    durations = Durations()
    durations.note(0, 9, 2.0)
    assert durations.mean(0, 15) == 2.0
    assert durations.mean(0, 16) == 4.0
    assert durations.mean(0, 64) == 16.0
    assert durations.mean(0, 4) == 1.0


def test_the_nearest_size_tells():
    durations = Durations()
    durations.note(0, 4, 1.0)
    durations.note(0, 4000, 10.0)
    assert durations.mean(0, 5) == 1.0
    assert durations.mean(0, 10) == 2.0
    assert durations.mean(0, 1100) == 5.0


def test_it_follows_what_changes_and_widens_with_what_scatters():
    durations, even = Durations(), Durations()
    for n in range(40):
        durations.note(0, 8, 1.0 if n % 2 else 3.0)
        even.note(0, 8, 2.0)
    assert durations.mean(0, 8) == pytest.approx(2.0, abs=0.4)
    assert even.upper(0, 8) == pytest.approx(2.0 * WIDENING)
    assert durations.upper(0, 8) > 3.0
    for _ in range(40):
        durations.note(0, 8, 10.0)
    assert durations.mean(0, 8) == pytest.approx(10.0, rel=1e-3)


@given(st.lists(st.tuples(SIZES, SECONDS), min_size=1, max_size=30), SIZES)
def test_the_upper_estimate_is_above_the_mean(notes, size):
    durations = Durations()
    for atoms, seconds in notes:
        durations.note(0, atoms, seconds)
    assert 0 < durations.mean(0, size) < durations.upper(0, size)
