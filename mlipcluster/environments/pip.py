"""Environments that pip filled: the lock file is a ``requirements.txt`` pinned to what is installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlipcluster.environments.environment import Package
from mlipcluster.environments.lock import Lock
from mlipcluster.environments.steps import Step, Wanted

FILES = (("requirements.txt",),)


def owns(measured: Mapping[str, Any]) -> bool:  # noqa: ARG001 - the table's signature
    """Whatever no other manager owns."""
    return True


def lock(measured: Mapping[str, Any], packages: tuple[Package, ...]) -> Lock:
    """The ``requirements.txt`` of what is installed."""
    return Lock(requirements(measured, packages), "requirements.txt")


def interpreter(wanted: Wanted) -> Path:
    """The environment is made in the folder of the lock file itself."""
    return wanted.folder / "bin" / "python"


def steps(wanted: Wanted) -> list[Step]:
    """``python -m venv``, then ``pip install`` of exactly what ``requirements.txt`` lists, then local packages."""
    python = str(interpreter(wanted))
    install = (python, "-I", "-m", "pip", "install", "--disable-pip-version-check", "--no-deps")
    made = [
        Step((wanted.python, "-I", "-m", "venv", str(wanted.folder))),
        Step((*install, "--requirement", str(wanted.folder / "requirements.txt"))),
    ]
    made += [Step((*install, *place)) for place in local_places(wanted)]
    return made


def local_places(wanted: Wanted) -> list[tuple[str, ...]]:
    """How an installer is told of each local package: its folder, editable where it was so."""
    environment = wanted.environment
    sources = {package.name: package.source for package in environment.packages} if environment else {}
    return [
        ("--editable", str(folder)) if sources.get(name, "").startswith("editable:") else (str(folder),)
        for name, folder in sorted(wanted.local.items())
    ]


def requirements(measured: Mapping[str, Any], packages: tuple[Package, ...]) -> str:
    """Installed packages in pip's format (https://pip.pypa.io/en/stable/reference/requirements-file-format/).

    Hashes are given for what was installed from an archive's address. Those of packages from an index are not kept
    in an environment, and are not asked for over the network.
    """
    lines = [
        f"# Installed in Python {measured['python']} on {measured['platform']}.",
        "# Without hashes of what came from an index: an environment does not keep them.",
    ]
    raw = {entry["name"]: entry for entry in measured["packages"]}
    for package in packages:
        lines.extend(_requirement(package, raw.get(package.name, {})))
    return "\n".join(lines) + "\n"


def _requirement(package: Package, raw: Mapping[str, Any]) -> list[str]:
    name, version, source = package.name, package.version, package.source
    pinned = f"{name}=={version}"
    if source.startswith("editable:"):
        commit = source.partition("@")[2].replace("+dirty", " with uncommitted changes")
        place = f"a git checkout at {commit}" if commit else "a folder that is not a git checkout"
        return [f"# {name} {version}: editable, from {place}; install it from there"]
    if source.startswith("file:"):
        return [f"# {name} {version}: from {source[5:]} on the machine; install it from there"]
    if "://" in source:
        source = source.partition("#record=")[0]
        part = f"#subdirectory={raw['subdirectory']}" if raw.get("subdirectory") and "#" not in source else ""
        return [f"{name} @ {source}{part}"]
    if "+" in version:
        return ["# a local version: of an index other than PyPI, to be given with --extra-index-url", pinned]
    return [pinned]
