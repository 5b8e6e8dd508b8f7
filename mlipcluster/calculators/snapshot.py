"""What a structure looked like when it was last sent, bit for bit, so that only what changed is sent again."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms

from mlipcluster.errors import StructureError
from mlipcluster.socket_worker.wire import INFO, portable

REQUIRED = ("numbers", "positions", "cell", "pbc")
FINITE = ("initial_charges", "initial_magmoms")
OPTIONAL = (*FINITE, "tags")
HEAVIEST = 118
#: Cells are flat when their volume is this small compared with that of a box with the same edges.
FLAT = 1e-10
#: Bytes up to which a copy is compared faster than numbers are.
SMALL = 1 << 13
#: Kinds of numbers that travel, as NumPy's ``dtype.char`` names them; either byte order does.
NUMBERS = "?bBhHiIlLqQefdFD"


class Snapshot:
    """A copy of those parts of a structure that a calculator may read.

    Arrays are compared bit for bit: NaN equals itself and -0.0 differs from 0.0, as they do for the calculator.

    Parameters
    ----------
    info_keys : sequence of str
        Entries of ``atoms.info`` that count.

    Attributes
    ----------
    arrays : dict of str to numpy.ndarray
        ``numbers``, ``positions`` (n, 3) in Å, ``cell`` (3, 3) in Å, ``pbc`` (3,), and optional ones that are set.
    info : dict
        The entries that count and are set: arrays, and what JSON can hold.
    """

    def __init__(self, info_keys: Sequence[str]) -> None:
        self.info_keys = tuple(info_keys)
        self.arrays: dict[str, np.ndarray] = {}
        self.info: dict[str, Any] = {}
        self._bits: dict[str, bytes | np.ndarray] = {}

    def changes(self, atoms: Atoms) -> list[str]:
        """Names of what differs from *atoms*: of arrays, and ``"info"``. Everything, before the first :meth:`take`."""
        arrays, bits = atoms.arrays, self._bits
        if not bits:
            changed = [*REQUIRED, *(name for name in OPTIONAL if name in arrays)]
        else:
            changed = [name for name in ("positions", "numbers") if not _same(arrays[name], bits[name])]
            if atoms.cell.array.tobytes() != bits["cell"]:
                changed.append("cell")
            if atoms.pbc.tobytes() != bits["pbc"]:
                changed.append("pbc")
            if len(arrays) > 2 or len(bits) > len(REQUIRED):
                changed += [name for name in OPTIONAL if self._optional_changed(name, arrays)]
        if (atoms.info or self.info) and not _same_info(self._info(atoms), self.info):
            changed.append("info")
        return changed

    def take(self, atoms: Atoms, changed: Sequence[str]) -> None:
        """Copy what has *changed*.

        Raises
        ------
        StructureError
            No calculator could take the structure; nothing was copied.
        """
        check(atoms, changed)
        if "info" in changed:  # first, for it may refuse
            self.info = {key: _portable_info(key, value) for key, value in self._info(atoms).items()}
        for name in changed:
            if name == "info":
                continue
            if name in ("cell", "pbc"):
                self._take_array(name, atoms.cell.array if name == "cell" else atoms.pbc)
            elif name in atoms.arrays:
                self._take_array(name, atoms.arrays[name])
            else:
                del self.arrays[name], self._bits[name]

    def copy(self) -> Snapshot:
        """A copy that keeps what this one lets go of."""
        other = Snapshot(self.info_keys)
        other.arrays = {name: array.copy() for name, array in self.arrays.items()}
        other.info = dict(self.info)  # entries are replaced, never changed
        other._bits = {name: _bits(array) for name, array in other.arrays.items()}
        return other

    def to_atoms(self) -> Atoms:
        """The structure, as far as it was copied."""
        atoms = Atoms(**{name: self.arrays[name] for name in REQUIRED}, info=copy.deepcopy(self.info))
        for name in OPTIONAL:
            if name in self.arrays:
                atoms.set_array(name, self.arrays[name])
        return atoms

    def split_info(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What of :attr:`info` travels as JSON, and what as arrays, these named as :data:`.wire.INFO` says."""
        arrays = {key: value for key, value in self.info.items() if isinstance(value, np.ndarray)}
        rest = {key: value for key, value in self.info.items() if key not in arrays}
        return rest, {INFO + key: value for key, value in arrays.items()}

    def _take_array(self, name: str, source: np.ndarray) -> None:
        kept = self.arrays.get(name)
        if kept is not None and kept.shape == source.shape and kept.dtype == source.dtype:
            kept[...] = source
        else:
            kept = self.arrays[name] = np.array(portable(source), order="C")
        self._bits[name] = _bits(kept)

    def _optional_changed(self, name: str, arrays: dict[str, np.ndarray]) -> bool:
        if name not in arrays:
            return name in self._bits
        return name not in self._bits or not _same(arrays[name], self._bits[name])

    def _info(self, atoms: Atoms) -> dict[str, Any]:
        info = atoms.info
        return {key: info[key] for key in self.info_keys if key in info}


