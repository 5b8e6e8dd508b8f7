from __future__ import annotations

import json

import numpy as np
from ase.db import connect
from ase.io import read

from mlipcluster.outputs.ase_json import JSON, frame
from mlipcluster.outputs.output import write_output


def test_results_constraints_and_arrays_come_back_bit_for_bit(rich):
    made = frame(rich)
    seen = JSON.read(made.before + made.after)
    for name in ("forces", "stress", "magmoms", "charges", "dipole", "energy", "magmom"):
        np.testing.assert_array_equal(seen.calc.results[name], rich.calc.results[name])
    for name in ("positions", "tags", "momenta", "initial_magmoms", "initial_charges"):
        np.testing.assert_array_equal(seen.arrays[name], rich.arrays[name])
    assert [type(c).__name__ for c in seen.constraints] == ["FixAtoms", "FixCartesian", "Hookean"]
    assert made.hidden == ("array 'shift'", "array 'flags'", "array 'label'", "result 'descriptors'")


def test_the_file_is_json_and_an_ase_database(tmp_path, atoms, make):
    atoms.info = {"barrier": np.float64(0.25), "name": "é", "energy": 3, "toatoms": 1, "a b": 1, "list": [1]}
    path = write_output(tmp_path, atoms, make(atoms), format="json")
    assert path.suffix == ".json"
    assert read(path).get_potential_energy() == atoms.get_potential_energy()
    assert json.loads(path.read_text())["mlipcluster"]["instance"]["sha1"] == "a" * 40
    with connect(path) as database:
        row = database.get(barrier=0.25)
        assert row.key_value_pairs == {"barrier": 0.25, "name": "é"}
    hidden = json.loads(path.read_text())["mlipcluster"]["metadata"]["not_in_text"]
    assert hidden == ["info 'energy'", "info 'toatoms'", "info 'a b'", "info 'list'"]


def test_equal_structures_have_equal_text(atoms):
    assert frame(atoms) == frame(atoms.copy() if atoms.calc is None else atoms)
    other = atoms.copy()
    other.calc = atoms.calc
    other.positions[0, 0] += 1e-12
    assert frame(other) != frame(atoms)


def test_text_without_a_record_has_none():
    assert JSON.split('{"1": {}}\n') is None
