from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from mlipcluster.calculators.snapshot import Snapshot
from mlipcluster.errors import StructureError


def taken(atoms):
    snapshot = Snapshot(("charge",))
    snapshot.take(atoms, snapshot.changes(atoms))
    return snapshot


@pytest.mark.parametrize("repeat", [1, 12])  # small arrays and large ones are compared in two ways
def test_bits_are_compared(repeat):
    atoms = bulk("Cu", cubic=True) * (repeat, repeat, repeat)
    snapshot = taken(atoms)
    assert snapshot.changes(atoms.copy()) == []
    atoms.positions[-1, -1] = np.nextafter(atoms.positions[-1, -1], 9e9)
    assert snapshot.changes(atoms) == ["positions"]
    atoms.positions[0, 0] = -0.0
    assert snapshot.changes(atoms) == ["positions"]
    snapshot.take(atoms, ["positions"])
    assert snapshot.changes(atoms) == []
    atoms.positions[0, 0] = 0.0
    assert snapshot.changes(atoms) == ["positions"]


@pytest.mark.parametrize(
    "value",
    [
        *(np.nan, -0.0, (1, (2.0, "x")), [1, {"a": (np.nan,)}], {"b": 1, "a": [2]}, True, None, np.float32(0.1), "1"),
        *(np.array([np.nan, -0.0]), np.array(1.0), np.arange(3, dtype=">i4"), np.asfortranarray(np.eye(3)[:, :2])),
    ],
)
def test_what_stays_in_info_is_no_change(cu, value):
    cu.info["charge"] = value
    assert taken(cu).changes(cu) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *((0.0, -0.0), (1, 1.0), (1, True), ("1", 1), ((1, 2), (1, 3)), ([0.0], [-0.0]), ({"a": 1}, {"a": 2})),
        *(([1, 2], np.array([1, 2])), (np.zeros(2), np.zeros(2, ">i8")), ([[1], [2, 3]], np.array([1]))),
    ],
)
def test_what_differs_in_info_is_one(cu, one, other):
    for first, second in ((one, other), (other, one)):
        cu.info["charge"] = first
        snapshot = taken(cu)
        cu.info["charge"] = second
        assert snapshot.changes(cu) == ["info"]


def test_an_array_within_a_list_in_info_is_named_as_what_cannot_travel(cu):
    cu.info["charge"] = [1, 2]
    snapshot = taken(cu)
    cu.info["charge"] = [np.array([1, 2]), 2]
    with pytest.raises(StructureError, match=r"atoms\.info\['charge'\]"):
        snapshot.take(cu, snapshot.changes(cu))


@pytest.mark.parametrize("repeat", [1, 12])
def test_arrays_of_another_byte_order_are_taken_as_they_count(repeat):
    """As those are that ASE reads from netCDF files."""
    atoms = bulk("Cu", cubic=True) * (repeat, repeat, repeat)
    atoms.set_initial_magnetic_moments(np.arange(1.0, len(atoms) + 1))
    native = atoms.copy()
    for name in ("positions", "numbers", "initial_magmoms"):
        array = atoms.arrays[name]
        atoms.arrays[name] = array.astype(array.dtype.newbyteorder(">"))
    snapshot = taken(atoms)
    assert snapshot.changes(atoms) == snapshot.changes(native) == []
    assert all(array.dtype.isnative for array in snapshot.arrays.values())
    assert (snapshot.arrays["initial_magmoms"] == native.arrays["initial_magmoms"]).all()
    atoms.positions[0, 0] += 0.1
    assert snapshot.changes(atoms) == ["positions"]


@pytest.mark.parametrize("dtype", [object, np.longdouble, "U3"])
def test_numbers_of_a_kind_that_does_not_travel_are_named(cu, dtype):
    snapshot = taken(cu)
    cu.arrays["initial_charges"] = np.zeros(4).astype(dtype)
    with pytest.raises(StructureError, match="initial_charges are of dtype"):
        snapshot.take(cu, snapshot.changes(cu))


