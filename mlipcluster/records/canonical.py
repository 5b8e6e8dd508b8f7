"""One text for equal JSON values, and its SHA-256."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from mlipcluster.errors import InputError

# Sorted keys, no spaces, ASCII only. Python writes the shortest text that reads back as the same float, so equal
# floats have equal texts however they were written before; NaN and the infinities have names of their own.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=True)


def canonical(jsonable: Any) -> str:
    """The one text of *jsonable*: keys sorted, no spaces, ASCII, shortest round-trip floats.

    Raises
    ------
    InputError
        It is not made of dicts with text keys, lists, text, numbers, booleans and None.
    """
    try:
        return _ENCODER.encode(jsonable)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"not JSON ({error}); pack it with mlipcluster.records.packing.encode first") from error


def digest(jsonable: Any) -> str:
    """SHA-256 of the canonical text of *jsonable*, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical(jsonable).encode("ascii")).hexdigest()
