from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
import struct
from pathlib import Path

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import (
    FixAtoms,
    FixBondLengths,
    FixCartesian,
    FixCom,
    FixedLine,
    FixedMode,
    FixedPlane,
    FixScaled,
    FixSymmetry,
    Hookean,
)
from ase.spacegroup import Spacegroup, crystal
from hypothesis import given, settings

from mlipcluster.errors import InputError, RecordError
from mlipcluster.records.packing import current_results, decode, encode, freeze, is_portable


class Own:
    """Something with no portable form."""

    def __init__(self, value=1):
        self.value = value

    def __eq__(self, other):
        return isinstance(other, Own) and other.value == self.value

    __hash__ = None


def _through_text(value, trust=False):
    return decode(json.loads(json.dumps(encode(value))), trust)


def _bits(value):  # noqa: PLR0911 - one a type
    """Everything that must be the same, with types, and floats by their bits."""
    if isinstance(value, float) and type(value) is float:
        return "float", struct.pack("<d", value)
    if isinstance(value, np.ndarray):
        items = [_bits(item) for item in value.ravel().tolist()] if value.dtype == object else value.tobytes()
        return "array", value.dtype.str, value.shape, items, value.flags.f_contiguous
    if isinstance(value, np.generic):
        return type(value).__name__, value.dtype.str, value.tobytes()
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [_bits(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return type(value).__name__, sorted(repr(_bits(item)) for item in value)
    if isinstance(value, dict):
        return "dict", sorted(
            ((repr(_bits(key)), _bits(item)) for key, item in value.items()), key=lambda pair: pair[0]
        )
    if isinstance(value, complex):
        return "complex", struct.pack("<dd", value.real, value.imag)
    if isinstance(value, Atoms):
        results = current_results(value)
        constraints = [(type(c).__name__, _bits(vars(c))) for c in value.constraints]
        return (
            "atoms",
            [(name, _bits(array)) for name, array in value.arrays.items()],
            value.cell.array.tobytes(),
            value.pbc.tobytes(),
            value.get_celldisp().tobytes(),
            _bits(value.info),
            repr(constraints),
            _bits(results[1]) if results else None,
        )
    return type(value).__name__, value


_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary(max_size=2000)
    | st.complex_numbers()
    | st.sampled_from([2**5000, -(2**5000) + 1, Path("a b/ü"), np.float32(0.1), np.float64("nan"), np.int8(-3)])
    | st.sampled_from(
        [np.bool_(True), np.str_("ü"), np.bytes_(b"\0a"), np.complex64(1 + 2j), np.datetime64("2020-01-02")]
    )
    | hnp.arrays(
        st.sampled_from(["<f8", ">f8", "<f4", "<f2", "<i8", "|u1", "|b1", "<c16", "<U3", "|S2", "<M8[ns]"]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=12),
    )
)
_HASHABLE = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(max_size=8)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.sampled_from(["__tuple__", "__x", "data"]), inner, max_size=4)
        | st.dictionaries(_HASHABLE | st.tuples(_HASHABLE), inner, max_size=3)
        | st.sets(_HASHABLE, max_size=4)
        | st.frozensets(_HASHABLE, max_size=4)
    ),
    max_leaves=10,
)


def _native(value):
    """Big-endian arrays come back little-endian: the same values."""
    if isinstance(value, np.ndarray) and value.dtype.byteorder == ">":
        return value.astype(value.dtype.newbyteorder("<"))
    if isinstance(value, (list, tuple)):
        return type(value)(_native(item) for item in value)
    return {key: _native(item) for key, item in value.items()} if isinstance(value, dict) else value


@given(_VALUES)
def test_values_come_back_bit_for_bit(value):
    assert is_portable(value)
    assert _bits(_through_text(value)) == _bits(_native(value))


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(600.0).reshape(20, 30)),
        np.arange(60.0).reshape(3, 4, 5)[:, ::2, ::-1],
        np.zeros((1000, 3)),
        np.random.default_rng(1).normal(size=(200, 3)),
        np.array([[None, 1], ["ü", (1.5, np.nan)]], dtype=object),
        np.array(3.5),
        np.zeros((0, 3)),
    ],
    ids=["fortran", "strided", "zeros", "random", "objects", "scalar", "empty"],
)
def test_arrays_come_back_bit_for_bit_and_can_be_written_to(array):
    back = _through_text(array)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert [_bits(x) for x in back.ravel().tolist()] == [_bits(x) for x in array.ravel().tolist()]
    assert back.flags.writeable
    assert back.flags.f_contiguous == array.flags.f_contiguous or not array.flags.f_contiguous


def test_compression_is_used_only_where_it_pays():
    assert "blosc" in encode(np.zeros(1000))
    assert "base64" in encode(np.zeros(10))
    assert "base64" in encode(np.frombuffer(np.random.default_rng(0).bytes(4000), "u1"))
    assert "base64" in encode(np.zeros(1000), compress=False)


