"""The managers of environments, one row each: how to see that one owns an environment, and what its lock file says."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mlipcluster.environments import conda, pip, uv
from mlipcluster.environments.environment import Package
from mlipcluster.environments.lock import Lock
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
    """

    name: str
    owns: Callable[[Mapping[str, Any]], bool]
    lock: Callable[[Mapping[str, Any], tuple[Package, ...]], Lock]


# The first that owns an environment is its manager; pip, at the end, takes whatever the others leave.
MANAGERS: dict[str, Manager] = {
    manager.name: manager
    for manager in (
        Manager("conda", conda.owns, conda.lock),
        Manager("uv", uv.owns, uv.lock),
        Manager("pip", pip.owns, pip.lock),
    )
}


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