def test_arrays_that_are_no_plain_block_of_memory(cu):
    snapshot = taken(cu)
    cu.arrays["positions"] = np.asfortranarray(cu.positions)
    assert snapshot.changes(cu) == []
    cu.arrays["numbers"] = np.repeat(cu.numbers, 2)[::2]
    assert snapshot.changes(cu) == []


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda a: a.set_cell(a.cell * 1.01), ["cell"]),
        (lambda a: a.set_pbc([True, True, False]), ["pbc"]),
        (lambda a: a.symbols.__setitem__(0, "Au"), ["numbers"]),
        (lambda a: a.set_initial_charges([1] * 4), ["initial_charges"]),
        (lambda a: a.set_initial_magnetic_moments(np.ones((4, 3))), ["initial_magmoms"]),
        (lambda a: a.set_tags(3), ["tags"]),
        (lambda a: a.info.update(charge=1), ["info"]),
        (lambda a: a.info.update(charge=np.array([1])), ["info"]),
        (lambda a: a.info.update(charge=np.eye(3)), ["info"]),
        (lambda a: a.info.update(charge=np.float32(0.1)), ["info"]),
        (lambda a: a.info.update(colour="red"), []),
        (lambda a: a.set_momenta(np.ones((4, 3))), []),
        (lambda a: a.pop(), ["positions", "numbers"]),
    ],
)
def test_each_change_has_its_name(cu, change, names):
    snapshot = taken(cu)
    change(cu)
    assert snapshot.changes(cu) == names
    snapshot.take(cu, names)
    assert snapshot.changes(cu) == []


def test_back_to_atoms(cu):
    cu.set_initial_magnetic_moments([1, 2, 3, 4])
    cu.set_tags([4, 3, 2, 1])
    cu.info["charge"] = 1
    assert taken(cu).to_atoms() == cu
    assert taken(cu).to_atoms().info == {"charge": 1}


def with_position(value):
    atoms = bulk("Cu", cubic=True)
    atoms.positions[2, 1] = value
    return atoms


@pytest.mark.parametrize(
    ("atoms", "words"),
    [
        (Atoms(), "no atoms"),
        (with_position(np.nan), "Cu4: the position of atom 2 is .*nan"),
        (with_position(np.inf), "atom 2"),
        (Atoms("H", pbc=True), "without volume"),
        (Atoms("H", cell=[3, 3, 0], pbc=True), "without volume"),
        (Atoms("H", cell=[[1, 0, 0], [1, 0, 0], [0, 0, 1]], pbc=[True, True, False]), "without volume"),
        (Atoms("H", cell=[0, 0, 3], pbc=[True, False, False]), "without volume"),
        (Atoms("H", cell=[np.nan, 1, 1], pbc=True), "cell is"),
        (Atoms(numbers=[119]), "atomic number 119"),
        (Atoms(numbers=[-1]), "atomic number -1"),
        (Atoms("H2", magmoms=[0, np.nan]), "H2: initial_magmoms of atom 1 is nan"),
        (Atoms("H2", magmoms=[[0, 0, 0], [0, np.inf, 0]]), "initial_magmoms of atom 1 is .*inf"),
        (Atoms("H2", charges=[np.nan, np.nan]), r"initial_charges of atom 0 is nan \(2 of 2 atoms"),
    ],
)
def test_what_no_calculator_can_take_is_refused_and_not_kept(atoms, words, cu):
    snapshot = taken(cu)
    with pytest.raises(StructureError, match=words):
        snapshot.take(atoms, snapshot.changes(atoms))
    assert snapshot.changes(cu) == []


@pytest.mark.parametrize(
    "atoms",
    [
        molecule("H2O"),
        fcc111("Cu", (1, 1, 1)),
        Atoms("H", cell=[0, 0, 3], pbc=[False, False, True]),
        Atoms("X"),
        Atoms("H", cell=np.eye(3) * 1e-3, pbc=True),
        Atoms("H2", positions=[[0, 0, 0], [1e160, 0, 0]]),
    ],
)
def test_what_is_only_unusual_is_taken(atoms):
    assert taken(atoms).changes(atoms) == []


def test_info_that_cannot_travel_is_named(cu):
    cu.info["charge"] = object()
    with pytest.raises(StructureError, match=r"atoms\.info\['charge'\]"):
        taken(cu)


def test_of_a_refused_structure_nothing_is_copied(cu):
    snapshot = taken(cu)
    cu.positions[0] += 0.1
    cu.info["charge"] = object()
    with pytest.raises(StructureError):
        snapshot.take(cu, ["positions", "info"])
    cu.info["charge"] = 1
    assert snapshot.changes(cu) == ["positions", "info"]
