"""What holds: settings from all who may say something, each with who said it.

A file looks like this; everything may be left out::

    root = "/shared/mlips"  # taken where neither a root nor a cluster is asked for
    use_serve = true  # calculators come from a server (`mlipcluster serve`) where the code does not say

    [serve]
    idle_timeout = 600  # seconds
    calculators = ["registry.py:CALCULATORS"]  # beside this file

    [clusters.della]
    root = "/scratch/gpfs/SHARED/rootstock"

    [clusters.gpu]  # where workers run: a kind of deployment, and any of its fields
    type = "slurm"
    queue = "gpu"
    gpus = 1

Key by key, a later one overrides an earlier: what is built in, the site's file (``/etc/mlipcluster/config.toml``), the
user's (``$XDG_CONFIG_HOME/mlipcluster/config.toml``, else ``~/.config/mlipcluster/config.toml``),
``[tool.mlipcluster]`` of the nearest ``pyproject.toml``, variables (``MLIPCLUSTER_ROOT``,
``MLIPCLUSTER_SERVE_IDLE_TIMEOUT``, …), and what is handed in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlipcluster.settings import files
from mlipcluster.settings.keys import KEYS, PLAIN, TYPE, check_variables, read, unread, variable

BUILT_IN = "built in"
ARGUMENT = "argument"
EXAMPLES = {
    "clusters": {
        "modal": {"root": "/vol/rootstock"},
        "della": {"root": "/scratch/gpfs/SHARED/rootstock"},
    }
}


@dataclass(frozen=True)
class Setting:
    """A value, and who says so.

    Attributes
    ----------
    value : object
        As `mlipcluster.settings.keys` reads it: a full path for ``root``; None where nobody says anything.
    origin : str
        ``"built in"``, the path of a file, the name of a variable, or ``"argument"``.
    """

    value: Any
    origin: str


def setting(key: str, given: Any = None) -> Setting:
    """What holds of a key.

    Parameters
    ----------
    key : str
        ``"serve.idle_timeout"``, for example; see `mlipcluster.settings.keys`.
    given : optional
        What the caller was told; None if nothing. Then nothing else is looked at.

    Raises
    ------
    InputError
        What was given cannot be meant; otherwise as :func:`settings`.
    """
    if given is not None:
        return Setting(read(key, given, ARGUMENT), ARGUMENT)
    return settings()[key]


def settings() -> dict[str, Setting]:
    """Everything that is set or has a default, by its full name (``"root"``, ``"clusters.della.root"``), sorted.

    Raises
    ------
    InputError
        A file is no TOML, has a key that nobody reads, or a value that cannot be meant; file and key are named. Or
        nobody reads a variable that begins with ``MLIPCLUSTER_SERVE_``.
    """
    merged = {key: Setting(KEYS[key].default, BUILT_IN) for key in PLAIN}
    merged.update((key, Setting(read(key, value, BUILT_IN), BUILT_IN)) for key, value in _flat(EXAMPLES))
    for path, tables in files.told():
        origin, folder = str(path), str(path.parent)
        for key, value in _flat(tables):
            merged[key] = Setting(read(key, value, origin, folder), origin)
    merged.update(_heard(os.environ))
    _check_fields(merged)
    return dict(sorted(merged.items()))


def _heard(variables: Mapping[str, str]) -> Iterator[tuple[str, Setting]]:
    """What environment variables say; an empty one says nothing."""
    check_variables(variables)
    for key in PLAIN:
        name = variable(key)
        if text := variables.get(name):
            yield key, Setting(read(key, KEYS[key].heard(text), name, os.path.abspath("")), name)


def _check_fields(known: Mapping[str, Setting]) -> None:
    """See that the fields of a cluster come with its type; without it they may be misspelt."""
    for key, one in known.items():
        before, _, field = key.rpartition(".")
        is_field = key.startswith("clusters.") and field not in ("root", TYPE)
        if is_field and f"{before}.{TYPE}" not in known:
            raise unread(key, one.origin)


def _flat(tables: Mapping[str, Any], before: str = "", depth: int = 3) -> Iterator[tuple[str, Any]]:
    """Names with dots, and values, of nested tables; an empty table within another is a value that nobody reads.

    A field of a cluster may itself be a table.
    """
    for name, value in tables.items():
        if isinstance(value, Mapping) and (value or not before) and depth > 1:
            yield from _flat(value, f"{before}{name}.", depth - 1)
        else:
            yield before + name, value
