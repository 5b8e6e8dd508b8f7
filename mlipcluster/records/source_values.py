"""Values as forms that are equal for equal values: no addresses, no order of hashing, no state that moves by itself."""

from __future__ import annotations

import collections
import copyreg
import enum
import functools
import hashlib
import logging
import random
import types
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

from mlipcluster.records.canonical import canonical
from mlipcluster.records.packing import encode
from mlipcluster.records.source_members import written
from mlipcluster.records.source_text import code_form

LIMIT = 1_000_000  # values; what is larger is data, not code, and is not read
_NUMBERS = frozenset({type(None), bool, int, str, bytes, bytearray, complex, type(Ellipsis), type(NotImplemented)})
# Their state moves as they are used, so it tells nothing about the code.
_MOVING = (random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator, types.GeneratorType)
_MOVING_PACKAGES = frozenset(
    {"distributed", "dask", "threading", "_thread", "multiprocessing", "concurrent", "asyncio"}
)
# What objects of these classes of ASE's, and of classes derived from them, keep beside what they were made with: it
# comes and goes with use.
_NOT_MADE_WITH: Mapping[str, frozenset[str]] = {
    "ase.calculators.abc.GetPropertiesMixin": frozenset({"atoms", "results", "parameters"}),  # the last is told beside
    "ase.calculators.emt.EMT": frozenset(
        {"acut", "chi", "deds", "energies", "forces", "ia2iz", "nl", "par", "rc", "rc_list", "sigma1", "stress"}
    ),
    "ase.calculators.lj.LennardJones": frozenset({"nl"}),
    "ase.calculators.tip4p.TIP4P": frozenset({"energy", "forces"}),
}
_HOLDS_RESULTS = "ase.calculators.singlepoint.SinglePointCalculator"  # they are what it was made with
_FOLDERS = frozenset({"directory", "_directory"})  # where ASE's own calculators write: often another one each time


class Unhashable(Exception):  # noqa: N818 - not an error: tells the caller to list the name and go on
    """A value that has no stable form.

    Parameters
    ----------
    name : str
        Name of its type.
    known : optional
        Form of what has one all the same.
    """

    def __init__(self, name: str, known: Any = None) -> None:
        super().__init__(name)
        self.known = known


