"""Two structures with their results, quantity by quantity: bit for bit, then within tolerances.

Units are ASE's: eV, Å, eV/Å, eV/Å³, elementary charges, Bohr magnetons.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from mlipcluster.errors import InputError
from mlipcluster.reproduction.quantities import is_numeric, names, packed, take_apart

IDENTICAL, WITHIN_TOLERANCE, DIFFERENT = "identical", "within tolerance", "different"

MAIN = ("energy", "forces", "stress", "positions", "cell")
"""The quantities that a verdict names, in this order."""

_MISSING = object()


@dataclass(frozen=True)
class Tolerance:
    """How far a quantity may be from the recorded one and still count as the same answer.

    Attributes
    ----------
    value : float
        Largest allowed absolute difference of any component; ``inf`` for a quantity that is not to be judged.
    unit : str
    per_atom : bool
        The difference is divided by the number of atoms first.
    relative : bool
        The difference is divided by the largest absolute recorded value first.
    """

    value: float
    unit: str = ""
    per_atom: bool = False
    relative: bool = False


TOLERANCES: Mapping[str, Tolerance] = {
    "energy": Tolerance(1e-6, "eV/atom", per_atom=True),
    "free_energy": Tolerance(1e-6, "eV/atom", per_atom=True),
    "energies": Tolerance(1e-6, "eV"),
    "forces": Tolerance(1e-4, "eV/Å"),
    "stress": Tolerance(1e-6, "eV/Å³"),
    "stresses": Tolerance(1e-6, "eV/Å³"),
    "positions": Tolerance(1e-5, "Å"),
    "cell": Tolerance(1e-5, "Å"),
    "momenta": Tolerance(1e-4, "√(u eV)"),
    "magmom": Tolerance(1e-4, "μB"),
    "magmoms": Tolerance(1e-4, "μB"),
    "charges": Tolerance(1e-4, "e"),
    "dipole": Tolerance(1e-4, "e Å"),
}
"""By quantity. What floating point, threads or another processor do stays below; another answer does not."""

OTHER = Tolerance(1e-6, "of the largest value", relative=True)
"""For any other floating-point quantity."""


@dataclass(frozen=True)
class Quantity:
    """One quantity of an output, recorded and made again.

    Attributes
    ----------
    name : str
        ``"energy"``, ``"positions"``, ``"info.barrier"``, ``"arrays.site"``, …
    verdict : str
        ``"identical"`` (bit for bit, shape and type included), ``"within tolerance"`` or ``"different"``.
    difference : float or None
        Largest absolute difference, in the tolerance's unit; NaN where one of the two is NaN;
        None where there is no such number.
    ulps : int or None
        The same, counted in floating-point numbers between the two; None unless both are float64 of one shape.
    tolerance : Tolerance or None
        None for what must be equal: text, whole numbers, species.
    note : str
        What else to say, e.g. ``"shape (4, 3), recorded (5, 3)"``.
    """

    name: str
    verdict: str
    difference: float | None = None
    ulps: int | None = None
    tolerance: Tolerance | None = None
    note: str = ""


# What says that all is equal may look over something: an object's own ==, a tuple for a list, an int for a NumPy one.
_PACKED = Quantity(
    "packed result", DIFFERENT, note="each quantity is equal, but some type or object is not as the record holds it"
)


def tolerances(changes: Mapping[str, float | Tolerance] | None = None) -> dict[str, Tolerance]:
    """`TOLERANCES` with *changes*: a number stands for another value in the same unit; ``"other"`` is `OTHER`.

    Raises
    ------
    InputError
        A name is neither known nor starts with ``info.`` or ``arrays.``, or a value is negative or NaN.
    """
    table = {**TOLERANCES, "other": OTHER}
    for name, change in (changes or {}).items():
        if name not in table and not name.startswith(("info.", "arrays.")):
            near = difflib.get_close_matches(name, table, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"no tolerance is called {name!r}{hint} Known: {', '.join(table)}, info.…, arrays.….")
        new = change if isinstance(change, Tolerance) else _changed(table.get(name, Tolerance(0.0)), change)
        if not new.value >= 0:
            raise InputError(f"tolerance of {name!r} is {new.value!r}; give a number of zero or more.")
        table[name] = new
    return table


def compare(
    recorded: Atoms, again: Atoms, changes: Mapping[str, float | Tolerance] | None = None
) -> tuple[Quantity, ...]:
    """Compare two structures with their results; the main quantities come first.

    Parameters
    ----------
    recorded, again : Atoms
        With their results in a ``SinglePointCalculator``, if there are any.
    changes : mapping, optional
        Other tolerances, see `tolerances`.
    """
    table = tolerances(changes)
    ours, theirs = take_apart(recorded), take_apart(again)
    named = names({**ours, **theirs})
    atoms = max(len(recorded), 1)
    found = [_judge(n, ours.get(p, _MISSING), theirs.get(p, _MISSING), table, atoms) for p, n in named.items()]
    found.sort(key=lambda quantity: MAIN.index(quantity.name) if quantity.name in MAIN else len(MAIN))
    if overall(found) == IDENTICAL and packed(recorded) != packed(again):
        found.append(_PACKED)
    return tuple(found)


def overall(quantities: Sequence[Quantity]) -> str:
    """The worst of the verdicts."""
    order = (IDENTICAL, WITHIN_TOLERANCE, DIFFERENT)
    return max((quantity.verdict for quantity in quantities), key=order.index, default=IDENTICAL)


def ulps_between(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> int:
    """Largest number of float64 steps between two arrays of one shape; 0 also for 0.0 and -0.0.

    The bits of a float64, read as a signed integer with the negative half mirrored, are in the floats' order.
    """
    ordered = []
    for array in (one, other):
        bits = np.atleast_1d(np.ascontiguousarray(array, dtype=np.float64)).view(np.int64)
        ordered.append([b if b >= 0 else -(b & 0x7FFFFFFFFFFFFFFF) for b in bits.ravel().tolist()])
    return max((abs(a - b) for a, b in zip(*ordered, strict=True)), default=0)


def _changed(tolerance: Tolerance, value: float) -> Tolerance:
    return Tolerance(float(value), tolerance.unit, tolerance.per_atom, tolerance.relative)


def _judge(name: str, recorded: Any, again: Any, table: Mapping[str, Tolerance], atoms: int) -> Quantity:
    if recorded is _MISSING or again is _MISSING:
        return Quantity(name, DIFFERENT, note="not in the record" if recorded is _MISSING else "only in the record")
    if not (is_numeric(recorded) and is_numeric(again)):
        same = type(recorded) is type(again) and _equal(recorded, again)
        note = "" if same else f"{_short(again)}, recorded {_short(recorded)}"
        return Quantity(name, IDENTICAL if same else DIFFERENT, note=note)
    return _judge_arrays(name, np.asarray(recorded), np.asarray(again), table, atoms)


def _judge_arrays(
    name: str, recorded: np.ndarray[Any, Any], again: np.ndarray[Any, Any], table: Mapping[str, Tolerance], atoms: int
) -> Quantity:
    if recorded.shape != again.shape:
        return Quantity(name, DIFFERENT, note=f"shape {again.shape}, recorded {recorded.shape}")
    same_type = recorded.dtype == again.dtype
    floating = recorded.dtype.kind in "fc" or again.dtype.kind in "fc"
    note = "" if same_type else f"type {again.dtype}, recorded {recorded.dtype}"
    tolerance = table.get(name, table["other"]) if floating else None
    if same_type and recorded.tobytes() == again.tobytes():
        return Quantity(name, IDENTICAL, 0.0 if floating else None, 0 if floating else None, tolerance, note)
    if tolerance is None:
        verdict = IDENTICAL if same_type and bool(np.array_equal(recorded, again)) else DIFFERENT
        return Quantity(name, verdict, note=note or f"{_short(again)}, recorded {_short(recorded)}")
    difference = _difference(recorded, again, tolerance, atoms)
    close = difference <= tolerance.value or math.isinf(tolerance.value)
    both_doubles = recorded.dtype == again.dtype == np.float64
    ulps = ulps_between(recorded, again) if both_doubles and math.isfinite(difference) else None
    return Quantity(name, WITHIN_TOLERANCE if close else DIFFERENT, difference, ulps, tolerance, note)


def _difference(recorded: np.ndarray[Any, Any], again: np.ndarray[Any, Any], tolerance: Tolerance, atoms: int) -> float:
    """Largest absolute difference in the tolerance's unit; a NaN or infinity equals only its like."""
    with np.errstate(invalid="ignore", over="ignore"):
        gaps = np.abs(again.astype(np.result_type(again, float)) - recorded)
    same = (again == recorded) | (np.isnan(again) & np.isnan(recorded))
    largest = float(np.where(same, 0.0, gaps).max()) if gaps.size else 0.0
    if tolerance.relative:
        finite = np.abs(recorded[np.isfinite(recorded)])
        scale = float(finite.max()) if finite.size else 0.0
        return largest / scale if scale > 0 else (math.inf if largest else 0.0)
    return largest / atoms if tolerance.per_atom else largest


def _equal(one: Any, other: Any) -> bool:
    try:
        if isinstance(one, np.ndarray):
            return bool(np.array_equal(one, other))
        return bool(one == other)
    except Exception:  # noqa: BLE001 - whatever a user's object does when compared, it is not the same
        return False


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "…"
