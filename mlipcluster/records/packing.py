"""Python values as JSON and back, bit for bit.

What JSON has is written as it is; everything else is an object with one tag that begins with two underscores:

==================  ============================================================================
``__tuple__``       a tuple; ``__set__`` and ``__frozenset__`` alike, sorted by their text
``__dict__``        a dict that has keys other than text, or a key that begins with two underscores
``__int__``         an integer of more than 4,000 bits, in hexadecimal
``__float__``       a NaN with a sign or payload, as the 16 hexadecimal digits of its eight bytes
``__complex__``     ``[real, imag]``
``__bytes__``       base64; ``__bytearray__`` alike
``__path__``        a :class:`pathlib.Path`
``__number__``      a NumPy scalar: dtype, and ``value`` or ``base64``
``__array__``       a NumPy array: dtype, ``shape``, and ``base64`` or ``blosc`` (or ``items``, of dtype ``O``)
``__cell__``        an :class:`ase.cell.Cell`; ``__spacegroup__`` an :class:`ase.spacegroup.Spacegroup`
``__constraint__``  one of ASE's constraints
``__atoms__``       an :class:`ase.Atoms`, with the results its calculator holds for it
``__pickle__``      anything else: loaded only if the caller says ``trust=True``
==================  ============================================================================

Arrays are little-endian C-order (or Fortran-order, then ``"order": "F"``) bytes in base64, compressed with blosc
where that makes them smaller. NaN and the infinities are left to :mod:`json`, which writes ``NaN`` and ``Infinity``.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path, PosixPath, PurePath, WindowsPath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlipcluster.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

COMPRESS_FROM = 512  # bytes; below, blosc's header and the call cost more than they save
WORTH = 0.95  # compressed to more than this share of the bytes, an array stays as it is
_JSON_BITS = 4000  # longer integers hit Python's limit on converting text to integers
_CANONICAL_NAN = struct.pack(">d", math.nan)


def encode(value: Any, *, pickles: bool = True, compress: bool = True) -> Any:
    """Turn *value* into something :func:`json.dumps` can write and :func:`decode` can turn back.

    Parameters
    ----------
    value : object
        Anything. `Atoms` keep all arrays, cell, pbc, info, constraints, celldisp, and the calculator's results
        if they belong to the atoms as they are (as a `SinglePointCalculator` after decoding).
    pickles : bool
        Whether an object that has no form of its own may be pickled.
    compress : bool
        Whether blosc may be used.

    Raises
    ------
    InputError
        *value* (or something inside it) needs a pickle, and there must be none or it cannot be pickled;
        or it contains itself.
    """
    try:
        return _Encoder(pickles, compress).encode(value)
    except RecursionError:
        raise InputError(
            f"a {type(value).__name__} cannot be written: it contains itself, or is nested too deeply; flatten it"
        ) from None


def decode(packed: Any, trust: bool = False) -> Any:
    """Turn what :func:`encode` made back into the value.

    Parameters
    ----------
    packed : object
        What :func:`json.loads` returned.
    trust : bool
        Whether pickles inside may be loaded. A pickle can run any code: say so only for files whose writer you
        know.

    Raises
    ------
    RecordError
        *packed* is damaged, would unpack to more than 2 GiB, or holds a pickle and *trust* was not given.
    """
    from mlipcluster.records.unpacking import Decoder

    return Decoder(trust).run(packed)


def is_portable(value: Any) -> bool:
    """Whether :func:`encode` can write *value* without a pickle."""
    try:
        encode(value, pickles=False, compress=False)
    except InputError:
        return False
    return True


def freeze(atoms: Atoms) -> Atoms:
    """A copy of *atoms* whose calculator is a `SinglePointCalculator` with the results that belong to it.

    Without such results the copy has no calculator. Nothing is calculated.
    """
    frozen: Atoms = atoms.copy()
    frozen.calc = None
    if found := current_results(atoms):
        attach_results(frozen, *found)
    return frozen


def current_results(atoms: Atoms) -> tuple[str, dict[str, Any]] | None:
    """Name and results of the calculator of *atoms*, if it has any for the atoms as they are now."""
    calc = atoms.calc
    results = getattr(calc, "results", None)
    if not isinstance(results, Mapping) or not results or not _belongs(calc, atoms):
        recall = getattr(calc, "recall", None)  # a SocketCalculator remembers structures that others came after
        results = recall(atoms) if callable(recall) else None
    if not isinstance(results, Mapping) or not results:
        return None
    return str(getattr(calc, "name", None) or type(calc).__name__.lower()), dict(results)


def _belongs(calc: Any, atoms: Atoms) -> bool:
    """Whether the calculator's results are those of *atoms* as they are now."""
    from ase.calculators.singlepoint import SinglePointCalculator

    if isinstance(calc, SinglePointCalculator):
        return calc.atoms is not None and _same_structure(calc.atoms, atoms)
    try:
        return not calc.calculation_required(atoms, [])
    except Exception:  # noqa: BLE001 - a calculator that cannot say so holds nothing we may rely on
        return False


