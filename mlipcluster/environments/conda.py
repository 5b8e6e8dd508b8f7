"""Environments with a ``conda-meta`` folder: the lock file is the explicit list of what is installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlipcluster.environments import pip
from mlipcluster.environments.environment import Package
from mlipcluster.environments.lock import Lock
from mlipcluster.environments.steps import Step, Wanted

FILES = (("explicit.txt",),)


def owns(measured: Mapping[str, Any]) -> bool:
    """Whether the environment has packages in ``conda-meta``."""
    return bool(measured["conda"])


def interpreter(wanted: Wanted) -> Path:
    """The environment is made in ``env`` within the folder: conda wants a folder of its own."""
    return wanted.folder / "env" / "bin" / "python"


def steps(wanted: Wanted) -> list[Step]:
    """``conda create`` of exactly the listed packages."""
    prefix, listed = str(wanted.folder / "env"), str(wanted.folder / "explicit.txt")
    return [Step((wanted.program, "create", "--yes", "--prefix", prefix, "--file", listed))]


def lock(measured: Mapping[str, Any], packages: tuple[Package, ...]) -> Lock:
    """The explicit list, as ``conda list --explicit --md5`` writes it; what pip added stands below as comments.

    Format: https://docs.conda.io/projects/conda/en/stable/user-guide/tasks/manage-environments.html
    """
    lines = [f"# platform: {measured['platform']}", "@EXPLICIT"]
    for entry in measured["conda"]:
        if entry["url"]:
            lines.append(entry["url"] + (f"#{entry['md5']}" if entry["md5"] else ""))
        else:
            lines.append(f"# {entry['name']}={entry['version']}={entry['build']}: without an address")
    added = tuple(package for package in packages if package.source != "conda")
    if added:
        lines.append("# installed by pip:")
        lines.extend(f"#   {line}" for line in pip.requirements(measured, added).splitlines()[2:])
    return Lock("\n".join(lines) + "\n", "explicit.txt")
