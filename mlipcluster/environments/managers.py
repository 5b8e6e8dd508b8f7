"""The managers of environments, one row each: what one owns, what its lock file says, and how to build from that."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlipcluster.environments import conda, pip, pixi, uv
from mlipcluster.environments.environment import Package
from mlipcluster.environments.lock import Lock
from mlipcluster.environments.steps import Step, Wanted
from mlipcluster.errors import InputError

OVERRIDE = "MLIPCLUSTER_ENVIRONMENT_MANAGER"


@dataclass(frozen=True)
class Manager:
    """One row of the table.

    Attributes
    ----------
    name : str
        What people call it.
    owns : callable
        Whether an environment is its own, told by what ``measure_script.py`` found in it. Never by the PATH.
    lock : callable
        The lock file of an environment, of what was measured and its packages. Reads files; changes none.
    programs : tuple of str
        What its program is called, the first that is on the PATH; empty where Python itself will do.
    files : tuple of tuple of str
        The files that it builds from: each entry is a set of names that is enough, the best first.
    steps : callable
        The commands that make an environment in the folder of its lock files.
    interpreter : callable
        The interpreter that an environment has, or will have, in such a folder.
    """

    name: str
    owns: Callable[[Mapping[str, Any]], bool]
    lock: Callable[[Mapping[str, Any], tuple[Package, ...]], Lock]
    programs: tuple[str, ...]
    files: tuple[tuple[str, ...], ...]
    steps: Callable[[Wanted], list[Step]]
    interpreter: Callable[[Wanted], Path]


def _conda(name: str, owns: Callable[[Mapping[str, Any]], bool], *programs: str) -> Manager:
    return Manager(name, owns, conda.lock, programs, conda.FILES, conda.steps, conda.interpreter)


# The first that owns an environment is its manager; pip, at the end, takes whatever the others leave.
MANAGERS: dict[str, Manager] = {
    manager.name: manager
    for manager in (
        Manager("pixi", pixi.owns, pixi.lock, ("pixi",), pixi.FILES, pixi.steps, pixi.interpreter),
        _conda("mamba", conda.made_by_mamba, "mamba", "micromamba"),
        _conda("conda", conda.owns, "conda"),
        Manager("uv", uv.owns, uv.lock, ("uv",), uv.FILES, uv.steps, pip.interpreter),
        Manager("pip", pip.owns, pip.lock, (), pip.FILES, pip.steps, pip.interpreter),
    )
}


def named(name: str) -> Manager:
    """The manager of that name.

    Raises
    ------
    InputError
        There is none; the message lists the known ones.
    """
    if name not in MANAGERS:
        raise InputError(f"there is no environment manager {name!r:.80}; known: {', '.join(sorted(MANAGERS))}")
    return MANAGERS[name]


def find_manager(measured: Mapping[str, Any]) -> Manager:
    """The manager of a measured environment, or the one named by ``MLIPCLUSTER_ENVIRONMENT_MANAGER``.

    Raises
    ------
    InputError
        That variable names none of the managers.
    """
    name = os.environ.get(OVERRIDE, "").strip()
    if name:
        if name not in MANAGERS:
            known = ", ".join(sorted(MANAGERS))
            raise InputError(f"{OVERRIDE} names {name!r}, which is no manager; take one of {known}, or unset it")
        return MANAGERS[name]
    return next(manager for manager in MANAGERS.values() if manager.owns(measured))
