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

from mlipcluster.records.packing import encode

LIMIT = 1_000_000  # values; what is larger is data, not code, and is not read
_NUMBERS = frozenset({type(None), bool, int, str, bytes, bytearray, complex, type(Ellipsis), type(NotImplemented)})
# Their state moves as they are used, so it tells nothing about the code.
_MOVING = (random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator, types.GeneratorType)
_MOVING_PACKAGES = frozenset(
    {"distributed", "dask", "threading", "_thread", "multiprocessing", "concurrent", "asyncio"}
)


class Unhashable(Exception):  # noqa: N818 - not an error: tells the caller to list the name and go on
    """A value that has no stable form; the argument is its type's name."""


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
            return ["tensor", encode(value.detach().cpu().numpy(), pickles=False, compress=False)]
        if hasattr(value, "__wrapped__") and callable(value):
            return ["wrapper", self.form(kind), self.form(value.__wrapped__)]
        return self._reduced(value, kind)

    def _reduced(self, value: Any, kind: type) -> Any:
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
    named = key if hasattr(key, "__qualname__") else kind
    return "object", f"{named.__module__}.{named.__qualname__}"


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
        if isinstance(value, GetPropertiesMixin) and hasattr(value, "parameters"):
            # Its results and cached atoms come and go with use; what it was made with stays.
            return ["calculator", values.form(type(value)), values.form(dict(value.parameters))]
        if isinstance(value, np.ufunc):
            return ["ufunc", value.__name__]
        if type(value) is np.ndarray and value.dtype.kind in "biufc":
            plain = value.astype(value.dtype.newbyteorder("<"))
            return ["array", plain.dtype.str, list(plain.shape), hashlib.sha256(plain.tobytes()).hexdigest()]
        return ["packed", encode(value, pickles=False, compress=False)]
    except InputError:
        return None


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
    return ["enum", values.form(type(value)), value.name]


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
