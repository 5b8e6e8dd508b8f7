"""What this process says of itself: versions, devices, threads, and the files its weights came from."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from typing import Any

from .calculation import Calculation
from .weights import WeightsWatch

STANDARD_MODULES = getattr(sys, "stdlib_module_names", frozenset(sys.builtin_module_names))


def describe(calculation: Calculation, watch: WeightsWatch) -> dict[str, Any]:
    """Provenance as a JSON object; see ``mlipcluster.calculators.provenance.Provenance``."""
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "prefix": sys.prefix,
        "versions": _versions(),
        "implemented_properties": calculation.implemented_properties,
        "weights": watch.found(),
        "scratch": watch.scratch,
        "code": watch.found_code(),
        "threads": _threads(),
        "devices": _devices(calculation.calculator),
        "build_seconds": calculation.build_seconds,
    }


def _versions() -> dict[str, str]:
    """Versions of the imported packages that have one."""
    names = {name.partition(".")[0] for name in sys.modules}
    found = {}
    for name in sorted(names - set(STANDARD_MODULES)):
        if not name.startswith("_") and (version := _version(name)):
            found[name] = version
    return found


def _version(name: str) -> str:
    stated = getattr(sys.modules.get(name), "__dict__", {}).get("__version__")
    if name not in _KNOWN_VERSIONS:
        try:
            _KNOWN_VERSIONS[name] = metadata.version(name)
        except Exception:  # noqa: BLE001 - not a distribution's name, or a distribution without readable metadata
            _KNOWN_VERSIONS[name] = ""
    return _KNOWN_VERSIONS[name] or (stated if isinstance(stated, str) else "")


_KNOWN_VERSIONS: dict[str, str] = {}


def _threads() -> dict[str, Any]:
    threads: dict[str, Any] = {
        name: value for name, value in sorted(os.environ.items()) if name.endswith("_NUM_THREADS")
    }
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        threads["torch"] = int(torch.get_num_threads())
    return threads


def _devices(calculator: Any) -> list[str]:
    """Where it computes: what the calculator calls its device, and the names of the GPUs that are in use."""
    devices = [str(device)] if (device := getattr(calculator, "device", None)) is not None else ["cpu"]
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is not None and getattr(cuda, "is_initialized", lambda: False)():
        devices += [str(cuda.get_device_name(index)) for index in range(cuda.device_count())]
    return devices
