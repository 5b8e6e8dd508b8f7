"""How long a job may last, as people and batch systems write it."""

from __future__ import annotations

import math
import re
from typing import Any

from mlipcluster.errors import InputError

DEFAULT = "00:30:00"
"""Where nobody says anything: what dask-jobqueue takes too."""
EXAMPLES = '"12:00:00", "2-00:00:00", "90 min" or a number of seconds'

_CLOCK = re.compile(r"(?:(?P<days>\d+)-)?(?P<hours>\d+):(?P<minutes>\d+):(?P<seconds>\d+)")
_TWO = re.compile(r"(?P<first>\d+):(?P<second>\d+)")
_UNIT = re.compile(
    r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)", re.IGNORECASE
)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(value: Any, *, two: int = 0, alone: int = 0) -> float:
    """Seconds of a walltime.

    Parameters
    ----------
    value : str or float
        ``"HH:MM:SS"``, ``"D-HH:MM:SS"``, a number with its unit, or seconds.
    two : int, optional
        Seconds in the first part of ``"12:00"``, where a batch system has its own way to read that: 3600 or 60.
    alone : int, optional
        Seconds in a text that is a number alone, likewise.

    Raises
    ------
    InputError
        It cannot be read, or is not positive.
    """
    seconds = _read(value, two, alone)
    if seconds is None or not (math.isfinite(seconds) and seconds > 0):
        hint = " (hours or minutes? write all three parts)" if isinstance(value, str) and _TWO.fullmatch(value) else ""
        raise InputError(f"walltime={value!r:.80} cannot be read{hint}; give {EXAMPLES}.")
    return float(seconds)


def clock(seconds: float) -> str:
    """``"HH:MM:SS"``, which every batch system but LSF takes; hours may be more than 24."""
    whole = math.ceil(seconds)
    return f"{whole // 3600:02}:{whole % 3600 // 60:02}:{whole % 60:02}"


def hours_and_minutes(seconds: float) -> str:
    """``"HH:MM"``, rounded up."""
    whole = math.ceil(seconds / 60)
    return f"{whole // 60:02}:{whole % 60:02}"


def _read(value: Any, two: int, alone: int) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, str):
        return None
    text = value.strip()
    if found := _CLOCK.fullmatch(text):
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if found := _TWO.fullmatch(text):
        return int(found["first"]) * two + int(found["second"]) * two / 60 if two else None
    if text.isdigit():
        return float(int(text) * alone) if alone else None
    found = _UNIT.fullmatch(text)
    return float(found["number"]) * _UNITS[found["unit"][:1].lower()] if found else None
