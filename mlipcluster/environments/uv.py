"""Environments that uv made: a project's ``uv.lock``, or a ``requirements.txt`` pinned to what is installed."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlipcluster.environments import pip
from mlipcluster.environments.environment import Package
from mlipcluster.environments.lock import Lock
from mlipcluster.environments.origins import blocks, clean_text
from mlipcluster.environments.steps import Step, Wanted
from mlipcluster.environments.uv_cache import find_origins

FILES = (("uv.lock", "pyproject.toml"), ("requirements.txt",))


def owns(measured: Mapping[str, Any]) -> bool:
    """Whether ``pyvenv.cfg`` has uv's own line, or a project's ``uv.lock`` lies beside the environment."""
    return bool(re.search(r"(?m)^uv\s*=", measured["pyvenv"])) or _project(measured) is not None


def lock(measured: Mapping[str, Any], packages: tuple[Package, ...]) -> Lock:
    """``uv.lock`` and ``pyproject.toml`` of a project, as they are; otherwise ``requirements.txt``.

    A project's lock does not say which extras and groups are installed, nor what was added by hand. So the
    ``requirements.txt`` of what is installed goes with it.

    Raises
    ------
    MeasureError
        One of the two cannot be read.
    """
    project = _project(measured)
    if project is None:
        return pip.lock(measured, packages)
    text, toml = (clean_text(project / name) for name in ("uv.lock", "pyproject.toml"))
    more = {"requirements.txt": pip.requirements(measured, packages, find_origins(measured, packages))}
    return Lock(text, "uv.lock", toml, "pyproject.toml", more_files=more, drift=drift(text, packages))


def steps(wanted: Wanted) -> list[Step]:
    """``uv venv`` in the folder itself; ``uv sync`` of a project; ``uv pip sync`` of what was installed.

    ``uv sync`` takes archives from where the lock says. ``uv pip sync`` then makes it what was measured: with extras
    and groups, without what is not recorded. Local packages come last, and nothing that they ask for is looked up.
    """
    uv, folder, python = wanted.program, str(wanted.folder), str(pip.interpreter(wanted))
    made = [Step((uv, "venv", "--allow-existing", *(("--python", wanted.python) if wanted.python else ()), folder))]
    locked, requirements = wanted.folder / "uv.lock", wanted.folder / "requirements.txt"
    if locked.is_file():
        left_out = [f"--no-install-package={name}" for name in _left_out(clean_text(locked), wanted)]
        # Of another Python than it is told, by UV_PYTHON or the project, uv would remove the folder and make it anew.
        sync = (uv, "sync", "--directory", folder, "--python", python, "--frozen", "--no-install-project", *left_out)
        made.append(Step(sync, {"UV_PROJECT_ENVIRONMENT": folder}))
    if requirements.is_file():
        text = clean_text(requirements)
        options = ["--require-hashes"] if "--hash=" in text else []
        # Pinned versions are the same on each index; uv would look no further than the first that has the name.
        options += ["--index-strategy", "unsafe-best-match"] if "--extra-index-url" in text else []
        sync = (uv, "pip", "sync", "--python", python, "--allow-empty-requirements", *options, str(requirements))
        made.append(Step(sync))
    install = (uv, "pip", "install", "--python", python, "--no-deps")
    made += [Step((*install, *place)) for place in pip.local_places(wanted)]
    return made


def _left_out(text: str, wanted: Wanted) -> list[str]:
    """Locked packages that ``uv sync`` is not to install: local ones, and those of groups that were not installed."""
    recorded = {package.name for package in wanted.environment.packages} if wanted.environment else None
    surplus = locked_versions(text).keys() - recorded if recorded is not None else set()
    return sorted({*local_packages(text), *surplus})


def local_packages(text: str) -> list[str]:
    """Names of packages that a ``uv.lock`` takes from the project's machine: there is no address to fetch them from."""
    local = re.compile(r'(?m)^source = \{ (?:(?:editable|directory|path|virtual) = |registry = "(?!https?://))')
    return sorted({name for name, _, block in blocks(text) if local.search(block)})


def drift(text: str, packages: tuple[Package, ...]) -> tuple[str, ...]:
    """Where installed packages differ from the versions in a ``uv.lock``, and what is wrong with it.

    What is locked but not installed is not reported: extras, groups and markers leave packages out on purpose.
    """
    lines = _damage(text)
    locked = locked_versions(text)
    for package in packages:
        versions = locked.get(package.name)
        if versions is None:
            lines.append(f"{package.name} {package.version} is installed but not in uv.lock")
        elif versions and package.version not in versions:
            lines.append(f"{package.name} {package.version} is installed, uv.lock says {' or '.join(sorted(versions))}")
    return tuple(lines)


def _damage(text: str) -> list[str]:
    """What shows that a ``uv.lock`` was cut short or edited by hand; as TOML only where this Python can read that."""
    if not re.match(r"version = \d+\s", text):
        return ["uv.lock does not begin with its version: it was changed or cut short"]
    if sys.version_info >= (3, 11):
        import tomllib

        try:
            tomllib.loads(text)
        except ValueError as error:
            return [f"uv.lock was changed or cut short: {error}"]
    return []


def locked_versions(text: str) -> dict[str, set[str]]:
    """Versions of each package in a ``uv.lock``; none for one whose version is read off its source."""
    found: dict[str, set[str]] = {}
    for name, version, _ in blocks(text):
        found.setdefault(name, set()).update({version} if version else ())
    return found


def _project(measured: Mapping[str, Any]) -> Path | None:
    """The folder of the uv project that the environment belongs to."""
    prefix = Path(measured["prefix"])
    project = prefix.parent
    whole = measured["pyvenv"] and prefix.name == ".venv"
    return project if whole and (project / "uv.lock").is_file() and (project / "pyproject.toml").is_file() else None