def _rich_atoms():
    atoms = bulk("Cu", cubic=True) * (2, 2, 1)
    atoms.rattle(0.1, seed=3)
    atoms.set_tags(range(len(atoms)))
    atoms.set_initial_magnetic_moments(np.linspace(-1, 1, len(atoms)))
    atoms.set_initial_charges(np.linspace(0, 1e-300, len(atoms)))
    atoms.set_momenta(np.random.default_rng(0).normal(size=(len(atoms), 3)))
    atoms.set_masses(np.linspace(1, 70, len(atoms)))
    atoms.set_array("mine", np.arange(4 * len(atoms), dtype="<i2").reshape(-1, 2, 2))
    atoms.set_celldisp([0.1, 0.2, 0.3])
    atoms.pbc = (True, False, True)
    atoms.info = {"a": np.nan, "nested": {"b": [1, (2, np.arange(3))]}, 3: None, "quote": "\"'\n\\ü"}
    return atoms


def test_atoms_come_back_whole():
    atoms = _rich_atoms()
    atoms.calc = EMT()
    forces = atoms.get_forces()
    stress = atoms.get_stress()
    back = _through_text(atoms)
    assert back == atoms
    assert _bits(back) == _bits(freeze(atoms))
    assert isinstance(back.calc, SinglePointCalculator)
    assert back.calc.name == "emt"
    assert back.get_forces(apply_constraint=False).tobytes() == forces.tobytes()
    assert back.get_stress().tobytes() == stress.tobytes()
    assert is_portable(atoms)


@pytest.mark.parametrize(
    "make",
    [
        lambda a: FixAtoms([0, 2]),
        lambda a: FixAtoms(mask=[atom.index < 2 for atom in a]),
        lambda a: FixCom(),
        lambda a: FixCartesian([1, 2], (True, False, True)),
        lambda a: FixScaled([0], (True, True, False)),
        lambda a: FixedLine([3], [1, 2, 3]),
        lambda a: FixedPlane([3, 4], [0.1, 0.7, -3]),
        lambda a: FixedMode(np.linspace(0.1, 1, 3 * len(a))),
        lambda a: FixBondLengths([(0, 1), (2, 3)]),
        lambda a: Hookean(0, 1, 5.0, rt=2.6),
        lambda a: Hookean(0, (1.0, 2.0, 3.0), 5.0, rt=2.6),
        FixSymmetry,
    ],
    ids=[
        "FixAtoms",
        "mask",
        "FixCom",
        "FixCartesian",
        "FixScaled",
        "FixedLine",
        "FixedPlane",
        "FixedMode",
        "FixBondLengths",
        "Hookean",
        "Hookean-point",
        "FixSymmetry",
    ],
)
def test_constraints_come_back_bit_for_bit(make):
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    if make is FixSymmetry:
        pytest.importorskip("spglib")
    atoms.set_constraint(make(atoms))
    back = _through_text(atoms)
    assert _bits(back) == _bits(atoms)
    moved = np.random.default_rng(0).normal(size=(len(atoms), 3))
    a, b = moved.copy(), moved.copy()
    for structure, forces in ((atoms, a), (back, b)):
        for constraint in structure.constraints:
            constraint.adjust_forces(structure, forces)
    assert a.tobytes() == b.tobytes()


def test_a_crystal_with_its_space_group_is_portable():
    atoms = crystal("NaCl", [(0, 0, 0), (0.5, 0.5, 0.5)], spacegroup=225, cellpar=[5.64] * 3 + [90] * 3)
    assert is_portable(atoms)
    back = _through_text(atoms)
    assert isinstance(back.info["spacegroup"], Spacegroup)
    assert back.info["spacegroup"].no == 225


def test_results_that_no_longer_belong_are_left_out():
    atoms = molecule("H2O")
    atoms.calc = EMT()
    atoms.get_potential_energy()
    assert current_results(atoms) is not None
    atoms.positions[0, 0] += 1e-12
    assert current_results(atoms) is None
    assert decode(encode(atoms)).calc is None
    frozen = molecule("H2O")
    frozen.calc = SinglePointCalculator(frozen, energy=1.0)
    frozen.set_initial_charges([0.1, 0, 0])
    assert decode(encode(frozen)).calc is None


def test_results_without_a_name_in_ase_come_back():
    atoms = molecule("H2O")
    atoms.calc = SinglePointCalculator(atoms, energy=-1.5)
    atoms.calc.results["uncertainty"] = np.arange(3, dtype="f4")
    back = decode(encode(atoms))
    assert back.calc.results["uncertainty"].dtype == np.float32
    with pytest.raises(PropertyNotImplementedError):
        back.get_stress()


def test_freezing_leaves_the_original_alone():
    atoms = molecule("H2O")
    atoms.calc = calc = EMT()
    energy = atoms.get_potential_energy()
    frozen = freeze(atoms)
    assert atoms.calc is calc
    assert frozen.get_potential_energy() == energy
    assert freeze(molecule("H2O")).calc is None


