"""A calculator's results, sorted into what travels as arrays, what as JSON, and what cannot travel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .wire import head, portable

MAX_JSON = 1 << 20


class Packed(NamedTuple):
    """Results ready to be sent.

    Attributes
    ----------
    arrays : dict of str to numpy.ndarray
        Numbers and numeric arrays.
    scalars : dict of str to str
        Which arrays without dimensions were a Python ``"float"``, or a ``"numpy"`` scalar.
    values : dict
        What travels as JSON.
    lost : list of str
        What cannot travel.
    """

    arrays: dict[str, np.ndarray]
    scalars: dict[str, str]
    values: dict[str, Any]
    lost: list[str]

    def head(self) -> bytearray:
        """Head of the frame that carries these results."""
        header = {"kind": "results", "scalars": self.scalars, "values": self.values, "lost": self.lost}
        return head({name: value for name, value in header.items() if value}, self.arrays)

    def layout(self) -> Any:
        """What decides the head, hashable; None where values do."""
        if self.values:
            return None
        arrays = tuple([(name, array.dtype, array.shape) for name, array in self.arrays.items()])
        return arrays, tuple(self.scalars.items()), tuple(self.lost)


def pack(results: Mapping[str, Any]) -> Packed:
    """Sort a calculator's results."""
    packed = Packed({}, {}, {}, [])
    arrays, scalars = packed.arrays, packed.scalars
    for name, value in results.items():
        if not isinstance(name, str):
            packed.lost.append(str(name))
        elif isinstance(value, float):
            scalars[name] = "numpy" if isinstance(value, np.generic) else "float"
            arrays[name] = np.array(value)
        elif isinstance(value, np.generic):
            if (array := portable(np.asarray(value))) is not None:
                scalars[name], arrays[name] = "numpy", array
            else:
                packed.lost.append(name)
        elif (array := _as_array(value)) is not None:
            arrays[name] = array
        elif _is_json(value):
            packed.values[name] = value
        else:
            packed.lost.append(name)
    return packed


def _as_array(value: Any) -> np.ndarray | None:
    """*value*, an array or something like a tensor, as an array that travels."""
    if isinstance(value, np.ndarray):
        return portable(value)
    if not hasattr(value, "__array__"):
        return None
    try:
        return portable(np.asarray(value))
    except Exception:  # noqa: BLE001 - a tensor on a device or with a gradient refuses in its own way
        return None


def _is_json(value: Any) -> bool:
    """Whether JSON gives *value* back as it is."""
    try:
        return len(json.dumps(value)) <= MAX_JSON and _survives(value)
    except (TypeError, ValueError, RecursionError):
        return False


def _survives(value: Any) -> bool:
    """Whether nothing in *value* is what JSON writes as something else: a tuple, a number as key."""
    if type(value) is dict:
        return all(type(key) is str and _survives(item) for key, item in value.items())
    if type(value) is list:
        return all(map(_survives, value))
    return isinstance(value, float) or type(value) in (str, int, bool, type(None))
