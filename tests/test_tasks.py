from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.io import write

from mlipcluster.errors import InputError, StructureError
from mlipcluster.tasks import TaskSource, check_structure

CU, AG = bulk("Cu"), bulk("Ag")


def formulas(tasks, **options):
    return [task.atoms.get_chemical_formula() if task.atoms else None for task in TaskSource(tasks, **options)]


@pytest.fixture
def files(tmp_path):
    write(tmp_path / "Cu.cif", CU)
    write(tmp_path / "Ag.vasp", AG)
    write(tmp_path / "two.extxyz", [molecule("H2O"), molecule("CH4")])
    return tmp_path


# --- what may be handed in -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tasks",
    [
        [CU, AG],
        (CU, AG),
        [{"atoms": CU}, AG],
        lambda: [CU, AG],
        lambda: (a for a in (CU, AG)),
        (a for a in (CU, AG)),
        iter([CU, {"atoms": AG}]),
    ],
)
def test_all_forms_of_the_same_tasks(tasks):
    assert formulas(tasks) == ["Cu", "Ag"]


def test_one_structure():
    assert formulas(CU) == ["Cu"]


def test_a_dictionary_is_one_task_with_keyword_arguments():
    (task,) = TaskSource({"atoms": CU, "fmax": 0.1})
    assert task.atoms == CU
    assert task.kwargs == {"fmax": 0.1}


def test_tasks_without_a_structure():
    (task,) = TaskSource([{"x": 1}])
    assert task.atoms is None
    assert task.kwargs == {"x": 1}


def test_no_tasks_is_one_task_with_nothing():
    (task,) = TaskSource(None)
    assert (task.atoms, task.kwargs) == (None, {})


def test_input_atoms_are_the_structure_of_tasks_that_bring_none():
    assert formulas([{"x": 1}, {"atoms": AG}, None], input_atoms=CU) == ["Cu", "Ag", "Cu"]


def test_files_and_patterns_each_frame_a_task(files):
    sources = [(task.source, len(task.atoms)) for task in TaskSource([str(files / "*.cif"), files / "two.extxyz"])]
    assert sources == [("Cu.cif#0", 1), ("two.extxyz#0", 3), ("two.extxyz#1", 5)]


def test_a_pattern_gives_its_files_in_the_order_of_their_names(files):
    assert formulas(str(files / "*")) == ["Ag", "Cu", "H2O", "CH4"]


def test_keyword_arguments_for_each_frame_of_a_file(files):
    tasks = list(TaskSource({"atoms": str(files / "two.extxyz"), "x": 3}))
    assert [(len(task.atoms), task.kwargs) for task in tasks] == [(3, {"x": 3}), (5, {"x": 3})]


def test_a_name_with_brackets_is_a_name_first(tmp_path):
    write(tmp_path / "a[1].xyz", CU)
    assert formulas(str(tmp_path / "a[1].xyz")) == ["Cu"]


def test_generators_are_read_as_they_are_needed():
    read = []

    def endless():
        for number in itertools.count():
            read.append(number)
            yield {"atoms": CU, "x": number}

    source = TaskSource(endless())
    assert source.peek().kwargs == {"x": 0}
    taken = list(itertools.islice(source, 5))
    assert [task.kwargs["x"] for task in taken] == [0, 1, 2, 3, 4]  # peeking took nothing away
    assert read == [0, 1, 2, 3, 4]


def test_a_spent_generator_is_told_of():
    source = TaskSource(a for a in [CU])
    list(source)
    with pytest.raises(InputError, match="the generator of tasks is spent"):
        iter(source)


def test_a_list_can_be_read_again():
    source = TaskSource([CU, AG])
    assert len(list(source)) == len(list(source)) == 2


# --- what is kept of them --------------------------------------------------------------------------------------------


def test_later_changes_to_what_was_handed_in_do_no_harm():
    shared = {"T": 0}
    atoms = CU.copy()

    def generator():
        for kelvin in (300, 600):
            shared["T"] = kelvin
            atoms.positions[:] = kelvin
            yield {"atoms": atoms, "parameters": shared}

    first, second = list(TaskSource(generator()))
    assert (first.kwargs, second.kwargs) == ({"parameters": {"T": 300}}, {"parameters": {"T": 600}})
    assert first.atoms.positions[0, 0] == 300
    assert first.key != second.key


def test_calculators_are_left_behind():
    atoms = CU.copy()
    atoms.calc = EMT()
    atoms.get_potential_energy()
    (task,) = TaskSource(atoms)
    assert task.atoms.calc is None
    assert task.key == next(iter(TaskSource(CU))).key


def test_the_key_follows_structure_and_keyword_arguments_alone():
    moved = CU.copy()
    moved.positions += 1e-12
    keys = [task.key for task in TaskSource([CU, moved, {"atoms": CU, "x": 1}, {"atoms": CU, "x": 1.5}])]
    assert len(set(keys)) == 4
    assert keys[2] == next(iter(TaskSource({"x": 1, "atoms": CU.copy()}))).key


# --- repeats ---------------------------------------------------------------------------------------------------------


def test_nstruct_repeats_each_task():
    tasks = [(t.atoms.get_chemical_formula(), t.replicate) for t in TaskSource([CU, AG], nstruct=2)]
    assert tasks == [("Cu", 0), ("Cu", 1), ("Ag", 0), ("Ag", 1)]


