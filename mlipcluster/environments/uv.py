"""Environments that uv made: a project's ``uv.lock``, or a ``requirements.txt`` pinned to what is installed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlipcluster.environments import pip
from mlipcluster.environments.environment import Package
from mlipcluster.environments.lock import Lock
from mlipcluster.environments.measure_script import without_credentials
from mlipcluster.environments.steps import Step, Wanted
from mlipcluster.errors import MeasureError

FILES = (("uv.lock", "pyproject.toml"), ("requirements.txt",))


def owns(measured: Mapping[str, Any]) -> bool:
    """Whether ``pyvenv.cfg`` has uv's own line, or a project's ``uv.lock`` lies beside the environment."""
    return bool(re.search(r"(?m)^uv\s*=", measured["pyvenv"])) or _project(measured) is not None


def lock(measured: Mapping[str, Any], packages: tuple[Package, ...]) -> Lock:
    """``uv.lock`` and ``pyproject.toml`` of a project, as they are; otherwise what pip's row says.

    Raises
    ------
    MeasureError
        One of the two cannot be read.
    """
    project = _project(measured)
    if project is None:
        return pip.lock(measured, packages)
    text, toml = (_text(project / name) for name in ("uv.lock", "pyproject.toml"))
    return Lock(text, "uv.lock", toml, "pyproject.toml", drift=drift(text, packages))


def steps(wanted: Wanted) -> list[Step]:
    """``uv venv`` in the folder itself; ``uv sync`` of a project, ``uv pip sync`` of a ``requirements.txt``."""
    uv, folder = wanted.program, str(wanted.folder)
    install = (uv, "pip", "install", "--python", str(pip.interpreter(wanted)), "--no-deps")
    made = [Step((uv, "venv", "--allow-existing", *(("--python", wanted.python) if wanted.python else ()), folder))]
    if (wanted.folder / "uv.lock").is_file():
        sync = (uv, "sync", "--frozen", "--no-install-project")
        made.append(Step(sync, {"UV_PROJECT_ENVIRONMENT": folder}))
    if (wanted.folder / "requirements.txt").is_file():
        requirements = str(wanted.folder / "requirements.txt")
        made.append(Step((uv, "pip", "sync", "--python", str(pip.interpreter(wanted)), requirements)))
    made += [Step((*install, *place)) for place in pip.local_places(wanted)]
    return made


def _text(path: Path) -> str:
    try:
        return without_credentials(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise MeasureError(f"{str(path)!r} cannot be read ({error}); make it a readable text in UTF-8") from error


def drift(text: str, packages: tuple[Package, ...]) -> tuple[str, ...]:
    """Where installed packages differ from the versions in a ``uv.lock``.

    What is locked but not installed is not reported: extras, groups and markers leave packages out on purpose.
    """
    locked = locked_versions(text)
    lines = []
    for package in packages:
        versions = locked.get(package.name)
        if versions is None:
            lines.append(f"{package.name} {package.version} is installed but not in uv.lock")
        elif versions and package.version not in versions:
            lines.append(f"{package.name} {package.version} is installed, uv.lock says {' or '.join(sorted(versions))}")
    return tuple(lines)


def locked_versions(text: str) -> dict[str, set[str]]:
    """Versions of each package in a ``uv.lock``; none for one whose version is read off its source.

    Read by line: Python 3.10 has no TOML reader, and uv writes these two keys first and alone on their lines.
    """
    found: dict[str, set[str]] = {}
    for block in re.split(r"(?m)^\[\[package\]\]\s*$", text)[1:]:
        name = re.search(r'(?m)^name = "([^"]+)"', block)
        version = re.search(r'(?m)^version = "([^"]+)"', block)
        if name:
            versions = found.setdefault(re.sub(r"[-_.]+", "-", name.group(1)).lower(), set())
            versions.update({version.group(1)} if version else ())
    return found


def _project(measured: Mapping[str, Any]) -> Path | None:
    """The folder of the uv project that the environment belongs to."""
    prefix = Path(measured["prefix"])
    project = prefix.parent
    whole = measured["pyvenv"] and prefix.name == ".venv"
    return project if whole and (project / "uv.lock").is_file() and (project / "pyproject.toml").is_file() else None
