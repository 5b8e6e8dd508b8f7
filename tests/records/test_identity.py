from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import hypothesis.strategies as st
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.spacegroup import crystal
from hypothesis import given

from mlipcluster.errors import InputError
from mlipcluster.records.identity import Parts, digest, parameters_digest, structure_digest, task_key
from mlipcluster.records.packing import decode, encode


def _atoms():
    return bulk("Cu", cubic=True)


def _set(array, index, value):
    array[index] = value


CHANGES = {
    "numbers": lambda a: _set(a.numbers, 0, 30),
    "one ulp of a position": lambda a: _set(a.positions, (1, 1), np.nextafter(a.positions[1, 1], 9)),
    "minus zero": lambda a: _set(a.positions, (0, 0), -0.0),
    "cell": lambda a: a.set_cell(a.cell[:] * 1.0001),
    "pbc": lambda a: a.set_pbc((True, True, False)),
    "tags": lambda a: a.set_tags([1, 0, 0, 0]),
    "momenta": lambda a: a.set_momenta(np.ones((4, 3))),
    "masses": lambda a: a.set_masses([64, 63, 63, 63]),
    "magmoms": lambda a: a.set_initial_magnetic_moments([1, 0, 0, 0]),
    "charges": lambda a: a.set_initial_charges([1, 0, 0, 0]),
    "custom array": lambda a: a.set_array("mine", np.arange(4)),
    "its dtype": lambda a: a.set_array("mine", np.arange(4, dtype="i4")),
    "its name": lambda a: a.set_array("other", np.arange(4)),
    "info": lambda a: a.info.update(charge=1),
    "info's value": lambda a: a.info.update(charge=2),
    "info's type": lambda a: a.info.update(charge=1.0),
    "info's array": lambda a: a.info.update(x=np.arange(2000.0)),
    "nested info": lambda a: a.info.update(x={"y": [1, (2, None)]}),
    "constraint": lambda a: a.set_constraint(FixAtoms([0])),
    "another constraint": lambda a: a.set_constraint(FixAtoms([1])),
    "celldisp": lambda a: a.set_celldisp([0.1, 0, 0]),
    "order of atoms": lambda a: a.positions.__setitem__(slice(None), a.positions[::-1].copy()),
    "an atom more": lambda a: a.append("Cu"),
}


def test_each_change_of_a_structure_has_a_digest_of_its_own():
    digests = {"nothing": structure_digest(_atoms()), "no structure": structure_digest(None)}
    for name, change in CHANGES.items():
        atoms = _atoms()
        change(atoms)
        digests[name] = structure_digest(atoms)
    assert len(set(digests.values())) == len(digests)
    assert all(len(value) == 64 and int(value, 16) >= 0 for value in digests.values())


def _with_calculator(atoms):
    atoms.calc = EMT()
    atoms.get_potential_energy()
    return atoms


def _infos(atoms, names):
    atoms.info = {name: ord(name) for name in names}
    return atoms


def _arrays(atoms, names):
    for name in names:
        atoms.set_array(name, np.arange(4))
    return atoms


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (_atoms(), _with_calculator(_atoms())),
        (_infos(_atoms(), "abc"), _infos(_atoms(), "cab")),
        (_arrays(_atoms(), "ab"), _arrays(_atoms(), "ba")),
        (_atoms(), Atoms(_atoms())),
        (_atoms(), decode(json.loads(json.dumps(encode(_atoms()))))),
    ],
    ids=["calculator", "order of info", "order of arrays", "copy", "packed and unpacked"],
)
def test_what_is_no_change_keeps_the_digest(one, other):
    assert structure_digest(one) == structure_digest(other)


def test_byte_order_is_no_change():
    one, other = _atoms(), _atoms()
    one.set_array("x", np.arange(4.0))
    other.set_array("x", np.arange(4.0).astype(">f8"))
    other.arrays["x"] = np.arange(4.0).astype(">f8")
    assert structure_digest(one) == structure_digest(other)


def test_info_as_cif_files_have_it():
    atoms = crystal("NaCl", [(0, 0, 0), (0.5, 0.5, 0.5)], spacegroup=225, cellpar=[5.64] * 3 + [90] * 3)
    atoms.info["occupancy"] = {"0": {"Na": 1.0}, 1: {"Cl": 1.0}}
    assert structure_digest(atoms) == structure_digest(atoms.copy())


@pytest.mark.parametrize("value", [threading.Lock(), (x for x in ()), np.random.default_rng(1)])
def test_info_and_arguments_without_a_stable_value_are_named(value):
    atoms = _atoms()
    atoms.info["what is this"] = [value]
    with pytest.raises(InputError, match=r"atoms\.info 'what is this'"):
        structure_digest(atoms)
    with pytest.raises(InputError, match="keyword argument 'odd'"):
        parameters_digest({"odd": value})