class Values:
    """One walk over values; code inside them is handed to *code*.

    Parameters
    ----------
    code : callable
        Form of a function, class or module.
    """

    def __init__(self, code: Callable[[Any], Any]) -> None:
        self.code = code
        self.open: dict[int, int] = {}
        self.left = LIMIT

    def form(self, value: Any) -> Any:
        """The form of *value*; raises :class:`Unhashable` if it has none."""
        kind = type(value)
        self.left -= 1
        if self.left < 0:
            raise Unhashable(f"{_name(kind)}, too large")
        if kind in _NUMBERS:
            return [kind.__name__, value.hex() if isinstance(value, (bytes, bytearray)) else repr(value)]
        if kind is float:
            return ["float", value.hex()]
        if id(value) in self.open:
            return ["cycle", len(self.open) - self.open[id(value)]]
        self.open[id(value)] = len(self.open)
        try:
            return self._inside(value, kind)
        except RecursionError:
            raise Unhashable(f"{_name(kind)}, too deep") from None
        finally:
            del self.open[id(value)]

    def _inside(self, value: Any, kind: type) -> Any:
        if kind in {list, tuple, collections.deque}:
            return [kind.__name__, [self.form(item) for item in value]]
        if kind in {dict, collections.OrderedDict, types.MappingProxyType}:
            return [kind.__name__, self._items(value)]
        if kind in {set, frozenset}:
            return [kind.__name__, [self.form(item) for item in sorted(value, key=_order)]]
        if isinstance(value, (type, types.FunctionType, types.ModuleType)):
            return self.code(value)
        for types_, method in _METHODS:
            if isinstance(value, types_):
                return method(self, value)
        return self._other(value, kind)

    def _items(self, value: Mapping[Any, Any]) -> list[Any]:
        return [[self.form(key), self.form(value[key])] for key in sorted(value, key=_order)]

    def _other(self, value: Any, kind: type) -> Any:
        package = kind.__module__.partition(".")[0]
        if isinstance(value, _MOVING) or package in _MOVING_PACKAGES:
            raise Unhashable(_name(kind))
        if package in {"ase", "numpy"} or _is_ase(kind):
            found = _library_form(self, value)
            if found is not None:
                return found
        if package == "torch" and hasattr(value, "detach"):
            return _tensor(self, value)
        if hasattr(value, "__wrapped__") and callable(value):
            return ["wrapper", self.form(kind), self.form(value.__wrapped__)]
        return self.reduced(value, kind)

    def reduced(self, value: Any, kind: type) -> Any:
        """What pickle would keep of an object, without pickling it."""
        try:
            registered = copyreg.dispatch_table.get(kind)  # regular expressions, unions of types
            reduced = registered(value) if registered else value.__reduce_ex__(4)
        except Exception as error:
            raise Unhashable(_name(kind)) from error
        if isinstance(reduced, str):
            return ["global", kind.__module__, reduced]
        make, arguments, *rest = reduced
        state, items, pairs = (*rest, None, None, None)[:3]
        if isinstance(state, dict) and _is_ase(kind):
            state = _made_with(kind, state)
        return [
            "object",
            self.form(make),
            self.form(arguments),
            self.form(state),
            [self.form(item) for item in items or ()],
            [[self.form(key), self.form(item)] for key, item in pairs or ()],
        ]


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _order(key: Any) -> tuple[str, Any]:
    """By what members of sets and keys of dicts are sorted: nothing that another process would see otherwise."""
    kind = type(key)
    if kind in _NUMBERS or kind is float:
        return kind.__name__, repr(key)
    if kind is tuple:
        return "tuple", [_order(item) for item in key]
    if kind is frozenset:
        return "frozenset", sorted(_order(item) for item in key)
    values = Values(lambda code: _code_order(values, code))
    return "object", canonical(values.form(key))


def _code_order(values: Values, code: Any) -> Any:
    """Code by its name; what a function made, which may make many of one name, by what it holds.

    Not by its place in the graph: that would follow from the order which is looked for.
    """
    if isinstance(code, types.ModuleType):
        return code.__name__
    name = f"{code.__module__}.{code.__qualname__}"
    if isinstance(code, type):
        return [name, values.form(dict(written(code)))] if "<locals>" in name else name
    return [name, code_form(code.__code__), values.form([code.__defaults__, code.__kwdefaults__, _cells(code)])]


