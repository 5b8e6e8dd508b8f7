"""What a table or a package offers under a name, in whichever form: a spec, or a command that starts a worker."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlipcluster.calculators.known import Known
from mlipcluster.calculators.module_folders import folder_of
from mlipcluster.calculators.spawn import SpawnConfig
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.errors import InputError
from mlipcluster.socket_worker.factory import METHOD

FORMS = (
    "a class or function, 'module:callable', the fields of a CalculatorSpec, a CalculatorSpec, a SpawnConfig, or an"
    " mlipx model"
)


@dataclass(frozen=True)
class Place:
    """Where something is offered.

    Attributes
    ----------
    source : str
        For people.
    module, name : str
        How a worker reaches the table: the module, and the name in it.
    folder : str
        The one that holds the module, if it is not installed.
    """

    source: str
    module: str
    name: str
    folder: str = ""


def offered(key: Any, value: Any, place: Place) -> Known:
    """The calculator that *value* describes.

    Raises
    ------
    InputError
        It describes none; source, key and remedy are named.
    """
    if not isinstance(key, str) or not key:
        raise InputError(f"{place.source}: {key!r:.80} is no name of a calculator; write text")
    try:
        return _offered(key, value, place)
    except InputError as error:
        raise InputError(f"{place.source}: {key!r}: {error}") from None


def _offered(key: str, value: Any, place: Place) -> Known:
    if (command := _command(key, value)) is not None:
        return Known(key, place.source, None, command)
    why = ""
    if isinstance(value, CalculatorSpec):
        spec = value
    elif isinstance(value, str):
        spec = CalculatorSpec(value)
    elif isinstance(value, Mapping):
        spec = CalculatorSpec.from_json(value)
    elif _is_mlipx(value):
        spec, why = _of_mlipx(value)
    elif callable(value) or (callable(getattr(value, METHOD, None)) and not isinstance(value, type)):
        spec = _called(key, value, place)
    else:
        raise InputError(_refusal(value))
    paths = dict.fromkeys((*spec.paths, *((place.folder,) if place.folder else ())))
    return Known(key, place.source, spec.replace(name=key, paths=tuple(paths)), why=why)


def _command(key: str, value: Any) -> SpawnConfig | None:
    """The spawn configuration that *value* is; aserpc's are read by their attributes."""
    if isinstance(value, Mapping):
        fields = {**value, "name": key} if "command" in value else None
    elif hasattr(value, "command") and not callable(value) and not hasattr(value, "get_potential_energy"):
        told = {name: getattr(value, name, None) for name in ("command", "env", "cwd", "idle_timeout")}
        fields = {"name": key, **told}
    else:
        fields = None
    return None if fields is None else SpawnConfig.described(key, fields)


def _is_mlipx(value: Any) -> bool:
    return not isinstance(value, type) and hasattr(value, "module") and hasattr(value, "class_name")


def _of_mlipx(model: Any) -> tuple[CalculatorSpec, str]:
    """An mlipx model, by its attributes: the calculator, and which of uv's extras it asks for."""
    device = getattr(model, "device", None)
    device = getattr(device, "value", device)  # mlipx has an enumeration
    spec = CalculatorSpec(
        f"{model.module}:{model.class_name}",
        kwargs=dict(getattr(model, "kwargs", None) or {}),
        device=device,
    )
    extra = [str(one) for one in getattr(model, "extra", None) or ()]
    return spec, f"needs what mlipx installs as its extras: {', '.join(extra)}" if extra else ""


def _called(key: str, value: Any, place: Place) -> CalculatorSpec:
    """A callable under its own name, where a worker can import that; otherwise as an item of its table."""
    function, args, kwargs = value, [], {}
    if isinstance(value, functools.partial):
        function, args, kwargs = value.func, list(value.args), dict(value.keywords)
    factory = _importable(function)
    if factory is not None and _survives(args) and _survives(kwargs):
        folder = folder_of(function.__module__)
        return CalculatorSpec(factory, args=tuple(args), kwargs=kwargs, paths=(folder,) if folder else ())
    return CalculatorSpec(f"{place.module}:{place.name}[{key}]")


def _importable(function: Any) -> str | None:
    """``module:qualname`` of a class or function, where that leads back to it."""
    module, qualname = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str) or module == "__main__":
        return None
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return f"{module}:{qualname}" if found is not None and found == function else None


def _survives(arguments: Any) -> bool:
    """Whether JSON gives the arguments back as they are; a tuple, say, comes back as a list."""
    try:
        again = CalculatorSpec("a:b", kwargs={"all": arguments}).to_json()["kwargs"]["all"]
    except InputError:
        return False
    return bool(_same(again, arguments))


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _refusal(value: Any) -> str:
    kind = type(value).__name__
    if hasattr(value, "get_potential_energy"):
        return f"{kind} is a calculator already, and cannot travel; give what makes it: lambda: {kind}(…)"
    found = str(value) if isinstance(value, Path) else repr(value)
    return f"{found:.80} is no calculator; give {FORMS}"
