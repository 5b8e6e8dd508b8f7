"""The programs of this machine that an environment is made with: a manager's, and Python interpreters."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlipcluster.environments import pip
from mlipcluster.environments.environment import Environment
from mlipcluster.environments.managers import MANAGERS, Manager, named
from mlipcluster.errors import EnvironmentBuildError, InputError
from mlipcluster.process import find_program, run_command

_VERSION = re.compile(r"(?:[A-Za-z]+[ @-])?\d+(?:\.\d+)*\w*")
_ASK = """
import importlib.util, json, platform, sys
version = platform.python_version().rstrip("+") + getattr(sys, "abiflags", "")
print(json.dumps([platform.python_implementation().lower(), version,
                  bool(importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv"))]))
"""


def choose(folder: Path, environment: Environment | None, wanted: str) -> Manager:
    """The manager that is to make an environment: the one that is asked for, the recorded one, or one for the files.

    Raises
    ------
    InputError
        It is unknown, or cannot build from the files in *folder*.
    """
    there = [name for files in _all_files() for name in files if (folder / name).is_file()]
    able = [manager for manager in MANAGERS.values() if _enough(manager, folder)]
    name = wanted or (environment.manager if environment else "")
    if name:
        try:
            manager = named(name)
        except InputError as error:
            raise InputError(f"{error}; choose one with --env_manager") from None
        if manager not in able:
            needs = " or ".join(" with ".join(files) for files in manager.files)
            files = ", ".join(dict.fromkeys(there)) or "no lock file"
            others = " or ".join(f"--env_manager {other.name}" for other in able)
            remedy = f"take {others}" if able else "dump the environment first (dump_env_file.py)"
            raise InputError(f"{name} builds from {needs}, and {str(folder)!r} holds {files}; {remedy}")
        return manager
    if not able:
        raise InputError(f"{str(folder)!r} holds no lock file; dump an environment into it first (dump_env_file.py)")
    return next((manager for manager in able if not manager.programs or find_program(manager.programs)), able[0])


def _all_files() -> Iterator[Sequence[str]]:
    for manager in MANAGERS.values():
        yield from manager.files


def _enough(manager: Manager, folder: Path) -> bool:
    return any(all((folder / name).is_file() for name in files) for files in manager.files)


def program(manager: Manager, folder: Path) -> str:
    """The manager's program on this machine; empty for one that needs none.

    Raises
    ------
    EnvironmentBuildError
        It is not here; the message says what to install, and which other manager could do it.
    """
    if not manager.programs:
        return ""
    path = find_program(manager.programs)
    if path:
        return path
    others = [
        other.name
        for other in MANAGERS.values()
        if other is not manager and _enough(other, folder) and (not other.programs or find_program(other.programs))
    ]
    remedy = f", or take {' or '.join(others)}, which is here: --env_manager {others[0]}" if others else ""
    raise EnvironmentBuildError(f"{' or '.join(manager.programs)} is not on the PATH; install {manager.name}{remedy}")


def brings_python(manager: Manager) -> bool:
    """Whether its environments have a Python of their own; those of the others stand on one that is here already."""
    return manager.interpreter is not pip.interpreter


def find_python(manager: Manager, wanted: str, given: str, *, near: bool = False) -> str:
    """The interpreter to make an environment with, or a version that the manager gets by itself.

    Parameters
    ----------
    manager
        One that does not bring Python.
    wanted
        As it is recorded: ``"3.11.7"``, ``"pypy 3.10.14"``; empty where nothing is known.
    given
        By the user: an interpreter, or a version; or empty.
    near
        Whether another release of the same minor version will do.

    Raises
    ------
    InputError
        The given interpreter is none, or is of another version than the recorded one; or no version is recorded there.
    EnvironmentBuildError
        There is none here of that version.
    """
    can_fetch = bool(manager.programs)
    is_version = bool(_VERSION.fullmatch(given))
    if given and not is_version:
        return _given(given, wanted, near)
    wanted = given.replace("@", " ") or wanted
    if wanted and not _VERSION.fullmatch(wanted):  # a record may not name a program to run
        raise InputError(f"{wanted!r:.80}, as it is recorded, is no version of Python; say which one with --python")
    seen: dict[str, str] = {}
    for path in _interpreters(wanted):
        version = version_of(path, with_venv=not can_fetch)
        if version and (version == wanted or not wanted or (is_version and version.startswith(f"{wanted}."))):
            return path
        if version:
            seen.setdefault(version, path)
    if can_fetch:
        return wanted.replace(" ", "@")
    close = [path for version, path in seen.items() if _minor(version) == _minor(wanted)]
    if near and close:
        return close[0]
    here = ", ".join(f"{path} ({version})" for version, path in seen.items()) or "none that has venv and ensurepip"
    raise EnvironmentBuildError(
        f"Python {wanted} is needed, with its modules venv and ensurepip; here: {here}; name one with --python, let uv "
        "fetch it (--env_manager uv), or take another release of the same minor version with --force"
    )


def _given(path: str, wanted: str, near: bool) -> str:
    place = shutil.which(path) or path
    version = version_of(place)
    if not version:
        raise InputError(f"--python {path!r} is no Python that runs, and no version; name an interpreter, or 3.11.7")
    if wanted and version != wanted and not near:
        raise InputError(
            f"--python {path!r} is Python {version}, and {wanted} was recorded; name one of that version, or say "
            "--force: what differs is listed at the end"
        )
    return place if os.path.isabs(place) else os.path.abspath(place)


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _interpreters(wanted: str) -> Iterator[str]:
    """Interpreters that may be the wanted one: this one, those on the PATH, pyenv's."""
    bare = wanted.rpartition(" ")[2]
    names = [f"python{_minor(bare)}", "python3", "python", *(["pypy3"] if wanted.startswith("pypy") else [])]
    yield from filter(None, [sys.executable])
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    yield from (
        path for path in [os.path.join(pyenv, "versions", bare, "bin", "python")] if bare and os.path.isfile(path)
    )
    for folder in os.get_exec_path():
        for name in names:
            path = os.path.join(folder, name)
            if os.access(path, os.X_OK) and os.path.isfile(path):
                yield os.path.abspath(path)


def version_of(python: str, *, with_venv: bool = False) -> str:
    """An interpreter's version, with its implementation if that is not CPython; empty if it is none, or too bare."""
    try:
        done = run_command([python, "-I", "-c", _ASK], timeout=30)
        implementation, version, whole = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError, TypeError):
        return ""
    if with_venv and not whole:
        return ""
    return str(version) if implementation == "cpython" else f"{implementation} {version}"