def _same_structure(a: Atoms, b: Atoms) -> bool:
    """What ASE compares before it trusts old results, without its tolerance (and ten times faster)."""
    if len(a) != len(b) or a.cell.array.tobytes() != b.cell.array.tobytes() or a.pbc.tobytes() != b.pbc.tobytes():
        return False
    for name in ("numbers", "positions", "initial_magmoms", "initial_charges"):
        x, y = a.arrays.get(name), b.arrays.get(name)
        if x is None and y is None:
            continue
        if x is None or y is None:
            x = y if x is None else x
            if x.any():  # type: ignore[union-attr]
                return False
        elif not np.array_equal(x, y, equal_nan=x.dtype.kind == "f"):
            return False
    return True


def attach_results(atoms: Atoms, name: str, results: Mapping[str, Any]) -> None:
    """Give *atoms* a `SinglePointCalculator` that holds *results*, also those ASE has no name for."""
    from ase.calculators.singlepoint import SinglePointCalculator

    calc = SinglePointCalculator(atoms)
    calc.name = name
    calc.results = dict(results)
    atoms.calc = calc


class _Encoder:
    """One run of :func:`encode`."""

    def __init__(self, pickles: bool, compress: bool) -> None:
        self.pickles = pickles
        self.compress = compress

    def encode(self, value: Any) -> Any:
        kind = type(value)
        if kind in _PLAIN:
            return value
        if (method := _BY_TYPE.get(kind)) is not None:
            return method(self, value)
        if isinstance(value, np.generic) and _has_bytes(value.dtype):
            return _number(self, value)
        return self.other(value)

    def other(self, value: Any) -> Any:
        module = type(value).__module__
        if module.partition(".")[0] in {"ase", "pymatgen"} or "ase" in _roots(type(value)):
            from mlipcluster.records import packing_ase

            packed = packing_ase.encode(value, self.encode)
            if packed is not None:
                return packed
        if isinstance(value, PurePath) and type(value) is type(Path()):
            return {"__path__": str(value)}
        return self.pickle(value)

    def pickle(self, value: Any) -> Any:
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        if not self.pickles:
            raise InputError(
                f"a {name} has no portable form; use numbers, text, lists, dicts, NumPy arrays or Atoms instead"
            )
        import cloudpickle

        try:
            data = cloudpickle.dumps(value)
        except RecursionError:
            raise
        except Exception as error:
            raise InputError(f"a {name} cannot be pickled ({error}); hand in something that can be") from error
        return {"__pickle__": name, **pack_bytes(data, self.compress)}


def pack_bytes(data: bytes, compress: bool = True, typesize: int = 1) -> dict[str, str]:
    """Bytes as ``{"base64": …}`` or, where that is smaller, ``{"blosc": …}`` (base64 of a blosc frame)."""
    if compress and COMPRESS_FROM <= len(data) < 2**31 - 32:
        import blosc

        # lz4 for numbers: 3 µs for 40 atoms. zstd for pickles and other bytes: a third smaller, and they are few.
        packed = blosc.compress(data, typesize=typesize, cname="lz4" if typesize > 1 else "zstd", clevel=5)
        if len(packed) < WORTH * len(data):
            return {"blosc": base64.b64encode(packed).decode("ascii")}
    return {"base64": base64.b64encode(data).decode("ascii")}