def test_an_object_needs_trust():
    packed = json.loads(json.dumps(encode({"x": [Own(3)]})))
    with pytest.raises(RecordError, match="trust=True"):
        decode(packed)
    assert decode(packed, trust=True) == {"x": [Own(3)]}


def test_what_needs_a_pickle_is_not_portable():
    assert not is_portable(Own())
    assert not is_portable([{"a": (dt.timedelta(1),)}])
    with pytest.raises(InputError, match="no portable form"):
        encode(Own(), pickles=False)


def test_what_cannot_be_pickled_is_named():
    with pytest.raises(InputError, match="generator"):
        encode(x for x in ())


def test_a_value_that_contains_itself_is_named():
    value = []
    value.append(value)
    with pytest.raises(InputError, match="contains itself"):
        encode(value)


def _frame(**changes):
    packed = encode(np.zeros(1000))
    frame = bytearray(base64.b64decode(packed["blosc"]))
    for offset, number in changes.items():
        frame[int(offset[1:]) : int(offset[1:]) + 4] = struct.pack("<I", number)
    return {**packed, "blosc": base64.b64encode(bytes(frame)).decode()}


@pytest.mark.parametrize(
    "packed",
    [
        {"__array__": "<f8", "shape": [2], "base64": "AAAA"},
        {"__array__": "<f8", "shape": [10**12], "base64": ""},
        {"__array__": "<f8", "shape": [-1], "base64": ""},
        {"__array__": "<f8", "shape": [1.0], "base64": ""},
        {"__array__": "<f8", "shape": [1] * 100, "base64": "AAAAAAAAAAA="},
        {"__array__": "O", "shape": [3], "items": [1]},
        {"__array__": "|V8", "shape": [1], "base64": "AAAAAAAAAAA="},
        {"__array__": "<f8,<f8", "shape": [1], "base64": "AAAAAAAAAAA="},
        {"__array__": "object", "shape": [1], "base64": "AAAAAAAAAAA="},
        {"__array__": "<f8", "shape": [1], "base64": "!!"},
        {"__array__": "<f8", "shape": [1]},
        {"__array__": "<f8", "shape": [1], "blosc": "AAAA"},
        {"__array__": "<f8", "shape": [1], "blosc": "A" * 64},
        _frame(_4=2**31 - 1),
        _frame(_4=8001),
        _frame(_8=1),
        _frame(_12=5),
        {"__tuple__": 3},
        {"__set__": [[1]]},
        {"__dict__": [[1]]},
        {"__complex__": [1]},
        {"__int__": "zz"},
        {"__float__": "00"},
        {"__bytes__": {}},
        {"__path__": 3},
        {"__number__": "<f8", "value": "x"},
        {"__number__": "<i8", "value": 1e300},
        {"__cell__": [1]},
        {"__spacegroup__": ["x", 1]},
        {"__spacegroup__": [999, 1]},
        {"__constraint__": "dict2constraint", "kwargs": {}},
        {"__constraint__": "FixAtoms", "kwargs": {"nonsense": 1}},
        {"__atoms__": {}},
        {"__atoms__": {**encode(molecule("H2O"))["__atoms__"], "cell": None}},
        {"__atoms__": {**encode(molecule("H2O"))["__atoms__"], "arrays": {"numbers": encode(np.arange(3))}}},
        {"__pickle__": "x", "base64": base64.b64encode(b"cos\nsystem\n(S'true'\ntR.").decode()},
    ],
)
def test_hostile_input_is_a_record_error(packed):
    with pytest.raises(RecordError):
        decode(packed)
    with pytest.raises(RecordError):
        decode([{"x": packed}])


def test_deep_nesting_is_a_record_error():
    packed = []
    for _ in range(100_000):
        packed = [packed]
    with pytest.raises(RecordError):
        decode(packed)


_TAGS = ["__tuple__", "__array__", "__atoms__", "__bytes__", "__number__", "__constraint__", "__dict__", "__pickle__"]
_HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["<f8", "AAAA", "FixAtoms"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*_TAGS, "shape", "base64", "blosc", "items", "value", "kwargs"]), inner)
    ),
    max_leaves=10,
)


@settings(max_examples=300)
@given(_HOSTILE)
def test_any_json_decodes_or_is_a_record_error(packed):
    with contextlib.suppress(RecordError):
        decode(packed)


@given(st.integers(0, 10**6), st.integers(0, 255))
def test_a_damaged_blosc_frame_never_crashes(position, byte):
    packed = encode(np.arange(1000.0))
    frame = bytearray(base64.b64decode(packed["blosc"]))
    frame[position % len(frame)] = byte
    try:
        array = decode({**packed, "blosc": base64.b64encode(bytes(frame)).decode()})
    except RecordError:
        return
    assert array.shape == (1000,)