class _Settings:
    def __init__(self, width):
        self.width = width


def _twice(x):
    return 2 * x


PARAMETERS = [
    {},
    {"a": 1},
    {"a": 1.0},
    {"a": True},
    {"a": "1"},
    {"a": None},
    {"b": 1},
    {"a": [1]},
    {"a": (1,)},
    {"a": {1}},
    {"a": {1: 2}},
    {"a": {"1": 2}},
    {"a": {"list": [1]}},
    {"a": b"1"},
    {"a": 1j},
    {"a": np.float64(1)},
    {"a": np.float32(1)},
    {"a": np.array([1])},
    {"a": np.array([1.0])},
    {"a": float("nan")},
    {"a": float("inf")},
    {"a": -0.0},
    {"a": 0.0},
    {"a": _atoms()},
    {"a": _Settings(1)},
    {"a": _Settings(2)},
    {"a": _twice},
    {"a": np.sin},
    {"a": EMT},
    {"a": EMT()},
    {"a": 10**30},
]


def test_different_parameters_have_different_digests():
    digests = [parameters_digest(kwargs) for kwargs in PARAMETERS]
    assert len(set(digests)) == len(digests)


def test_the_order_of_keys_does_not_matter():
    assert parameters_digest({"a": 1, "b": {"x": 1, 2: 3}}) == parameters_digest({"b": {2: 3, "x": 1}, "a": 1})
    assert digest({"a": 1, "b": [1.0]}) == digest(json.loads('{"b": [1.00e0], "a": 1}'))


@given(st.floats())
def test_a_float_has_one_digest_however_it_is_written(x):
    written = json.loads(f"{x:.17e}") if np.isfinite(x) else x
    assert digest([x]) == digest([written])


@given(st.dictionaries(st.text(), st.floats() | st.text() | st.integers()))
def test_parameters_digest_is_a_function_of_the_value(kwargs):
    again = decode(json.loads(json.dumps(encode(kwargs))))
    assert parameters_digest(kwargs) == parameters_digest(dict(reversed(again.items())))


def test_what_is_not_json_has_no_digest():
    with pytest.raises(InputError, match="not JSON"):
        digest({"a": object()})


def test_task_keys():
    atoms = _atoms()
    keys = [
        task_key(atoms, {}),
        task_key(None, {}),
        task_key(atoms, {"x": 1}),
        task_key(atoms, {}, "emt"),
        task_key(atoms, {}, "chgnet"),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 32 and int(key, 16) >= 0 for key in keys)
    assert task_key(atoms, {"x": 1, "y": 2}, "emt") == task_key(atoms.copy(), {"y": 2, "x": 1}, "emt")


_SCRIPT = """
import numpy as np
from ase.build import bulk
from mlipcluster.records.identity import task_key
from mlipcluster.records.seeds import call_seed
atoms = bulk("Cu", cubic=True)
atoms.info = {"set": {"a", "b", "c", "d"}, "x": np.arange(3)}
key = task_key(atoms, {"names": frozenset({"p", "q", "r"}), "y": {"k": 0.1}}, "emt")
print(key, call_seed(7, key, 0, 1, (2,)))
"""


def _in_process(hash_seed):
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run([sys.executable, "-c", _SCRIPT], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_another_process_with_another_hash_seed_finds_the_same():
    assert _in_process("1") == _in_process("2")


def test_keys_and_seeds_are_what_they_always_were():
    # Stored ledgers hold these: changing how they are made makes every finished task run again.
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.75]])
    assert structure_digest(atoms)[:16] == "2076c2f42de96d1d"
    assert task_key(atoms, {"fmax": 0.02, "steps": 500}, "emt") == "42f40296b7a072f0ad5de2c702689cbf"


def test_parts_name_the_first_difference():
    parts = Parts("s", "p", "code", "calc", "env", "7")
    assert parts.identity() == Parts("s", "p", "code", "calc", "env", "7").identity()
    assert len(parts.identity()) == 32
    other = Parts("s", "p", "code2", "calc", "env2", "7")
    assert parts.first_difference(parts) is None
    assert parts.first_difference(other) == "protocol"
    assert parts.first_difference(other, accepted={"protocol"}) == "environment"
    assert parts.first_difference(other, accepted=("protocol", "environment")) is None
    assert parts.first_difference(other.to_json()) == "protocol"
    assert Parts.from_json(json.loads(json.dumps(parts.to_json()))) == parts
    assert Parts.from_json({"structure": "s", "unknown": 1}) == Parts("s")


def test_parts_do_not_run_into_each_other():
    assert Parts("ab", "c").identity() != Parts("a", "bc").identity()