def test_a_duplicate_is_a_further_repeat():
    source = TaskSource([CU, AG, CU.copy()], nstruct=2)
    tasks = [(t.atoms.get_chemical_formula(), t.replicate) for t in source]
    assert tasks == [("Cu", 0), ("Cu", 1), ("Ag", 0), ("Ag", 1), ("Cu", 2), ("Cu", 3)]
    assert source.duplicates == ["task 2"]
    list(source)
    assert source.duplicates == ["task 2"]


def test_several_calculators_each_meet_each_task_with_the_same_key():
    tasks = list(TaskSource([CU, AG], nstruct=2, calculators=["a", "b"]))
    assert len({(t.place, t.replicate) for t in tasks}) == 8
    assert len({t.key for t in tasks}) == 2


def test_a_pinned_repeat_is_the_only_one():
    assert [task.replicate for task in TaskSource([CU, AG], nstruct=5, replicate=3)] == [3, 3]


@pytest.mark.parametrize(
    ("tasks", "options", "length"),
    [
        ([CU, AG], {}, 2),
        ([CU, AG], {"nstruct": 3, "calculators": ["a", "b"]}, 12),
        ([CU], {"nstruct": 3, "replicate": 1}, 1),
        (CU, {}, 1),
        ({"x": 1}, {}, 1),
        (None, {}, 1),
        (lambda: [CU], {}, None),
        ((a for a in [CU]), {}, None),
    ],
)
def test_known_length(tasks, options, length):
    assert TaskSource(tasks, **options).known_length == length


def test_known_length_of_files(files):
    assert TaskSource([str(files / "*"), CU]).known_length == 4
    assert TaskSource(str(files / "*.cif")).known_length == 1


# --- what cannot be run is a task with an error ----------------------------------------------------------------------


def error_of(given):
    (task,) = TaskSource([given])
    return task.error


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Atoms(), "task 0 has no atoms"),
        (Atoms("CuAg", [[0, 0, 0], [0, np.nan, 0]]), "the position of atom 1 (Ag) is not finite"),
        (Atoms("Cu", [[0, np.inf, 0]]), "the position of atom 0 (Cu) is not finite"),
        (Atoms("Cu", pbc=True), "its cell vectors there are zero or dependent; set the cell, or pbc=False"),
        (Atoms("Cu", cell=[1, 2, 0], pbc=[0, 0, 1]), "pbc=[False, False, True]"),
        (Atoms("Cu", cell=[[1, 0, 0], [2, 0, 0], [0, 0, 1]], pbc=True), "dependent"),
        (Atoms("Cu", cell=[np.nan] * 3), "the cell is not finite"),
        ("/does/not/exist.cif", "no file matches '/does/not/exist.cif'"),
        ("/does/not/*.cif", "no file matches '/does/not/*.cif'"),
        ("/usr", "/usr is a folder; give a pattern such as '/usr/*.cif'"),
        (7, "task 0: a int is not a task"),
        ([CU], "task 0: a list is not a task"),
        ({"atoms": 7}, "atoms=int: give ase.Atoms or a file name"),
        ({1: 2}, "keyword arguments [1] are not all strings"),
        ({"atoms": CU, "lock": threading.Lock()}, "lock"),
    ],
)
def test_the_error_names_it(given, words):
    assert words in str(error_of(given))


@pytest.mark.parametrize(
    "atoms", [Atoms("Cu", cell=[3, 3, 0], pbc=[1, 1, 0]), Atoms("Cu", cell=[3, 0, 0], pbc=[1, 0, 0])]
)
def test_surfaces_and_wires_have_no_volume_and_are_fine(atoms):
    check_structure(atoms, "x")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("broken.cif", "data_x\n_cell_length_a nonsense\n"),
        ("empty.xyz", ""),
        ("binary.cif", "\0\1\2"),
        ("what.unknown", "what?"),
        ("short.xyz", "3\n\nH 0 0 0\n"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_error_that_names_it(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    tasks = list(TaskSource([CU, str(tmp_path / name), AG]))
    assert [task.error is None for task in tasks] == [True, False, True]
    assert isinstance(tasks[1].error, StructureError)
    assert f"{tmp_path / name} cannot be read as a structure" in str(tasks[1].error)


def test_frames_before_the_damage_are_tasks(tmp_path):
    path = tmp_path / "half.xyz"
    write(path, [molecule("H2O")] * 2)
    path.write_text(path.read_text() + "3\n\nH 0 0\n")
    tasks = list(TaskSource(path))
    assert [(task.source, task.error is None) for task in tasks] == [
        ("half.xyz#0", True),
        ("half.xyz#1", True),
        ("half.xyz#2", False),
    ]


def test_a_mended_file_is_another_task(tmp_path):
    path = tmp_path / "x.xyz"
    path.write_text("3\n\nH 0 0 0\n")
    before = next(iter(TaskSource(path)))
    write(path, CU)
    after = next(iter(TaskSource(path)))
    assert before.error is not None
    assert after.error is None
    assert before.key != after.key


def test_an_error_is_not_repeated():
    assert len(list(TaskSource([Atoms()], nstruct=5))) == 1


def test_what_is_no_task_at_all_raises():
    with pytest.raises(InputError, match="tasks: a int is not a task"):
        list(TaskSource(7))
