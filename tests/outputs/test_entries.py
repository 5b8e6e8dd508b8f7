from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlipcluster.errors import RecordError
from mlipcluster.outputs.entries import Slot, missing_files, natural, newest, newest_by_slot, orphans


def line(slot, output=(0, 1), status="output", identity="i", **more):
    return {"slot": slot, "status": status, "identity": identity, "output": list(output) if output else None, **more}


@given(st.text("abc0/"), st.integers(0, 99), st.lists(st.integers(0, 99)), st.integers(0, 9))
def test_slots_survive_text(key, replicate, lineage, step):
    slot = Slot(key, replicate, tuple(lineage), step)
    assert Slot.parse(str(slot)) == slot


@pytest.mark.parametrize("text", ["", "a/0/0", "a/x//0", "a/0/1..2/0", "a/0//"])
def test_what_is_no_slot_is_told(text):
    with pytest.raises(RecordError, match="run again"):
        Slot.parse(text)


def test_the_last_line_of_an_output_wins():
    lines = [line("a/0//0", seconds=1), line("b/0//0"), line("a/0//0", seconds=2)]
    assert newest_by_slot(lines) == {"a/0//0": [lines[2]], "b/0//0": [lines[1]]}


def test_only_the_parts_asked_for_are_kept():
    lines = [line("a/0//0", parts={"seed": "1"}, scores={"energy": 1.0}), line("b/0//0", None, "empty")]
    assert newest_by_slot(lines, ["parts"]) == {
        "a/0//0": [line("a/0//0", parts={"seed": "1"})],
        "b/0//0": [line("b/0//0", None, "empty")],
    }


def test_several_outputs_of_one_call_stand_beside_each_other_in_order():
    lines = [line("a/0//0", (2, 3)), line("a/0//0", (0, 3)), line("a/0//0", (1, 3))]
    assert [entry["output"][0] for entry in newest_by_slot(lines)["a/0//0"]] == [0, 1, 2]


@pytest.mark.parametrize(
    "later",
    [
        line("a/0//0", (0, 1)),
        line("a/0//0", (0, 3), identity="other"),
        line("a/0//0", None, "failed"),
        line("a/0//0", None, "empty"),
    ],
)
def test_a_newer_call_takes_the_place_of_all_that_an_older_one_gave(later):
    lines = [line("a/0//0", (index, 3)) for index in range(3)]
    assert newest([*lines, later]) == [later]


def test_an_output_takes_the_place_of_a_failure():
    lines = [line("a/0//0", None, "failed"), line("a/0//0", (0, 2)), line("a/0//0", (1, 2))]
    assert newest(lines) == lines[1:]


def test_what_descends_from_an_output_that_is_no_longer_given_is_left_out():
    lines = [
        line("a/0//0", (0, 2)),
        line("a/0//0", (1, 2)),
        line("a/0/0/1"),
        line("a/0/1/1"),
        line("a/0/1.0/2"),
        line("a/0//0", (0, 1), identity="edited"),
    ]
    assert {entry["slot"] for entry in newest(lines)} == {"a/0//0", "a/0/0/1"}


def test_descendants_of_calls_that_this_ledger_does_not_know_are_kept():
    lines = [line("a/0/0/1"), line("a/0/1/1")]
    assert newest(lines) == lines


@given(st.permutations(range(6)))
def test_the_order_does_not_depend_on_who_was_faster(order):
    lines = [
        line("k/0//0", source="Cu2.cif#0"),
        line("k/1//0", source="Cu2.cif#0"),
        line("a/0//0", (0, 2), source="Cu10.cif#0"),
        line("a/0//0", (1, 2), source="Cu10.cif#0"),
        line("b/0//0", source="Cu10.cif#1", calculator="lj"),
        line("c/0//0", None, "failed", source="Cu10.cif#1", calculator="mace"),
    ]
    assert newest([lines[number] for number in order]) == lines


@pytest.mark.parametrize(
    "entry", [{}, {"slot": "a/0//0", "output": 3}, {"slot": "a/0//0", "output": ["x"]}, {"slot": 3}]
)
def test_a_line_of_another_kind_is_told(entry):
    with pytest.raises(RecordError, match="run again"):
        newest([entry])


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_numbers_in_names_count_as_numbers(numbers):
    assert sorted((f"Cu{n}.cif#0" for n in numbers), key=natural) == [f"Cu{n}.cif#0" for n in sorted(numbers)]


@pytest.mark.parametrize("text", ["", "²", "٣", "a1b", "1a"])
def test_any_text_has_a_place(text):
    assert sorted([text, "a", "1"], key=natural)


def test_missing_files_are_found_with_one_listing_a_folder(tmp_path, monkeypatch):
    import os

    (tmp_path / "outputs" / "0000").mkdir(parents=True)
    entries = [line(f"a/{n}//0", file=f"outputs/0000/{n}.extxyz", bytes=1) for n in range(5)]
    entries += [line("b/0//0", file="outputs/0001/gone.extxyz"), line("c/0//0", None, "failed", file=None)]
    for number in (0, 1, 3, 4):
        (tmp_path / "outputs" / "0000" / f"{number}.extxyz").write_text("x" if number else "torn")
    scans = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scans.append(path) or scandir(path))
    assert missing_files(entries, tmp_path) == [entries[2], entries[5]]
    assert len(scans) == 2
    assert missing_files(entries, tmp_path, sizes=True) == [entries[0], entries[2], entries[5]]


def test_files_without_a_line_are_orphans(tmp_path):
    folder = tmp_path / "outputs" / "0000"
    folder.mkdir(parents=True)
    for name in ("Cu4-1.extxyz", "Cu4-2.extxyz.gz", "Cu4-3.json", ".Cu4-4.extxyz.ab.part"):
        (folder / name).write_text("")
    found = orphans([line("a/0//0", file="outputs/0000/Cu4-1.extxyz")], tmp_path)
    assert found == {"Cu4-2": folder / "Cu4-2.extxyz.gz", "Cu4-3": folder / "Cu4-3.json"}
    assert orphans([], tmp_path / "none") == {}
