"""Who a task is: digests of its structure and parameters, and the parts that decide whether it must run again.

All digests are SHA-256 over values, never over pickles or ``repr``: they depend neither on the process,
``PYTHONHASHSEED``, the order of keyword arguments, nor on how a float was written down.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipcluster.errors import InputError
from mlipcluster.records.canonical import canonical, digest
from mlipcluster.records.packing import encode

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["Parts", "canonical", "digest", "parameters_digest", "result_digest", "structure_digest", "task_key"]

NO_STRUCTURE = hashlib.sha256(b"no structure").hexdigest()
_NO_PARAMETERS = hashlib.sha256(b"{}").hexdigest()
_NAMES: dict[str, bytes] = {}  # array name and dtype as bytes: the same few, a million times


def structure_digest(atoms: Atoms | None) -> str:
    """SHA-256 of a structure, as 64 hexadecimal digits.

    Covers numbers, positions (Å), cell (Å), pbc, every other array (tags, momenta, masses, initial magnetic
    moments and charges, custom ones), ``info``, constraints and celldisp; bit for bit. Not the calculator.

    Raises
    ------
    InputError
        ``atoms.info`` holds something without a stable value; the message names its key.
    """
    if atoms is None:
        return NO_STRUCTURE
    hasher = hashlib.sha256(b"structure 1")
    update = hasher.update
    arrays = atoms.arrays
    for name in sorted(arrays):
        array = arrays[name]
        update(_header(name, array))
        update(_array_bytes(array))
    update(atoms.cell.array.tobytes())
    update(atoms.pbc.tobytes())
    if atoms.get_celldisp().any():
        update(b"celldisp" + atoms.get_celldisp().tobytes())
    if atoms.info:
        update(b"info" + canonical(_stable_dict(atoms.info, "atoms.info")).encode("ascii"))
    if atoms.constraints:
        update(b"constraints" + canonical(_stable(list(atoms.constraints), "atoms.constraints")).encode("ascii"))
    return hasher.hexdigest()


def result_digest(atoms: Atoms, packed: Any = None) -> str:
    """SHA-256 of a structure with the results that its calculator holds for it, as 64 hexadecimal digits.

    Of the packed form (:mod:`mlipcluster.records.packing`) without compression, so that it does not depend on the
    compressor's version.

    Parameters
    ----------
    packed : optional
        What ``encode(atoms)`` gave, if that is at hand: nothing in a small structure is compressed.
    """
    if packed is not None and '"blosc"' not in (text := canonical(packed)):
        return hashlib.sha256(text.encode("ascii")).hexdigest()
    return digest(encode(atoms, compress=False))


def parameters_digest(kwargs: Mapping[str, Any]) -> str:
    """SHA-256 of a task's keyword arguments, as 64 hexadecimal digits; their order does not matter.

    Raises
    ------
    InputError
        An argument has no stable value (an open file, a running generator); the message names it.
    """
    if not kwargs:
        return _NO_PARAMETERS
    return digest(_stable_dict(kwargs, "keyword argument"))


def task_key(atoms: Atoms | None, kwargs: Mapping[str, Any], calculator: str = "") -> str:
    """The name of a task in its run: 32 hexadecimal digits of structure, keyword arguments and calculator's name."""
    text = f"{structure_digest(atoms)} {parameters_digest(kwargs)} {calculator}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Parts:
    """All that decides what a call answers; each a digest or a short text, ``""`` where it plays no part.

    Attributes
    ----------
    structure, parameters : str
        :func:`structure_digest` and :func:`parameters_digest` of the task.
    protocol : str
        Digest of the source of the protocols up to this one (:mod:`mlipcluster.records.source`).
    calculator : str
        Digest of the calculator's factory, arguments and weights.
    environment : str
        Digest of what is installed, here and for the calculator.
    seed : str
        The root seed, with replicate and lineage.
    """

    structure: str = ""
    parameters: str = ""
    protocol: str = ""
    calculator: str = ""
    environment: str = ""
    seed: str = ""

    def identity(self) -> str:
        """32 hexadecimal digits of all parts."""
        text = "\0".join(getattr(self, name) for name in PART_NAMES)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def first_difference(self, other: Parts | Mapping[str, str], accepted: Collection[str] = ()) -> str | None:
        """Name of the first part that differs from *other*, leaving out those in *accepted*; None: all the same."""
        for name in PART_NAMES:
            there = other.get(name, "") if isinstance(other, Mapping) else getattr(other, name)
            if name not in accepted and getattr(self, name) != there:
                return name
        return None

    def to_json(self) -> dict[str, str]:
        """The parts as a JSON object."""
        return {name: getattr(self, name) for name in PART_NAMES}

    @classmethod
    def from_json(cls, packed: Mapping[str, Any]) -> Parts:
        """Turn the JSON object back; parts that are missing are ``""``, unknown ones are left out."""
        return cls(**{name: str(packed.get(name, "")) for name in PART_NAMES})


PART_NAMES = tuple(field.name for field in fields(Parts))


def _header(name: str, array: np.ndarray[Any, Any]) -> bytes:
    key = f"{name}\0{array.dtype.str}\0{array.shape}\0"
    found = _NAMES.get(key)
    if found is None:
        if len(_NAMES) > 10_000:
            _NAMES.clear()
        dtype = array.dtype.newbyteorder("<")
        found = _NAMES[key] = f"{name}\0{dtype.str}\0{array.shape}\0".encode("utf-8", "surrogatepass")
    return found


def _array_bytes(array: np.ndarray[Any, Any]) -> bytes:
    if array.dtype.kind == "O":
        return canonical(_stable(array, "atoms.arrays")).encode("ascii")
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.tobytes()


def _stable_dict(values: Mapping[Any, Any], what: str) -> Any:
    """JSON for the values of a dict; an error names the key."""
    if all(type(key) is str for key in values):
        return {key: _stable(value, f"{what} {key!r}") for key, value in values.items()}
    return sorted(([_stable(k, what), _stable(v, f"{what} {k!r}")] for k, v in values.items()), key=canonical)


def _stable(value: Any, what: str) -> Any:
    """JSON that is the same for equal values: no compression, no pickle, no order of dict keys."""
    kind = type(value)
    if kind is float or kind is int or kind is str or kind is bool or value is None:
        return value
    if kind is dict:
        return {"dict": _stable_dict(value, what)}
    if kind is list or kind is tuple:
        return {kind.__name__: [_stable(item, what) for item in value]}
    if kind.__module__ == "numpy" or kind in {set, frozenset, complex, bytes, bytearray}:
        try:
            return encode(value, pickles=False, compress=False)
        except InputError:
            pass
    return _stable_object(value, what)


def _stable_object(value: Any, what: str) -> Any:
    from ase import Atoms

    if isinstance(value, Atoms):
        return {"structure": structure_digest(value)}
    try:
        return encode(value, pickles=False, compress=False)
    except InputError:
        pass
    from mlipcluster.records.source import value_digest

    found = value_digest(value)
    if found is None:
        raise InputError(
            f"{what} is a {type(value).__module__}.{type(value).__qualname__}, which has no stable value to tell this "
            "task from another; use numbers, text, lists, dicts, NumPy arrays or Atoms instead"
        )
    return {"object": found}
