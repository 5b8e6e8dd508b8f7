"""A structure with its results, taken apart into quantities, each with one value and a place of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from ase import Atoms

from mlipcluster.outputs.frame import RECORD_KEY
from mlipcluster.records.canonical import canonical
from mlipcluster.records.packing import encode

Place = tuple[Any, ...]
"""Where a quantity stands: a part of the structure, then keys and indices. Unlike names, no two are the same:
``{"x": {"y": 1}, "x.y": 2}`` has two quantities of one name, and so has ``{1: "a", "1": "b"}``."""

_UNNAMED = ("structure", "results")  # parts whose quantities go by their own name alone
_PLAIN = ("positions", "numbers", "momenta", "tags")
_NUMBERS = (bool, int, float, complex, np.bool_, np.number)


def take_apart(atoms: Atoms) -> dict[Place, Any]:
    """Every quantity of a structure, by its place; the record in its info is none."""
    return dict(_quantities(atoms))


def names(places: Iterable[Place]) -> dict[Place, str]:
    """A name for each place, such as ``"info.fit.b0"``; of those with one name, the second is ``"info.fit.b0#2"``."""
    found: dict[Place, str] = {}
    times: Counter[str] = Counter()
    for place in places:
        steps = place[1:] if place[0] in _UNNAMED else place
        name = ".".join(step[0] if isinstance(step, tuple) else str(step) for step in steps)
        times[name] += 1
        found[place] = name if times[name] == 1 else f"{name}#{times[name]}"
    return found


def is_numeric(value: Any) -> bool:
    """Whether an array holds all that there is to a value: a number, an array, or lists of numbers of one type."""
    kinds = set(_kinds(value)) if isinstance(value, (list, tuple)) else {float}
    if len(kinds) != 1 or not issubclass(kind := kinds.pop(), _NUMBERS):
        return False
    try:
        dtype = np.asarray(value).dtype
    except (ValueError, TypeError):  # a ragged list, or an object that refuses to become an array
        return False
    return dtype.kind in ("biu" if issubclass(kind, int) else "biufc")  # 2**63 and -1 would become floats


def packed(atoms: Atoms) -> str:
    """All of a structure in one text, as records hold it: what two of them have to share to be called identical."""
    info = {key: value for key, value in atoms.info.items() if key != RECORD_KEY}
    results = atoms.calc.results if atoms.calc is not None else {}
    arrays = [_in_c_order(atoms.arrays), _in_c_order(results)]
    rest = [atoms.cell.array, atoms.pbc, atoms.get_celldisp(), list(atoms.constraints), info]
    return canonical(encode([*arrays, *rest], compress=False))


def _quantities(atoms: Atoms) -> Iterator[tuple[Place, Any]]:
    for name, array in sorted(atoms.arrays.items()):
        is_plain = name in _PLAIN or name.startswith("initial_")
        yield ("structure" if is_plain else "arrays", name), array
    yield ("structure", "cell"), atoms.cell.array
    yield ("structure", "pbc"), atoms.pbc
    if atoms.get_celldisp().any():
        yield ("structure", "celldisp"), atoms.get_celldisp()
    if atoms.constraints:
        yield from _leaves(("constraints",), [c.todict() for c in atoms.constraints])
    yield from _leaves(("info",), {key: value for key, value in atoms.info.items() if key != RECORD_KEY})
    if atoms.calc is not None:  # last: whatever a calculator calls its results, the names above are the structure's
        yield from _leaves(("results",), atoms.calc.results)


def _leaves(place: Place, value: Any) -> Iterator[tuple[Place, Any]]:
    """Take dicts, and lists that are no array, apart."""
    if isinstance(value, Mapping) and (value or len(place) == 1):
        for key, item in sorted(value.items(), key=lambda pair: str(pair[0])):
            yield from _leaves((*place, key if isinstance(key, str) else (repr(key),)), item)
    elif isinstance(value, (list, tuple)) and not is_numeric(value):
        yield (*place, ("length",)), len(value)
        for index, item in enumerate(value):
            yield from _leaves((*place, index), item)
    else:
        yield place, value


def _kinds(values: Iterable[Any]) -> Iterator[type]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _kinds(value)
        else:
            yield type(value)


def _in_c_order(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: np.asarray(v, order="C") if isinstance(v, np.ndarray) else v for name, v in values.items()}