def _roots(kind: type) -> set[str]:
    return {base.__module__.partition(".")[0] for base in kind.__mro__}


def _has_bytes(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "biufcSUMm"


def _float(_: _Encoder, value: float) -> Any:
    if value != value and (bits := struct.pack(">d", value)) != _CANONICAL_NAN:  # noqa: PLR0124 - NaN
        return {"__float__": bits.hex()}
    return value


def _int(_: _Encoder, value: int) -> Any:
    return value if value.bit_length() <= _JSON_BITS else {"__int__": hex(value)}


def _list(encoder: _Encoder, value: list[Any]) -> list[Any]:
    encode = encoder.encode
    return [encode(item) for item in value]


def _tuple(encoder: _Encoder, value: tuple[Any, ...]) -> dict[str, Any]:
    encode = encoder.encode
    return {"__tuple__": [encode(item) for item in value]}


def _dict(encoder: _Encoder, value: dict[Any, Any]) -> dict[str, Any]:
    encode = encoder.encode
    if all(type(key) is str and not key.startswith("__") for key in value):
        return {key: encode(item) for key, item in value.items()}
    return {"__dict__": [[encode(key), encode(item)] for key, item in value.items()]}


def _set(encoder: _Encoder, value: set[Any] | frozenset[Any]) -> dict[str, Any]:
    from mlipcluster.records.canonical import canonical

    items = sorted((encoder.encode(item) for item in value), key=canonical)
    return {"__set__" if type(value) is set else "__frozenset__": items}


def _complex(encoder: _Encoder, value: complex) -> dict[str, Any]:
    return {"__complex__": [encoder.encode(value.real), encoder.encode(value.imag)]}


def _bytes(encoder: _Encoder, value: bytes | bytearray) -> dict[str, Any]:
    return {f"__{type(value).__name__}__": pack_bytes(bytes(value), encoder.compress)}


def _path(_: _Encoder, value: Path) -> dict[str, Any]:
    return {"__path__": str(value)}


def _number(_: _Encoder, value: np.generic) -> dict[str, Any]:
    dtype = value.dtype.newbyteorder("<")
    if dtype.kind in "biu" or (dtype.str in {"<f2", "<f4", "<f8"} and np.isfinite(value)):
        return {"__number__": dtype.str, "value": value.item()}
    return {"__number__": dtype.str, "base64": base64.b64encode(value.astype(dtype).tobytes()).decode("ascii")}


def _array(encoder: _Encoder, value: np.ndarray[Any, Any]) -> dict[str, Any]:
    dtype = value.dtype
    if dtype.kind == "O":
        items = [encoder.encode(item) for item in value.ravel().tolist()]
        return {"__array__": "O", "shape": list(value.shape), "items": items}
    if not _has_bytes(dtype):
        return encoder.pickle(value)  # type: ignore[no-any-return]
    if dtype.byteorder == ">":
        dtype = dtype.newbyteorder("<")
        value = value.astype(dtype)
    flags = value.flags
    order: Literal["F", "C"] = "F" if flags.f_contiguous and not flags.c_contiguous else "C"
    packed: dict[str, Any] = {"__array__": dtype.str, "shape": list(value.shape)}
    if order == "F":  # kept because sums over another memory order may round differently
        packed["order"] = order
    packed.update(pack_bytes(value.tobytes(order), encoder.compress, min(dtype.itemsize, 255) or 1))
    return packed


_PLAIN = frozenset({str, bool, type(None)})
_BY_TYPE: dict[type, Callable[[_Encoder, Any], Any]] = {
    float: _float,
    int: _int,
    list: _list,
    tuple: _tuple,
    dict: _dict,
    set: _set,
    frozenset: _set,
    complex: _complex,
    bytes: _bytes,
    bytearray: _bytes,
    PosixPath: _path,
    WindowsPath: _path,
    np.ndarray: _array,
}
