"""Where the calculator computes: what its factory is told, which only a process of the model's environment knows."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

#: What factories call the argument that says where to compute, in the order in which they are tried.
DEVICE_ARGUMENTS = ("device", "use_device")
#: Asks for the best that is here.
AUTO = "auto"
CPU = "cpu"


def device_argument(factory: Callable[..., Any]) -> str:
    """What *factory* calls its argument for the device; ``"device"`` where it does not say."""
    declared = _declared(factory)
    return DEVICE_ARGUMENTS[0] if declared is None else declared.name


def device_of(factory: Callable[..., Any], spec: Mapping[str, Any]) -> str | None:
    """The device that *factory* is told; None if it is told none.

    ``"auto"`` is the best that is here. Where nothing is said, a factory that takes a GPU unless told otherwise, as
    Rootstock's ``setup(model, device="cuda")`` does, is told ``"cpu"`` if torch sees none.
    """
    wanted = spec.get("device")
    if wanted is not None and wanted != AUTO:
        return str(wanted)
    declared = _declared(factory)
    if declared is None or _is_told(factory, declared.name, spec):
        return None
    if wanted == AUTO:
        return _best()
    takes_gpu = str(declared.default).startswith("cuda")
    return CPU if takes_gpu and _best() != "cuda" else None


def _best() -> str:
    """The device that torch would compute on with most profit; ``"cpu"`` without torch."""
    try:
        torch = importlib.import_module("torch")  # a model that wants a GPU imports it anyway
    except ImportError:
        return CPU
    seen = {
        "cuda": getattr(torch, "cuda", None),
        "mps": getattr(getattr(torch, "backends", None), "mps", None),
        "xpu": getattr(torch, "xpu", None),
    }
    return next((name for name, kind in seen.items() if kind is not None and kind.is_available()), CPU)


def _declared(factory: Callable[..., Any]) -> inspect.Parameter | None:
    """The factory's own argument for the device."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return None
    return next((parameters[name] for name in DEVICE_ARGUMENTS if name in parameters), None)


def _is_told(factory: Callable[..., Any], name: str, spec: Mapping[str, Any]) -> bool:
    """Whether the device is among the arguments anyway."""
    told = inspect.signature(factory).bind_partial(*spec.get("args", ()), **spec.get("kwargs", {}))
    return name in told.arguments
