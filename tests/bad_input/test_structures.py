"""Structures and files that cannot be used: each is a recorded failure that names it; the others are finished."""

from __future__ import annotations

import os

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from mlipcluster.protocols import single_point

GOOD = [bulk("Cu"), bulk("Ag")]


def check(results, bad, words):
    """All but *bad* tasks are finished, and each of those is told of."""
    assert len(results.failures) == bad
    assert all(words in failure.message for failure in results.failures)
    assert {output.atoms.get_chemical_formula() for output in results} == {"Cu", "Ag"}
    assert all("energy" in output.scores for output in results)
    frame = results.to_dataframe()
    assert (frame["status"] == "failed").sum() == bad


@pytest.mark.parametrize(
    ("atoms", "words"),
    [
        (Atoms(), "task 1 has no atoms"),
        (Atoms("Au", [[np.nan, 0, 0]]), "task 1: the position of atom 0 (Au) is not finite"),
        (Atoms("Au", pbc=True), "task 1 is periodic (pbc=[True, True, True]), but its cell vectors there are zero"),
        (bulk("Fe"), "Fe"),
        (bulk("Si"), "Si"),
    ],
    ids=["empty", "nan", "zero cell", "iron for EMT", "silicon for EMT"],
)
def test_structure(run, emt, atoms, words):
    check(run([GOOD[0], atoms, GOOD[1]], single_point, calculator=emt), 1, words)


def test_the_model_says_which_element_it_does_not_know(run, emt):
    (failure,) = run([bulk("Fe")], single_point, calculator=emt).failures
    assert "NotImplementedError" in failure.type + failure.message
    assert "Fe" in failure.message
    assert failure.source == "task 0"
    assert "Traceback" in failure.traceback


def test_unreadable_files(run, emt, tmp_path):
    write(tmp_path / "a.cif", GOOD[0])
    write(tmp_path / "z.cif", GOOD[1])
    (tmp_path / "broken.cif").write_text("data_\nloop_ what\n")
    (tmp_path / "empty.cif").write_text("")
    (tmp_path / "noise.cif").write_bytes(os.urandom(1000))
    results = run(str(tmp_path / "*.cif"), single_point, calculator=emt)
    check(results, 3, "cannot be read as a structure")
    assert sorted(f.source for f in results.failures) == ["broken.cif#0", "empty.cif#0", "noise.cif#0"]


def test_a_file_that_is_not_there(run, emt):
    check(run([*GOOD, "nowhere.cif"], single_point, calculator=emt), 1, "no file matches 'nowhere.cif'")


def test_a_folder_instead_of_a_file(run, emt, tmp_path):
    check(run([*GOOD, tmp_path], single_point, calculator=emt), 1, f"{tmp_path} is a folder")


@pytest.mark.filterwarnings("ignore:.*handed in more than once")
def test_duplicates_are_all_done_and_told_apart(run, emt):
    results = run([GOOD[0], GOOD[1], GOOD[0].copy()], single_point, calculator=emt)
    check(results, 0, "")
    assert len(results) == 3
    assert len({output.name for output in results}) == 3
    assert len({output.path for output in results}) == 3


def test_nothing_but_bad_tasks(run, emt):
    results = run([Atoms(), "nowhere.cif"], single_point, calculator=emt)
    assert results.counts == {"output": 0, "failed": 2, "empty": 0}
    again = run([Atoms(), "nowhere.cif"], single_point, calculator=emt)
    assert [e["finished"] for e in again.entries] == [e["finished"] for e in results.entries]
