"""The other half of packing.py: JSON back to values, also where the JSON is hostile."""

from __future__ import annotations

import base64
import math
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mlipcluster.errors import RecordError

MAX_BYTES = 2**31  # what one call may unpack to, all arrays together
_DTYPE = re.compile(r"[<|]([biufc](1|2|4|8|16|32)|[SU]\d{1,9}|[mM]8(\[\d{0,6}[A-Za-zμ]{1,2}\])?)")


class Decoder:
    """One run of :func:`mlipcluster.records.packing.decode`."""

    def __init__(self, trust: bool) -> None:
        self.trust = trust
        self.left = MAX_BYTES

    def run(self, packed: Any) -> Any:
        """Decode; whatever is wrong with *packed* is a :class:`RecordError`."""
        try:
            return self.decode(packed)
        except RecordError:
            raise
        except Exception as error:  # ASE's constructors raise whatever they like
            raise RecordError(
                f"a packed value is damaged ({type(error).__name__}: {error}); restore the file from a copy"
            ) from error

    def decode(self, packed: Any) -> Any:
        """One value and all inside it."""
        kind = type(packed)
        if kind is dict:
            for tag in packed:
                # The tag is the first key in what encode() writes, but JSON tools may have sorted the keys.
                if tag.startswith("__") and tag in _BY_TAG:
                    return _BY_TAG[tag](self, tag, packed)
            return {key: self.decode(item) for key, item in packed.items()}
        if kind is list:
            return [self.decode(item) for item in packed]
        return packed

    def raw(self, packed: Any, size: int | None = None) -> bytes:
        """The bytes of ``{"base64": …}`` or ``{"blosc": …}``; *size*: how many there must be."""
        if "blosc" not in packed:
            data = base64.b64decode(packed["base64"], validate=True)
        else:
            data = self._decompress(base64.b64decode(packed["blosc"], validate=True))
        if size is not None and len(data) != size:
            raise RecordError(f"an array has {len(data)} bytes instead of {size}; restore the file from a copy")
        return data

    def _decompress(self, frame: bytes) -> bytes:
        # https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst: nbytes at 4, cbytes at 12.
        if len(frame) < 16:
            raise RecordError("a blosc frame is cut short; restore the file from a copy")
        nbytes, _, cbytes = struct.unpack("<III", frame[4:16])
        if cbytes != len(frame):
            raise RecordError("a blosc frame has another length than it says; restore the file from a copy")
        self._spend(nbytes)
        import blosc

        try:
            data = blosc.decompress(frame)
        except Exception as error:
            raise RecordError(f"a blosc frame is damaged ({error}); restore the file from a copy") from error
        if len(data) != nbytes:
            raise RecordError("a blosc frame unpacks to another length than it says; restore the file from a copy")
        return bytes(data)

    def _spend(self, size: int) -> None:
        self.left -= size
        if size < 0 or self.left < 0:
            raise RecordError(f"a record would unpack to more than {MAX_BYTES} bytes; it was damaged or made to harm")


def _tuple(decoder: Decoder, tag: str, packed: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(decoder.decode(_list(packed[tag])))


def _set(decoder: Decoder, tag: str, packed: dict[str, Any]) -> Any:
    items = decoder.decode(_list(packed[tag]))
    return set(items) if tag == "__set__" else frozenset(items)


def _dict(decoder: Decoder, tag: str, packed: dict[str, Any]) -> dict[Any, Any]:
    return {decoder.decode(key): decoder.decode(item) for key, item in _list(packed[tag])}


def _int(_: Decoder, tag: str, packed: dict[str, Any]) -> int:
    return int(packed[tag], 16)


def _float(_: Decoder, tag: str, packed: dict[str, Any]) -> float:
    value: float = struct.unpack(">d", bytes.fromhex(packed[tag]))[0]
    return value


def _complex(decoder: Decoder, tag: str, packed: dict[str, Any]) -> complex:
    real, imag = (decoder.decode(part) for part in _list(packed[tag]))
    return complex(float(real), float(imag))


def _bytes(decoder: Decoder, tag: str, packed: dict[str, Any]) -> bytes | bytearray:
    data = decoder.raw(packed[tag])
    return data if tag == "__bytes__" else bytearray(data)


def _path(_: Decoder, tag: str, packed: dict[str, Any]) -> Path:
    return Path(packed[tag])


def _number(decoder: Decoder, tag: str, packed: dict[str, Any]) -> Any:
    dtype = _dtype(packed[tag])
    if "value" in packed:
        if type(packed["value"]) not in {bool, int, float}:
            raise RecordError("a NumPy number is not a number; restore the file from a copy")
        return dtype.type(packed["value"])
    data = decoder.raw(packed, dtype.itemsize)
    return np.frombuffer(data, dtype)[0] if data else dtype.type()


def _array(decoder: Decoder, tag: str, packed: dict[str, Any]) -> np.ndarray[Any, Any]:
    shape = tuple(_list(packed["shape"]))
    if len(shape) > 32 or not all(type(length) is int and length >= 0 for length in shape):
        raise RecordError(f"an array has the shape {shape!r:.80}; restore the file from a copy")
    if packed[tag] == "O":
        return _object_array(decoder, shape, _list(packed["items"]))
    dtype = _dtype(packed[tag])
    data = decoder.raw(packed, math.prod(shape) * dtype.itemsize)
    if not data:
        return np.empty(shape, dtype)
    return np.frombuffer(bytearray(data), dtype).reshape(shape, order="F" if packed.get("order") == "F" else "C")


def _object_array(decoder: Decoder, shape: tuple[int, ...], items: list[Any]) -> np.ndarray[Any, Any]:
    if math.prod(shape) != len(items):
        raise RecordError(f"an array of shape {shape} has {len(items)} items; restore the file from a copy")
    array = np.empty(len(items), object)
    for index, item in enumerate(items):
        array[index] = decoder.decode(item)
    return array.reshape(shape)


def _pickle(decoder: Decoder, tag: str, packed: dict[str, Any]) -> Any:
    if not decoder.trust:
        raise RecordError(
            f"a {packed[tag]!r:.200} is stored as a pickle, which could run any code when loaded; "
            "if you know who wrote this file, say trust=True"
        )
    import cloudpickle

    return cloudpickle.loads(decoder.raw(packed))


def _ase(decoder: Decoder, tag: str, packed: dict[str, Any]) -> Any:
    from mlipcluster.records import packing_ase

    return packing_ase.decode(tag, packed, decoder.decode)


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise RecordError(f"a packed value has a {type(value).__name__} for a list; restore the file from a copy")
    return value


def _dtype(text: Any) -> np.dtype[Any]:
    if not isinstance(text, str) or not _DTYPE.fullmatch(text):
        raise RecordError(f"{text!r:.80} is not a dtype that a record may hold; restore the file from a copy")
    return np.dtype(text)


_BY_TAG: dict[str, Callable[[Decoder, str, dict[str, Any]], Any]] = {
    "__tuple__": _tuple,
    "__set__": _set,
    "__frozenset__": _set,
    "__dict__": _dict,
    "__int__": _int,
    "__float__": _float,
    "__complex__": _complex,
    "__bytes__": _bytes,
    "__bytearray__": _bytes,
    "__path__": _path,
    "__number__": _number,
    "__array__": _array,
    "__pickle__": _pickle,
    "__atoms__": _ase,
    "__cell__": _ase,
    "__spacegroup__": _ase,
    "__constraint__": _ase,
}
