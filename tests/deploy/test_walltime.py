from __future__ import annotations

import pytest

from mlipcluster.deploy.walltime import clock, hours_and_minutes, seconds_of
from mlipcluster.errors import InputError


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("12:00:00", 43200),
        ("00:00:20", 20),
        ("100:00:00", 360000),
        ("2-00:30:00", 174600),
        ("90 min", 5400),
        ("1.5 h", 5400),
        ("2 days", 172800),
        (3600, 3600),
        (0.5, 0.5),
    ],
)
def test_what_people_write_is_read(written, seconds):
    assert seconds_of(written) == seconds


def test_a_batch_system_reads_two_parts_its_own_way():
    assert seconds_of("12:30", two=3600) == 12.5 * 3600
    assert seconds_of("12:30", two=60) == 12.5 * 60
    assert seconds_of("30", alone=60) == 1800


@pytest.mark.parametrize(
    "written", ["12:30", "30", "", "soon", "-1 h", "0:00:00", -3, 0, float("inf"), True, None, ["1h"]]
)
def test_what_may_be_read_in_two_ways_is_refused(written):
    with pytest.raises(InputError, match=r'walltime=.* cannot be read.*give "12:00:00"'):
        seconds_of(written)


def test_two_parts_are_told_apart():
    with pytest.raises(InputError, match="hours or minutes"):
        seconds_of("12:30")


def test_written_for_batch_systems():
    assert clock(43200) == "12:00:00"
    assert clock(174600.2) == "48:30:01"
    assert hours_and_minutes(5400) == "01:30"
    assert hours_and_minutes(20) == "00:01"
