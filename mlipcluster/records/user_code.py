"""Which code is the user's own, and which is installed: only the user's is part of a protocol's identity."""

from __future__ import annotations

import os
import sys
import sysconfig
import types
from functools import lru_cache
from pathlib import Path
from typing import Any

from mlipcluster.environments.measure import INSTALLED

_MAKERS = frozenset({"types", "abc"})  # classes made by a call there are called after them
_OURS = "mlipcluster"  # named in the environment by version or commit, wherever it lies


def is_user_module(module: types.ModuleType) -> bool:
    """Whether a module is the user's: not the standard library's, not installed, not mlipcluster."""
    name = module.__name__
    if name == "__main__":
        return True
    if name.partition(".")[0] == _OURS or name in sys.builtin_module_names:
        return False
    file = getattr(module, "__file__", None)
    if isinstance(file, str):
        return is_user_file(file)
    folders = [str(folder) for folder in getattr(module, "__path__", ())]
    if folders:  # a folder without __init__.py
        return any(is_user_file(folder) for folder in folders)
    return getattr(getattr(module, "__spec__", None), "origin", None) not in {"built-in", "frozen"}


def is_user_function(function: types.FunctionType) -> bool:
    """Whether a function is the user's, by the file of its code (what wraps it may be named after it)."""
    name = str(function.__globals__.get("__name__", ""))
    if name.partition(".")[0] == _OURS:
        return False
    file = function.__code__.co_filename
    if file.startswith("<"):  # generated, or typed at a prompt: whoever's namespace it lives in
        module = sys.modules.get(name)
        return module is None or is_user_module(module)
    return is_user_file(file)


def is_user_class(cls: type) -> bool:
    """Whether a class is the user's, by the module it says it is from."""
    module = sys.modules.get(cls.__module__)
    if cls.__module__ in _MAKERS and getattr(module, cls.__qualname__, None) is not cls:
        return True
    return cls.__module__.partition(".")[0] != _OURS and (module is None or is_user_module(module))


@lru_cache(maxsize=4096)
def is_user_file(file: str) -> bool:
    """Whether a file or folder is neither installed nor part of Python."""
    if file.startswith("<frozen"):
        return False
    path = Path(os.path.abspath(file))
    if INSTALLED.intersection(path.parts):
        return False
    # Compared as written and as resolved: an environment's lib may be reached through links.
    return not any(_within(place, folder) for place in {path, _resolved(path)} for folder in _library_folders())


def module_of(function_or_class: Any) -> types.ModuleType | None:
    """The module a function runs in, or a class says it is from."""
    if isinstance(function_or_class, types.FunctionType):
        return sys.modules.get(str(function_or_class.__globals__.get("__name__", "")))
    return sys.modules.get(str(getattr(function_or_class, "__module__", "")))


@lru_cache(maxsize=1)
def _library_folders() -> tuple[Path, ...]:
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    plain = {Path(path).absolute() for path in paths if path}
    return tuple(sorted(plain | {_resolved(path) for path in plain}))


def _resolved(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _within(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents
