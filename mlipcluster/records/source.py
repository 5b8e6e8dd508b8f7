"""The identity of a protocol: a digest of its own source and of all the user's code it stands on.

What counts: the function; the functions, classes, modules and constants of the user's that it names (also through
closures, defaults, nested functions, decorators, partials, bound methods and attributes of modules); and theirs in
turn. What does not: formatting, comments, docstrings, type hints (except in class bodies and on decorated functions),
where the code stands, and anything installed: that is the environment's to tell.
"""

from __future__ import annotations

import functools
import inspect
import platform
import types
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlipcluster.errors import ProtocolError
from mlipcluster.records import source_text
from mlipcluster.records.source_graph import UNHASHABLE, Graph


@dataclass(frozen=True)
class ProtocolSource:
    """A protocol as it was when a run began.

    Attributes
    ----------
    module, name : str
        Where to import it from, and its qualified name there.
    file : str
        Its file, or empty where there is none (a notebook's cell).
    text : str
        Its own source. Without source: a comment that says so; the digest is then of its bytecode, which other
        versions of Python compile differently.
    digest : str
        SHA-256 of all it stands on, as 64 hexadecimal digits.
    dependencies : mapping of str to str
        ``"module.name"`` of each function, class, module and constant it stands on, itself included, and 16 digits
        of the digest of that alone; ``"unhashable"`` for values that have none, which the digest leaves out.
    """

    module: str
    name: str
    file: str
    text: str
    digest: str
    dependencies: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {**asdict(self), "dependencies": dict(self.dependencies)}


def describe(function: Callable[..., Any]) -> ProtocolSource:
    """Describe a protocol and all the user's code it stands on, as they are now.

    Raises
    ------
    ProtocolError
        *function* cannot be called.
    """
    if not callable(function):
        raise ProtocolError(f"{function!r:.80} is not a protocol: it cannot be called; hand in a function")
    graph = _graph(function)
    inner = _inner(function)
    text, file = _text(inner)
    module, name = _named(function)
    return ProtocolSource(module, name, file, text, graph.digest(), graph.parts())


def value_digest(value: Any) -> str | None:
    """SHA-256 of any value, code in it included; None if something in it has no stable form."""
    graph = Graph(value, "value")
    return None if graph.unhashable else graph.digest()


def user_modules(function: Callable[..., Any]) -> list[types.ModuleType]:
    """The user's modules that a protocol reaches, which workers cannot import and must get by value."""
    return [module for _, module in sorted(_graph(function).modules.items())]


def difference(recorded: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """What differs between the ``dependencies`` of two descriptions, one readable line each."""
    lines = [f"{name} changed" for name in sorted(recorded.keys() & here.keys()) if recorded[name] != here[name]]
    lines += [f"{name} is no longer used" for name in sorted(recorded.keys() - here.keys())]
    return lines + [f"{name} is new" for name in sorted(here.keys() - recorded.keys())]


def unhashable(source: ProtocolSource) -> list[str]:
    """Names of the values that the digest leaves out, because they have no stable form."""
    return [name for name, digest in source.dependencies.items() if digest == UNHASHABLE]


def _graph(function: Callable[..., Any]) -> Graph:
    module, name = _named(function)
    return Graph(function, f"{module}.{name}")


def _named(function: Any) -> tuple[str, str]:
    if isinstance(function, functools.partial):
        module, name = _named(function.func)
        return module, f"partial({name})"
    named = function if hasattr(function, "__qualname__") else type(function)
    return str(getattr(named, "__module__", None) or "builtins"), str(named.__qualname__)


def _inner(function: Any) -> Any:
    """The user's own function or class inside partials, methods and wrappers."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function) if callable(function) else function
    function = getattr(function, "__func__", function)
    return function if isinstance(function, (types.FunctionType, type)) else type(function)


def _text(inner: Any) -> tuple[str, str]:
    if isinstance(inner, type):
        found = source_text.class_source(inner)
        file = getattr(inspect.getmodule(inner), "__file__", None) or ""
    else:
        found = source_text.function_source(inner)
        file = inner.__code__.co_filename
    missing = f"# no source: identified by its bytecode in Python {platform.python_version()}\n"
    path = Path(file).absolute() if file else None
    return found.text if found else missing, str(path) if path and path.is_file() else ""
