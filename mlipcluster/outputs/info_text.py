"""``atoms.info`` as the key=value pairs of an extended XYZ comment line, so that ASE reads back what was there.

ASE's own writer loses backslashes, breaks the line at newlines and changes ``None``, ``""`` and ``"12"`` into other
values; here such values are written as ``_JSON``, which its reader takes back exactly. What cannot be held is left out.
Source of the rules: `ase.io.extxyz.key_val_str_to_dict`, and https://github.com/libAtoms/extxyz for the quoting.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase.calculators.calculator import all_properties

from mlipcluster.outputs.frame import RECORD_KEY

RESERVED = {"Lattice", "Properties", "pbc", "virial", "uid", RECORD_KEY} | set(all_properties)
"""Names that mean something of their own in a comment line."""

_KEY = re.compile(r"[ -~]+")
_BARE_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
# text whose first word is no number and no truth value, so that nothing but text can be read out of it
_NO_TEXT = r"(?!(?:nan|inf|infinity|t|f|true|false|_json)(?![A-Za-z0-9_.]))"
_PLAIN_TEXT = re.compile(_NO_TEXT + r"[A-Za-z_][ -\[\]-~]*", re.IGNORECASE)
_INT64 = 2**63


def escape(text: str) -> str:
    """Text as it stands between double quotes."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def unescape(text: str) -> str:
    """What `escape` made of a text without NUL, back."""
    return text.replace("\\\\", "\0").replace('\\"', '"').replace("\0", "\\")


def info_text(info: Mapping[Any, Any], hidden: list[str]) -> str:
    """``key=value`` pairs, each with a space before it; the names of what was left out go to *hidden*."""
    pairs = []
    for key, value in info.items():
        if key == RECORD_KEY:
            continue
        text = _value(value) if isinstance(key, str) and key not in RESERVED and _KEY.fullmatch(key) else None
        if text is None:
            hidden.append(f"info {key!r:.80}")
        else:
            pairs.append(f" {key if _BARE_KEY.fullmatch(key) else _quote(key)}={text}")
    return "".join(pairs)


def _quote(text: str) -> str:
    return f'"{escape(text)}"'


def _value(value: Any) -> str | None:  # noqa: PLR0911 - one line a type
    """How *value* stands in the line; None when ASE would read something else."""
    if isinstance(value, (bool, np.bool_)):
        return "T" if value else "F"
    if isinstance(value, (int, np.integer)):
        number = int(value)
        return str(number) if -_INT64 <= number < _INT64 else _json(number)
    if isinstance(value, (float, np.floating)):
        return repr(float(value))
    if isinstance(value, str):
        return _quote(value) if _PLAIN_TEXT.fullmatch(value) else _json(str(value))
    if isinstance(value, np.ndarray):
        return _array(value)
    if hasattr(value, "symbol") and type(value).__name__ == "Spacegroup":
        return _quote(str(value.symbol))
    return _json(value)


def _array(value: np.ndarray[Any, Any]) -> str | None:
    if value.dtype.kind not in "iufbU" or 0 in value.shape:
        return None
    if value.dtype.kind == "u" and value.size and int(value.max()) >= _INT64:
        return None
    if value.ndim == 1 and value.size > 1 and value.dtype.kind in "iuf":
        return _quote(" ".join(map(repr, value.tolist())))
    return _json(value.tolist())


def _json(value: Any) -> str | None:
    if not _survives_json(value):
        return None
    try:
        np.array(value)  # ASE's reader does this, and falls over lists of unequal lengths
        return _quote("_JSON " + json.dumps(value))
    except (TypeError, ValueError, RecursionError, OverflowError):
        return None


def _survives_json(value: Any, depth: int = 0) -> bool:
    """Whether JSON gives *value* back as it was, but for tuples (as lists)."""
    if depth > 20:  # deeper than any description of a structure, far from Python's own limit
        return False
    if isinstance(value, dict):
        return all(type(key) is str and _survives_json(item, depth + 1) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(_survives_json(item, depth + 1) for item in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value.bit_length() < 10_000  # Python refuses to read much longer numbers
    return value is None or type(value) in (str, bool, float)
