"""A calculator's exception, raised again on this side as something that ``except`` recognises."""

from __future__ import annotations

import builtins
import functools
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from mlipcluster.errors import RemoteCalculatorError

#: Modules whose exceptions may be rebuilt here: nothing is imported because a message says so.
KNOWN_MODULES = ("builtins", "ase.calculators.calculator")


def remote_error(label: str, stated: Mapping[str, Any], about: str = "") -> RemoteCalculatorError:
    """The exception that an ``error`` message describes.

    It is a :class:`RemoteCalculatorError`, and also the nearest of Python's or ASE's own exceptions that the remote
    one was derived from.
    """
    types = [str(name) for name in stated.get("types", ())] or ["builtins.Exception"]
    name = types[0].removeprefix("builtins.")
    message = str(stated.get("message", ""))
    text = (
        f"calculator {label!r} raised {name}" + (f": {message}" if message else "") + (f" ({about})" if about else "")
    )
    return rebuild(tuple(types), text, str(stated.get("traceback", "")))


def rebuild(types: tuple[str, ...], text: str, remote_traceback: str) -> RemoteCalculatorError:
    """An error of the class that stands for *types*, the remote class and its bases."""
    return _class_for(types)(text, types[0], remote_traceback)


@functools.lru_cache(maxsize=256)
def _class_for(types: tuple[str, ...]) -> type[RemoteCalculatorError]:
    base = _nearest(types)
    if base is None:
        return RemoteCalculatorError

    def reduce(self: RemoteCalculatorError) -> tuple[Any, ...]:
        return rebuild, (types, str(self), self.remote_traceback)

    def text(self: RemoteCalculatorError) -> str:
        return BaseException.__str__(self)  # KeyError and OSError have a manner of their own

    members = {"__reduce__": reduce, "__str__": text, "__module__": __name__, "__doc__": f"Remote {types[0]}."}
    return type(f"Remote{base.__name__}", (RemoteCalculatorError, base), members)


def _nearest(types: Sequence[str]) -> type[Exception] | None:
    for name in types:
        module, _, cls = name.rpartition(".")
        if module not in KNOWN_MODULES:
            continue
        found = getattr(builtins if module == "builtins" else importlib.import_module(module), cls, None)
        if isinstance(found, type) and issubclass(found, Exception) and _takes_one_message(found):
            return None if issubclass(RemoteCalculatorError, found) else found
    return None


def _takes_one_message(cls: type[Exception]) -> bool:
    try:
        type("_", (RemoteCalculatorError, cls), {})("text", "", "")
        cls("text")
    except TypeError:
        return False
    return True
