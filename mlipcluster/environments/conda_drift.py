"""Where a conda environment differs from what it was asked to be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlipcluster.environments.environment import Package

# numpy=1.26, numpy==1.26.4, numpy=1.26.4=py311_0, channel::numpy[version='1.26'] is not looked into.
_PIN = re.compile(r"(?:[^\s:]+::)?(?P<name>[\w.-]+?)\s*(?P<exact>==?)\s*(?P<version>[\w.+!]+)(?:=(?P<build>\w+))?")
_SPECS = re.compile(r"# (?P<kind>update|install|create|remove|uninstall|neutered) specs: (?P<list>.*)")


def drift(measured: Mapping[str, Any], added: tuple[Package, ...]) -> tuple[str, ...]:
    """What pip put over conda's packages, and what is not what ``conda-meta/history`` asks for, one line each."""
    installed = {entry["name"]: entry for entry in measured["conda"]}
    lines = [
        f"{package.name} {package.version} was installed over conda's {installed[package.name]['version']}"
        for package in added
        if package.name in installed
    ]
    for name, pin in sorted(_pins(measured["history"]).items()):
        found = installed.get(name)
        if found is None:
            lines.append(f"{pin.group(0)} was asked for, {name} is not installed")
        elif not _fits(pin, found):
            lines.append(f"{pin.group(0)} was asked for, {name} {found['version']} ({found['build']}) is installed")
    return tuple(lines)


def _pins(history: str) -> dict[str, re.Match[str]]:
    """The last version that was asked for of each package; the specs of each command are written as a list of texts."""
    pins: dict[str, re.Match[str]] = {}
    for line in _SPECS.finditer(history):
        for _, spec in re.findall(r"""(['"])(.*?)\1""", line.group("list")):
            name = re.match(r"(?:[^\s:]+::)?([\w.-]+)", spec)
            if name is None:
                continue
            pins.pop(name.group(1).lower(), None)
            pin = _PIN.fullmatch(spec)
            if pin and line.group("kind") in {"update", "install", "create"}:
                pins[pin.group("name").lower()] = pin
    return pins


def _fits(pin: re.Match[str], found: Mapping[str, Any]) -> bool:
    """By https://docs.conda.io/projects/conda-build/en/stable/resources/package-spec.html: one ``=`` is a prefix."""
    version, build = pin.group("version"), pin.group("build")
    if build is not None:
        return bool((found["version"], found["build"]) == (version, build))
    begins = pin.group("exact") == "=" and found["version"].startswith(f"{version}.")
    return bool(begins or found["version"] == version or _trimmed(found["version"]) == _trimmed(version))


def _trimmed(version: str) -> str:
    """1.26 and 1.26.0 are one version."""
    return re.sub(r"(?:\.0)+$", "", version)
