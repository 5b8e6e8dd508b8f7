"""docs/records.md explains every key there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_type_hints

import pytest

from mlipcluster.records import packing, unpacking
from mlipcluster.records.git import GitState
from mlipcluster.records.identity import PART_NAMES
from mlipcluster.records.record import Instance, Metadata, Record, TaskEntry

TEXT = (Path(__file__).parents[2] / "docs" / "records.md").read_text(encoding="utf-8")


def _section(title):
    return re.split(r"(?m)^## ", TEXT.split(f"## {title}\n", 1)[1])[0]


@pytest.mark.parametrize(
    ("title", "layout"),
    [
        ("Top level", Record),
        ("`instance`", Instance),
        ("`instance`", TaskEntry),
        ("`metadata`", Metadata),
        ("`metadata`", GitState),
    ],
)
def test_every_key_is_explained(title, layout):
    missing = [name for name in get_type_hints(layout) if f"`{name}`" not in _section(title)]
    assert missing == []


def test_every_tag_is_explained():
    tags = set(re.findall(r"`(__\w+__)`", _section("Packed values")))
    assert tags == set(unpacking._BY_TAG)
    assert set(re.findall(r"``(__\w+__)``", packing.__doc__)) == tags


def test_every_part_is_explained():
    assert re.findall(r"(?m)^\| `(\w+)` \|", _section("Identity: when a task runs again")) == list(PART_NAMES)
