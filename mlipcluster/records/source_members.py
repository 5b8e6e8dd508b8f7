"""Which attributes of a class somebody wrote, and which Python and its libraries keep there for themselves."""

from __future__ import annotations

import enum
import types
from collections.abc import Iterator
from typing import Any

# Some in some versions of Python only, some in the order of hashing, some with line numbers.
_KEPT_BY_PYTHON = frozenset(
    {"__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__slots__", "__slotnames__", "_abc_impl"}
    | {"__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__", "__match_args__", "__final__"}
    | {"__firstlineno__", "__static_attributes__", "__classcell__", "__classdictcell__", "__type_params__"}
    | {"__parameters__", "__orig_bases__", "__abstractmethods__", "__callable_proto_members_only__", "__total__"}
)
# What else libraries keep under such names (schemas, validators, locks) is neither a method nor of these very types.
_WRITTEN = frozenset({bool, int, float, complex, str, bytes, tuple})


def written(cls: type) -> Iterator[tuple[str, Any]]:
    """Name and value of each attribute of the class itself that somebody wrote; of an enumeration's members, values."""
    members: dict[str, Any] = dict(cls.__members__) if isinstance(cls, enum.EnumMeta) else {}
    for key, value in sorted(vars(cls).items()):
        if key in _KEPT_BY_PYTHON or key in members or (isinstance(cls, enum.EnumMeta) and _is_of_enum(key, value)):
            continue
        if not _is_dunder(key) or _is_method(value) or type(value) in _WRITTEN:
            yield key, value
    for key, member in sorted(members.items()):
        yield key, member.value


def unwrapped(value: Any) -> types.FunctionType | None:
    """The function of a method; None for what is none."""
    if isinstance(value, (staticmethod, classmethod)):
        value = value.__func__
    return value if isinstance(value, types.FunctionType) else None


def _is_method(value: Any) -> bool:
    return unwrapped(value) is not None or isinstance(value, property)


def _is_dunder(key: str) -> bool:
    return key.startswith("__") and key.endswith("__")


def _is_of_enum(key: str, value: Any) -> bool:
    """Whether `enum` keeps it, such as ``_member_map_``; hooks that somebody wrote, such as ``_missing_``, are not."""
    function = unwrapped(value)
    return key.startswith("_") and key.endswith("_") and (function is None or function.__module__ == "enum")
