"""A calculator's results, sorted into what travels as arrays, what as JSON, and what cannot travel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .wire import portable

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

    def header(self) -> dict[str, Any]:
        """The answer's header."""
        header: dict[str, Any] = {"kind": "results"}
        for name in ("scalars", "values", "lost"):
            if value := getattr(self, name):
                header[name] = value
        return header


def pack(results: Mapping[str, Any]) -> Packed:
    """Sort a calculator's results."""
    packed = Packed({}, {}, {}, [])
    for name, value in results.items():
        if not isinstance(name, str):
            packed.lost.append(str(name))
        elif not _pack_number(packed, name, value) and not _pack_json(packed, name, value):
            packed.lost.append(name)
    return packed


def _pack_number(packed: Packed, name: str, value: Any) -> bool:
    kind = "float" if type(value) is float else "numpy" if isinstance(value, np.generic) else ""
    array = np.asarray(value) if kind else _as_array(value)
    array = portable(array) if array is not None else None
    if array is None:
        return False
    packed.arrays[name] = array
    if kind:
        packed.scalars[name] = kind
    return True


def _as_array(value: Any) -> np.ndarray | None:
    if isinstance(value, np.ndarray):
        return value
    if not hasattr(value, "__array__"):
        return None
    try:
        return np.asarray(value)  # tensors and the like
    except Exception:  # a tensor on a device or with a gradient refuses in its own way
        return None


def _pack_json(packed: Packed, name: str, value: Any) -> bool:
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    if len(text) > MAX_JSON:
        return False
    packed.values[name] = value
    return True
