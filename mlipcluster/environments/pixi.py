"""Environments of pixi: ``pixi.lock`` with the manifest that it belongs to."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlipcluster.environments import conda, pip
from mlipcluster.environments.environment import Package
from mlipcluster.environments.lock import Lock
from mlipcluster.environments.origins import clean_text
from mlipcluster.environments.pixi_lock import drift, local_packages
from mlipcluster.environments.steps import Step, Wanted
from mlipcluster.errors import EnvironmentBuildError

FILES = (("pixi.lock", "pixi.toml"), ("pixi.lock", "pyproject.toml"))
MANIFESTS = ("pixi.toml", "pyproject.toml")  # pixi looks for them in this order
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_TABLE = re.compile(r"(?m)^\s*\[\s*tool\s*\.\s*[\"']?pixi\b")


def owns(measured: Mapping[str, Any]) -> bool:
    """Whether it is a workspace's: ``<workspace>/.pixi/envs/<name>``, or where ``conda-meta/pixi`` names the manifest.

    The workspace has to have a ``pixi.lock``. Without one, as pixi's global environments are, it is conda's: those
    packages are all there is to build it from.
    """
    manifest = _manifest(measured)
    return manifest is not None and (manifest.parent / "pixi.lock").is_file()


def lock(measured: Mapping[str, Any], packages: tuple[Package, ...]) -> Lock:
    """``pixi.lock`` and the manifest, as they are.

    An environment of no workspace, called pixi's by ``MLIPCLUSTER_ENVIRONMENT_MANAGER``, gets an ``environment.yml``,
    which ``pixi init --import`` reads.

    Raises
    ------
    MeasureError
        One of the two cannot be read.
    """
    manifest = _manifest(measured)
    if manifest is None or not owns(measured):
        return replace(conda.lock(measured, packages), drift=("there is no pixi.lock that it was made from",))
    text, toml = clean_text(manifest.parent / "pixi.lock"), clean_text(manifest)
    lines = drift(text, environment_name(measured["prefix"]), measured["platform"], packages)
    return Lock(text, "pixi.lock", toml, manifest.name, drift=lines)


def environment_name(prefix: str) -> str:
    """The name of the workspace's environment: the last part of its prefix, ``default`` where that is no name."""
    name = re.split(r"[/\\]", prefix.rstrip("/\\"))[-1]
    return name if _NAME.fullmatch(name) else "default"


def interpreter(wanted: Wanted) -> Path:
    """Below ``.pixi/envs`` in the folder, as pixi makes it."""
    return wanted.folder / ".pixi" / "envs" / _wanted_name(wanted) / "bin" / "python"


def steps(wanted: Wanted) -> list[Step]:
    """``pixi install --frozen`` of the one environment, without local packages; then those, by its pip.

    ``--skip`` is of pixi 0.51 and later, and only given where there is something to leave out.

    Raises
    ------
    EnvironmentBuildError
        There is no manifest in the folder, or the environment has no pip to install local packages with.
    """
    manifest = _manifest_in(wanted.folder)
    if manifest is None:
        raise EnvironmentBuildError(
            f"{str(wanted.folder)!r} has no pixi.toml, nor a pyproject.toml with [tool.pixi]; name a folder with one"
        )
    name = _wanted_name(wanted)
    local = local_packages(clean_text(wanted.folder / "pixi.lock"), name)
    skipped = [part for package in local for part in ("--skip", package)]
    command = (wanted.program, "install", "--frozen", "--manifest-path", str(manifest), "--environment", name, *skipped)
    recorded = {package.name for package in wanted.environment.packages} if wanted.environment else {"pip"}
    if wanted.local and "pip" not in recorded:
        raise EnvironmentBuildError(
            f"{', '.join(sorted(wanted.local))} cannot be installed: the environment has no pip; add pip to "
            f"{manifest.name} where it was made, or leave local packages out"
        )
    install = (str(interpreter(wanted)), "-I", "-m", "pip", "install", "--disable-pip-version-check", "--no-deps")
    return [Step(command), *(Step((*install, *place), pip.ALONE) for place in pip.local_places(wanted))]


def _wanted_name(wanted: Wanted) -> str:
    return environment_name(wanted.environment.prefix) if wanted.environment else "default"


def _manifest(measured: Mapping[str, Any]) -> Path | None:
    """The manifest of the workspace that an environment belongs to, by its place.

    Pixi's own file tells which of two manifests there it is, and the workspace of an environment that lies elsewhere.
    In a copy of a workspace it still names the first one.
    """
    named = _named_manifest(measured)
    prefix = Path(measured["prefix"])
    below = measured["conda"] and (prefix.parent.name, prefix.parent.parent.name) == ("envs", ".pixi")
    workspace = prefix.parent.parent.parent
    if named is not None and (not below or named.parent == workspace):
        return named
    return (_manifest_in(workspace) if below else None) or named


def _named_manifest(measured: Mapping[str, Any]) -> Path | None:
    try:
        named = Path(json.loads(measured["pixi"])["manifest_path"])
        return named if named.name in MANIFESTS and named.is_file() else None
    except (ValueError, KeyError, TypeError, OSError, RecursionError):
        return None  # not pixi's, of another version, or out of reach


def _manifest_in(folder: Path) -> Path | None:
    if (folder / "pixi.toml").is_file():
        return folder / "pixi.toml"
    project = folder / "pyproject.toml"
    return project if project.is_file() and _TABLE.search(clean_text(project)) else None
