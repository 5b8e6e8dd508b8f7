"""ASE's own values as JSON: Atoms with their calculator's results, cells, space groups, constraints."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.cell import Cell

from mlipcluster.errors import InputError, RecordError
from mlipcluster.records import packing

if TYPE_CHECKING:  # where they are needed: with SciPy, they take half a second to import
    from ase.constraints import FixConstraint

# Built again from their keyword arguments, these are the same bit for bit; the others normalise a direction or
# keep what they found in the atoms, so their attributes travel too.
_EXACT = frozenset({"FixAtoms", "FixCom", "FixSubsetCom", "FixCartesian", "FixScaled"})


def encode(value: Any, encode: Callable[[Any], Any]) -> dict[str, Any] | None:
    """Pack one of ASE's values; None if it is not one that has a portable form."""
    if isinstance(value, Atoms):
        return {"__atoms__": _encode_atoms(value, encode)}
    if type(value) is Cell:
        return {"__cell__": encode(value.array)}
    if type(value).__module__.startswith("ase.spacegroup"):
        return _encode_spacegroup(value)
    if type(value).__module__.startswith("ase.constraints") and constraint_class(type(value).__name__) is type(value):
        return _encode_constraint(value, encode)
    return None


def decode(tag: str, packed: dict[str, Any], decode: Callable[[Any], Any]) -> Any:
    """Unpack what :func:`encode` made under *tag*."""
    if tag == "__atoms__":
        return _decode_atoms(packed[tag], decode)
    if tag == "__cell__":
        return Cell(_array(decode(packed[tag]), (3, 3), "cell"))
    if tag == "__spacegroup__":
        return _decode_spacegroup(packed[tag])
    return _decode_constraint(packed, decode)


def constraint_class(name: str) -> type[FixConstraint] | None:
    """ASE's constraint class of that name, or None."""
    import ase.constraints

    found = getattr(ase.constraints, name, None) if name in ase.constraints.__all__ else None
    return found if isinstance(found, type) and issubclass(found, ase.constraints.FixConstraint) else None


def _encode_spacegroup(value: Any) -> dict[str, Any] | None:
    from ase.spacegroup import Spacegroup

    if type(value) is Spacegroup and Spacegroup(value.no, value.setting) == value:
        return {"__spacegroup__": [int(value.no), int(value.setting)]}
    return None


def _decode_spacegroup(packed: Any) -> Any:
    from ase.spacegroup import Spacegroup

    number, setting = packed
    if type(number) is not int or type(setting) is not int:
        raise RecordError("a space group needs two integers; the record was damaged")
    return Spacegroup(number, setting)


def _encode_atoms(atoms: Atoms, encode: Callable[[Any], Any]) -> dict[str, Any]:
    packed: dict[str, Any] = {
        "arrays": {name: encode(array) for name, array in atoms.arrays.items()},
        "cell": encode(atoms.cell.array),
        "pbc": [bool(flag) for flag in atoms.pbc],
    }
    if atoms.get_celldisp().any():
        packed["celldisp"] = encode(atoms.get_celldisp())
    if atoms.constraints:
        packed["constraints"] = [encode(constraint) for constraint in atoms.constraints]
    if atoms.info:
        packed["info"] = encode(atoms.info)
    if atoms.calc is not None and (found := packing.current_results(atoms)):
        packed["calculator"] = {"name": found[0], "results": encode(found[1])}
    return packed


def _decode_atoms(packed: dict[str, Any], decode: Callable[[Any], Any]) -> Atoms:
    arrays = {str(name): decode(array) for name, array in packed["arrays"].items()}
    count = len(arrays["numbers"])
    _array(arrays["numbers"], (count,), "numbers", "iu")
    _array(arrays["positions"], (count, 3), "positions")
    for name, array in arrays.items():
        _array(array, (count, *array.shape[1:]), name, "")
    atoms = Atoms(cell=_array(decode(packed["cell"]), (3, 3), "cell"), pbc=[flag is True for flag in packed["pbc"]])
    atoms.arrays = arrays
    if "celldisp" in packed:
        atoms.set_celldisp(decode(packed["celldisp"]))
    if "info" in packed:
        atoms.info = _dict(decode(packed["info"]), "info")
    if "constraints" in packed:
        atoms.constraints = [decode(constraint) for constraint in packed["constraints"]]
    if "calculator" in packed:
        results = _dict(decode(packed["calculator"]["results"]), "results")
        packing.attach_results(atoms, str(packed["calculator"]["name"]), results)
    return atoms


def _encode_constraint(constraint: FixConstraint, encode: Callable[[Any], Any]) -> dict[str, Any] | None:
    name = type(constraint).__name__
    packed: dict[str, Any] = {"__constraint__": name}
    try:
        packed["kwargs"] = encode(dict(constraint.todict())["kwargs"])
    except (AttributeError, NotImplementedError, TypeError, KeyError):
        packed["kwargs"] = None
    if name not in _EXACT or packed["kwargs"] is None:
        try:
            packed["state"] = encode(vars(constraint))
        except InputError:
            return None
    return packed


def _decode_constraint(packed: dict[str, Any], decode: Callable[[Any], Any]) -> FixConstraint:
    name = packed["__constraint__"]
    found = constraint_class(name)
    if found is None:
        raise RecordError(f"{name!r} is not a constraint of this ASE; use the version that the record names")
    state = _dict(decode(packed["state"]), name) if "state" in packed else None
    if packed["kwargs"] is None:
        made = found.__new__(found)
    else:
        made = found(**_dict(decode(packed["kwargs"]), name))
        if state is not None and state.keys() != vars(made).keys():
            state = None  # another ASE, with other attributes: its own constructor knows best
    vars(made).update(state or {})
    return made


def _array(array: Any, shape: tuple[int, ...], name: str, kinds: str = "f") -> np.ndarray[Any, Any]:
    if not isinstance(array, np.ndarray) or array.shape != shape or (kinds and array.dtype.kind not in kinds):
        raise RecordError(f"atoms: {name!r} is not an array of shape {shape}; the record was damaged")
    return array


def _dict(value: Any, name: str) -> dict[Any, Any]:
    if type(value) is not dict:
        raise RecordError(f"{name!r} is not an object; the record was damaged")
    return value