def _cells(function: types.FunctionType) -> list[Any]:
    try:
        return [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # one is still empty
        return []


def _made_with(kind: type, state: Mapping[str, Any]) -> dict[str, Any]:
    """Those attributes of an object of ASE's, or of a class derived from one, that tell what it was made with."""
    names = [_name(base) for base in kind.__mro__]
    moving = set(_FOLDERS if kind.__module__.startswith("ase.") else ())
    if _HOLDS_RESULTS not in names:
        moving.update(*(_NOT_MADE_WITH.get(name, ()) for name in names))
    kept = {key: value for key, value in state.items() if key not in moving}
    if isinstance(offered := kept.get("implemented_properties"), (list, tuple)):
        kept["implemented_properties"] = sorted(offered, key=_order)  # those of a mixture are in the order of hashing
    return kept


def _is_ase(kind: type) -> bool:
    return any(base.__module__.partition(".")[0] == "ase" for base in kind.__mro__)


def _library_form(values: Values, value: Any) -> Any:
    from ase import Atoms
    from ase.calculators.abc import GetPropertiesMixin

    from mlipcluster.errors import InputError
    from mlipcluster.records.identity import structure_digest

    try:
        if isinstance(value, Atoms):
            return ["structure", structure_digest(value)]
        if isinstance(value, GetPropertiesMixin):
            return _calculator(values, value)
        if isinstance(value, np.ufunc):
            return ["ufunc", value.__name__]
        if type(value) is np.ndarray and value.dtype.kind in "biufc":
            plain = value.astype(value.dtype.newbyteorder("<"))
            return ["array", plain.dtype.str, list(plain.shape), hashlib.sha256(plain.tobytes()).hexdigest()]
        return ["packed", encode(value, pickles=False, compress=False)]
    except InputError:
        return None


def _calculator(values: Values, value: Any) -> Any:
    """What a calculator was made with: its parameters, and whatever else it keeps but results and caches."""
    parameters = getattr(value, "parameters", None)  # ASE's own class for them is a dict with a second face
    told = dict(parameters) if isinstance(parameters, Mapping) else parameters
    known = ["calculator", values.form(type(value)), values.form(told)]
    try:
        return [*known, values.reduced(value, type(value))]
    except Unhashable as error:
        raise Unhashable(str(error), known) from error


def _tensor(values: Values, value: Any) -> Any:
    try:
        array = value.detach().cpu().numpy()
    except (TypeError, RuntimeError) as error:  # NumPy has no bfloat16; a sparse tensor is no array
        raise Unhashable(_name(type(value))) from error
    return ["tensor", values.form(array)]


def _method(values: Values, value: types.MethodType) -> Any:
    return ["method", values.form(value.__func__), values.form(value.__self__)]


def _builtin(values: Values, value: types.BuiltinFunctionType) -> Any:
    owner = value.__self__
    if owner is None or isinstance(owner, types.ModuleType):
        return ["builtin", f"{value.__module__}.{value.__qualname__}"]
    return ["builtin", value.__name__, values.form(owner)]


def _partial(values: Values, value: functools.partial[Any]) -> Any:
    return ["partial", values.form(value.func), values.form(value.args), values.form(value.keywords)]


def _property(values: Values, value: property) -> Any:
    return ["property", *(values.form(part) for part in (value.fget, value.fset, value.fdel))]


def _descriptor(values: Values, value: Any) -> Any:
    return [type(value).__name__, values.form(value.__func__ if hasattr(value, "__func__") else value.func)]


def _enum(values: Values, value: enum.Enum) -> Any:
    # Where its class has no source, and for flags that were put together, the name does not tell the value.
    return ["enum", values.form(type(value)), value.name, values.form(value.value)]


def _set(values: Values, value: set[Any] | frozenset[Any]) -> Any:
    """Of a class derived from these; pickle keeps its members in the order of hashing."""
    form = values.form
    return ["set", form(type(value)), form(frozenset(value)), form(getattr(value, "__dict__", None))]


def _path(_: Values, value: PurePath) -> Any:
    return ["path", str(value)]


def _logger(_: Values, value: logging.Logger) -> Any:  # noqa: ARG001 - named after its module, and decides nothing
    return ["logger"]


def _slot(_: Values, value: Any) -> Any:
    return [type(value).__name__, value.__name__]


_METHODS: tuple[tuple[Any, Callable[[Any, Any], Any]], ...] = (
    (types.MethodType, _method),
    (types.BuiltinFunctionType, _builtin),
    (functools.partial, _partial),
    (property, _property),
    ((staticmethod, classmethod, functools.cached_property), _descriptor),
    (enum.Enum, _enum),
    ((set, frozenset), _set),
    (PurePath, _path),
    (logging.Logger, _logger),
    (
        (
            types.MemberDescriptorType,
            types.GetSetDescriptorType,
            types.WrapperDescriptorType,
            types.MethodDescriptorType,
            types.ClassMethodDescriptorType,
            types.MethodWrapperType,
        ),
        _slot,
    ),
)
