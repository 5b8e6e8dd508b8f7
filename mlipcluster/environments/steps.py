"""The commands that make an environment out of its lock file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlipcluster.environments.environment import Environment


@dataclass(frozen=True)
class Step:
    """One command, run in the folder that holds the lock files.

    Attributes
    ----------
    command : tuple of str
        Program and arguments.
    variables : mapping of str to str
        Environment variables that it needs besides those that are set.
    """

    command: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """An environment that is to be made.

    Attributes
    ----------
    folder : Path
        Holds the lock files; the environment is made in it.
    program : str
        The manager's program; empty for a manager that needs none.
    python : str
        For managers that do not bring Python: an interpreter, or a version (``"3.11.7"``).
    environment : Environment, optional
        As it was measured where it was recorded; None where only the lock files are there.
    local : mapping of str to Path
        Folders to install packages from that were installed from a folder: those have no address to be fetched from.
    """

    folder: Path
    program: str
    python: str = ""
    environment: Environment | None = None
    local: Mapping[str, Path] = field(default_factory=dict)
