from __future__ import annotations

from io import StringIO

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write
from ase.io.extxyz import write_extxyz
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlipcluster.outputs.extxyz import EXTXYZ, frame


def through_ase(atoms):
    made = frame(atoms)
    return EXTXYZ.read(made.before + made.after), made.hidden


def test_without_info_the_text_is_that_of_ase_s_writer(atoms):
    atoms.info = {}
    buffer = StringIO()
    write_extxyz(buffer, atoms)
    made = frame(atoms)
    assert made.before + made.after == buffer.getvalue()


def test_results_constraints_and_arrays_come_back(rich):
    seen, hidden = through_ase(rich)
    results = seen.calc.results
    assert results["energy"] == -1.25
    assert results["magmom"] == 1.5
    for name in ("forces", "stress", "magmoms", "charges", "energies", "dipole"):
        np.testing.assert_allclose(results[name], rich.calc.results[name], atol=1e-8)
    for name in ("tags", "momenta", "initial_magmoms", "initial_charges", "shift", "flags", "label"):
        np.testing.assert_allclose(seen.arrays[name], rich.arrays[name], atol=1e-8) if name != "label" else None
    assert list(seen.arrays["label"]) == ["a", "bb", "c", "d"]
    assert seen.pbc.tolist() == [True, False, True]
    np.testing.assert_array_equal(seen.cell.array, rich.cell.array)
    fixed = {(index, axis) for c in seen.constraints for index in c.index for axis in np.flatnonzero(~mask(c))}
    told = {"constraint Hookean", "result 'descriptors'"}
    if fixed:
        assert fixed == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 2)}
    else:  # ASE before 3.26
        told |= {"constraint FixAtoms", "constraint FixCartesian"}
    assert set(hidden) == told


def mask(constraint):
    return ~np.asarray(constraint.mask) if hasattr(constraint, "mask") else np.zeros(3, bool)


HOSTILE_ARRAYS = {
    "tensor": np.ones((4, 3, 3)),
    "complex": np.ones(4, complex),
    "unsigned": np.ones(4, "uint32"),
    "wide": np.full(4, 2**31),
    "forces": np.ones((4, 3)),
    "charge": np.ones(4),
    "species": np.ones(4),
    "move_mask": np.ones(4, bool),
    "a b": np.ones(4),
    "a:b": np.ones(4),
    "ä": np.ones(4),
    "words": np.array(["a", "b c", "d", "e"]),
    "blank": np.array(["a", "", "d", "e"]),
    "bytes": np.array([b"a"] * 4),
    "none": np.zeros((4, 0)),
    "objects": np.array([{}, [], None, 1], dtype=object),
}


@pytest.mark.parametrize("name", HOSTILE_ARRAYS)
def test_an_array_that_columns_cannot_hold_is_left_out_and_named(rich, name):
    rich.arrays[name] = HOSTILE_ARRAYS[name]
    seen, hidden = through_ase(rich)
    assert f"array {name!r}" in hidden
    assert name not in seen.arrays
    np.testing.assert_allclose(seen.calc.results["forces"], rich.calc.results["forces"], atol=1e-8)


def test_columns_that_would_share_a_name_are_not_both_written(rich):
    rich.arrays["a"] = np.ones((4, 2))
    rich.arrays["a0"] = np.zeros(4)
    seen, hidden = through_ase(rich)
    assert "array 'a0'" in hidden
    np.testing.assert_array_equal(seen.arrays["a"], 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("energy", "high"), ("energy", np.ones(2)), ("forces", np.ones((3, 3))), ("stress", np.ones(5)), ("dipole", 1j)],
)
def test_a_result_of_another_shape_is_left_out_and_named(rich, name, value):
    rich.calc.results[name] = value
    seen, hidden = through_ase(rich)
    assert f"result {name!r}" in hidden
    assert name not in seen.calc.results


@pytest.mark.parametrize("number", [0, 1])
def test_few_atoms(number):
    atoms = Atoms("H" * number, positions=np.zeros((number, 3)), info={"a": 1})
    seen, hidden = through_ase(atoms)
    assert len(seen) == number
    assert seen.info == {"a": 1}
    assert hidden == ()
    assert seen.calc is None


@given(
    positions=hnp.arrays(float, st.tuples(st.integers(1, 5), st.just(3)), elements=st.floats(-1e6, 1e6)),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    extra=hnp.arrays(st.sampled_from(["f8", "f4", "i8", "?", "u1", "c16", "U3"]), st.just((5,))),
    name=st.text(max_size=5),
    info=st.dictionaries(
        st.text(max_size=4), st.recursive(st.none() | st.text() | st.floats(), st.lists, max_leaves=4)
    ),
)
def test_whatever_atoms_hold_ase_can_read_the_frame(positions, pbc, extra, name, info):
    atoms = Atoms("H" * len(positions), positions=positions, pbc=pbc, cell=[2, 3, 4], info=info)
    if name not in atoms.arrays:
        atoms.arrays[name] = extra[: len(positions)]
    seen, _ = through_ase(atoms)
    np.testing.assert_allclose(seen.positions, positions, atol=1e-8)
    assert seen.pbc.tolist() == list(pbc)


def test_info_never_stands_in_for_the_record(atoms):
    atoms.info = {"x": ' mlipcluster="_JSON {}"', "mlipcluster": 'x" mlipcluster="_JSON {}"'}
    made = frame(atoms)
    text = f"{made.before}{EXTXYZ.opening}{{}}{EXTXYZ.closing}{made.after}"
    assert EXTXYZ.split(text) == (made.before, "{}", made.after)


@pytest.mark.parametrize(
    "text", ["", "4", "4\n", "4\nLattice\n", '4\n mlipcluster="_JSON {}\nCu', '4\n\n mlipcluster="_JSON {}"\n']
)
def test_text_without_a_whole_record_in_its_second_line_has_none(text):
    assert EXTXYZ.split(text) is None


def test_what_ase_cannot_hold_is_why_info_is_not_written_by_ase(tmp_path, cu):
    """When this fails, ASE has learned to, and `mlipcluster.outputs.info_text` may become simpler."""
    cu.info = {"text": "a\\b"}
    write(tmp_path / "a.extxyz", cu)
    assert read(tmp_path / "a.extxyz").info["text"] != "a\\b"