def check(atoms: Atoms, changed: Sequence[str]) -> None:
    """Refuse what no calculator could take.

    Raises
    ------
    StructureError
        No atoms, an unknown element, NaN or infinite positions, cell, magnetic moments or charges, numbers of a kind
        that does not travel, or a periodic cell without volume.
    """
    for name in changed:
        array = atoms.arrays.get(name)
        if array is not None and array.dtype.char not in NUMBERS:
            raise StructureError(f"{name} are of dtype {array.dtype}, which cannot travel; give float64")
        if array is not None and name in FINITE:
            _check_finite(name, atoms)
    if "positions" in changed and not math.isfinite(atoms.arrays["positions"].sum()):
        _check_positions(atoms)
    if "numbers" in changed:
        _check_numbers(atoms)
    if "cell" in changed or "pbc" in changed:
        _check_cell(atoms)


def _check_positions(atoms: Atoms) -> None:
    bad = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if len(bad):
        raise StructureError(
            f"{_name(atoms)}: the position of atom {bad[0]} is {atoms.positions[bad[0]].tolist()}"
            f" ({len(bad)} of {len(atoms)} atoms are so); give finite positions in Å"
        )


def _check_finite(name: str, atoms: Atoms) -> None:
    values = atoms.arrays[name]
    bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if len(bad):
        raise StructureError(
            f"{_name(atoms)}: {name} of atom {bad[0]} is {values[bad[0]].tolist()} ({len(bad)} of {len(atoms)} atoms"
            " are so); give finite numbers, or leave them out"
        )


def _check_numbers(atoms: Atoms) -> None:
    if not len(atoms):
        raise StructureError("the structure has no atoms; leave it out")
    numbers = atoms.numbers
    bad = np.flatnonzero((numbers < 0) | (numbers > HEAVIEST))
    if len(bad):
        raise StructureError(f"atom {bad[0]} has atomic number {numbers[bad[0]]}; give one from 0 to {HEAVIEST}")


def _check_cell(atoms: Atoms) -> None:
    cell = atoms.cell.array
    if not np.isfinite(cell).all():
        raise StructureError(f"{_name(atoms)}: the cell is {cell.tolist()}; give finite vectors in Å")
    periodic = cell[atoms.pbc]
    lengths = np.sqrt((periodic**2).sum(axis=1))
    volume = math.sqrt(abs(np.linalg.det(periodic @ periodic.T))) if len(periodic) else 1.0
    if not volume > FLAT * lengths.prod():
        raise StructureError(
            f"{_name(atoms)}: periodic (pbc={atoms.pbc.tolist()}) along cell vectors without volume,"
            f" {periodic.tolist()}; set the cell, or pbc=False"
        )


def _portable_info(key: str, value: Any) -> Any:
    """A copy of an entry of ``atoms.info`` that is an array or can be JSON."""
    if isinstance(value, np.ndarray) and portable(value) is not None:
        return np.array(portable(value))
    try:
        return json.loads(json.dumps(value.item() if isinstance(value, np.generic) else value))
    except (TypeError, ValueError, RecursionError):
        raise StructureError(
            f"atoms.info[{key!r}] is {value!r}, which cannot travel; give numbers, text, lists of these, or an array"
        ) from None


def _same_info(one: dict[str, Any], kept: dict[str, Any]) -> bool:
    return one.keys() == kept.keys() and all(_same_entry(key, value, kept[key]) for key, value in one.items())


def _same_entry(key: str, value: Any, kept: Any) -> bool:
    """Whether an entry is *kept*, as it travels: a tuple is its list, NaN is itself, -0.0 is not 0.0."""
    kind = type(value)
    if kind in (int, bool, str) or (kind is float and value and not math.isnan(value)):
        return type(kept) is kind and bool(kept == value)
    try:
        value = _portable_info(key, value)
    except StructureError:  # for `take` to raise
        return False
    if type(value) is not type(kept):
        return False
    if isinstance(value, np.ndarray):
        return bool((value.dtype, value.shape, value.tobytes()) == (kept.dtype, kept.shape, kept.tobytes()))
    return json.dumps(value, sort_keys=True) == json.dumps(kept, sort_keys=True)


def _name(atoms: Atoms) -> str:
    return str(atoms.symbols.get_chemical_formula(empirical=False)) if len(atoms) < 10_000 else f"{len(atoms)} atoms"


def _bits(array: np.ndarray) -> bytes | np.ndarray:
    """The memory of *array*, to be compared by :func:`_same`: a copy if it is small, else itself as whole numbers."""
    if array.nbytes <= SMALL:
        return array.tobytes()
    return array.view(f"i{array.dtype.itemsize}") if array.dtype.kind == "f" else array


def _same(array: np.ndarray, bits: bytes | np.ndarray) -> bool:
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if isinstance(bits, bytes):
        return array.nbytes == len(bits) and array.tobytes() == bits
    if array.shape != bits.shape or array.dtype.itemsize != bits.dtype.itemsize:
        return False
    return bool((array.view(bits.dtype) == bits).all())
