"""How an environment is to be made again: seen before anything is started."""

from __future__ import annotations

import os
import platform
import re
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlipcluster.environments.environment import Environment
from mlipcluster.environments.lock import LOCK_FILES
from mlipcluster.environments.managers import Manager
from mlipcluster.environments.origins import read_text
from mlipcluster.environments.steps import Step, Wanted
from mlipcluster.errors import InputError, RecordError
from mlipcluster.recreation import found, local_packages, programs
from mlipcluster.recreation.dump import MEASURED
from mlipcluster.recreation.dump_report import shown
from mlipcluster.recreation.printing import printable

TIMEOUT = 3600.0
"""Seconds that all commands together may take unless told otherwise."""

_HOST = re.compile(r"://(?:[^/\s@\"']*@)?([^/\s\"'#?,]+)")
# An option of pip's, or a path, on a line of its own or as an entry of environment.yml; "---" begins a YAML file.
_OPTION = re.compile(
    r"(?m)^[ \t]*(?:-[ \t]+)?[\"']?"
    r"((?!--hash\b)-{1,2}[A-Za-z].*|(?:file:|\.{0,2}/).*|\S+[ \t]*@[ \t]*(?:file:|\.{0,2}/).*)$"
)


@dataclass(frozen=True)
class Order:
    """What is asked for.

    Attributes
    ----------
    folder : Path
        Holds the lock files; the environment is made in it.
    manager : str
        Empty: the recorded one, or one that can build from the files.
    timeout : float
        Seconds, for all commands together.
    python : str
        Interpreter or version, for managers that do not bring Python; empty: of the recorded version.
    packages : mapping of str to str
        Where packages are that were installed from a folder; an empty path leaves one out.
    force : bool
        Whether to go on where platform or Python are not as recorded, and to make again what was made here before.
    """

    folder: Path
    manager: str = ""
    timeout: float = TIMEOUT
    python: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    force: bool = False


@dataclass(frozen=True)
class Plan:
    """How an environment is to be made.

    Attributes
    ----------
    recorded : Environment, optional
        As it was measured; None where there is no ``environment.json``.
    manager : Manager
        Who makes it.
    python : Path
        The interpreter that it will have.
    wanted : Wanted
        What its commands are made of.
    warnings : tuple of str
        What is not as it was recorded, or installs more than packages of an index.
    hosts : tuple of str
        Machines that the lock files name.
    """

    recorded: Environment | None
    manager: Manager
    python: Path
    wanted: Wanted
    warnings: tuple[str, ...]
    hosts: tuple[str, ...] = ()

    @property
    def told(self) -> list[str]:
        """Lines for whoever starts it, before anything runs."""
        named = [f"the lock files name: {printable(', '.join(self.hosts))}"] if self.hosts else []
        return named + [f"warning: {printable(warning)}" for warning in self.warnings]

    @property
    def steps(self) -> tuple[Step, ...]:
        """The commands; some managers refuse to name any while their place is taken."""
        return tuple(self.manager.steps(self.wanted))


def plan(order: Order) -> Plan:
    """See how the environment can be made here, before anything is started.

    Raises
    ------
    InputError
        The folder, the manager, Python or a local package is not as it has to be, or the platform is another one.
    EnvironmentBuildError
        A program that is needed is not here.
    RecordError
        ``environment.json`` is damaged.
    """
    folder = existing(order.folder)
    recorded = _recorded(folder)
    manager = programs.choose(folder, recorded, order.manager)
    warnings = _platform(recorded, order.force) + _edited(folder, recorded) + _options(folder)
    local = local_packages.places(recorded, order.packages)
    warnings += local_packages.warnings(recorded, local)
    program = programs.program(manager, folder)
    python = ""
    if not programs.brings_python(manager):
        python = programs.find_python(manager, recorded.python if recorded else "", order.python, near=order.force)
    elif order.python:
        raise InputError(f"{manager.name} brings its own Python, as its lock file says; leave --python out")
    wanted = Wanted(folder, program, python, recorded, local)
    return Plan(recorded, manager, manager.interpreter(wanted), wanted, tuple(warnings), _hosts(folder))


def commands(steps: Sequence[Step]) -> list[str]:
    """Commands as one types them into a shell."""
    return [
        " ".join([*(f"{name}={shown(value)}" for name, value in step.variables.items()), shown(*step.command)])
        for step in steps
    ]


def existing(folder: Path) -> Path:
    """The folder, with its full path.

    Raises
    ------
    InputError
        It is not there, or cannot be written to.
    """
    folder = Path(os.path.abspath(folder.expanduser()))
    if not folder.is_dir():
        raise InputError(f"there is no folder {str(folder)!r}; dump an environment into it first (dump_env_file.py)")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{str(folder)!r} cannot be written to; see to its permissions, or copy it elsewhere")
    return folder


def _recorded(folder: Path) -> Environment | None:
    path = folder / MEASURED
    if not path.is_file():
        return None
    try:
        return Environment.from_json(found.parse(path.read_text(encoding="utf-8")))
    except (RecordError, UnicodeDecodeError) as error:
        raise RecordError(f"{str(path)!r}: {error}; or delete it, and nothing is verified") from error


def _platform(recorded: Environment | None, force: bool) -> list[str]:
    here = sysconfig.get_platform()
    if recorded is None or not recorded.platform or _kind(recorded.platform) == _kind(here):
        return []
    line = f"recorded on {recorded.platform}, and this is {here}"
    if not force:
        raise InputError(
            f"the environment was {line}; packages are built for one platform: go to such a machine, or say --force "
            "to try with whatever there is of these versions here"
        )
    return [line]


def _kind(tag: str) -> tuple[str, str]:
    """System and processor, without the system's version."""
    system, _, rest = tag.partition("-")
    machine = rest.rpartition("-")[2]
    return system, platform.machine() if machine == "universal2" else machine


def _edited(folder: Path, recorded: Environment | None) -> list[str]:
    lines = []
    for name, text in recorded.files().items() if recorded else ():
        path = folder / name
        if not path.is_file():
            lines.append(f"{name} was recorded, and is not here")
        elif path.read_bytes() != text.encode("utf-8", "backslashreplace"):
            lines.append(f"{name} is not as it was recorded: it was edited, or cut short")
    return lines


def _options(folder: Path) -> list[str]:
    """What a lock file tells pip besides packages: where else to look, and what to install from this machine."""
    return [
        f"{name} says {line.strip()!r:.200}, which is followed as it stands"
        for name in ("requirements.txt", "environment.yml")
        for line in _OPTION.findall(read_text(folder / name))
    ]


def _hosts(folder: Path) -> tuple[str, ...]:
    return tuple(sorted({host for name in LOCK_FILES for host in _HOST.findall(read_text(folder / name))}))
