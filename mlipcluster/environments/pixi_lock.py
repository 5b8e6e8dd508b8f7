"""What a ``pixi.lock`` says of one environment, read by line: Python's library has no YAML, and pixi writes one form.

Versions 4 to 7 of https://pixi.prefix.dev/latest/workspace/lockfile/. Of interest are two parts::

    environments:
      default:
        packages:
          linux-64:
          - conda: https://conda.example.org/conda-forge/linux-64/python-3.11.7-h0_cpython.conda
          - pypi: https://files.example.org/ase-3.25.0-py3-none-any.whl
    packages:
    - pypi: https://files.example.org/ase-3.25.0-py3-none-any.whl
      name: ase
      version: 3.25.0
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mlipcluster.environments.environment import Package
from mlipcluster.environments.origins import normal

_VERSIONS = range(4, 8)
_ENTRY = re.compile(r"\s*- (conda|pypi): (.+)")
_ARCHIVE = re.compile(r"(?P<name>[^/]+)-(?P<version>[^-/]+)-(?P<build>[^-/]+)\.(?:conda|tar\.bz2)")
_DAMAGED = "pixi.lock was changed or cut short"


@dataclass(frozen=True)
class _Locked:
    """A package that is locked. Its version is empty where it is read off its source."""

    kind: str
    name: str
    version: str
    build: str
    place: str
    described: bool


def drift(text: str, environment: str, platform: str, packages: tuple[Package, ...]) -> tuple[str, ...]:
    """Where what is installed differs from what is locked for an environment, and what is wrong with the lock."""
    version = re.search(r"(?m)^version: (\d+)\s*$", text)
    if version is None or not re.search(r"(?m)^environments:\s*$", text):
        return (f"{_DAMAGED}: it has no version or no environments",)
    if int(version.group(1)) not in _VERSIONS:
        return (f"pixi.lock is of version {version.group(1)}, which is not known here; it was not compared",)
    candidates = [list(_locked(text, environment, name)) for name in _platforms(text, subdir(platform))]
    compared = [_compared(entries, packages) for entries in candidates if entries]
    if not compared:
        return (f"{_DAMAGED}: it has no packages of environment {environment!r} for {subdir(platform)}",)
    return min(compared, key=len)


def _compared(entries: list[_Locked], packages: tuple[Package, ...]) -> tuple[str, ...]:
    lines = []
    unknown = [entry.place for entry in entries if not (entry.described and entry.name)]
    if unknown:
        lines.append(f"{_DAMAGED}: {len(unknown)} packages are not described, the first is {unknown[0]!r:.200}")
    locked = {(entry.name, entry.kind): entry for entry in entries if entry.name}
    found = {(package.name, "conda" if package.source == "conda" else "pypi"): package for package in packages}
    for key in sorted(locked.keys() | found.keys()):
        lines += _line(key[0], locked.get(key), found.get(key))
    return tuple(lines)


def _line(name: str, entry: _Locked | None, package: Package | None) -> list[str]:
    if package is None:
        return [f"{name} {entry.version} is in pixi.lock but not installed"] if entry else []
    if entry is None:
        return [f"{name} {package.version} is installed but not in pixi.lock"]
    if entry.version and entry.version != package.version:
        return [f"{name} {package.version} is installed, pixi.lock says {entry.version}"]
    if entry.build and entry.build != package.build:
        return [f"{name} {package.version} ({package.build}) is installed, pixi.lock says {entry.build}"]
    return []


def local_packages(text: str, environment: str) -> list[str]:
    """Names of an environment's Python packages that are locked as folders of the workspace, on any platform."""
    local = (entry for entry in _locked(text, environment, "") if entry.kind == "pypi" and "://" not in entry.place)
    return sorted({entry.name for entry in local if entry.name})


def subdir(platform: str) -> str:
    """The platform as conda names it, from Python's: ``linux-x86_64`` is ``linux-64``."""
    system, machine = platform.partition("-")[0], re.split(r"[-_.]", platform.replace("x86_64", "64"))[-1]
    system = {"macosx": "osx", "win32": "win-32"}.get(system, system)
    machine = {"amd64": "64", "i686": "32", "universal2": "arm64"}.get(machine, machine)
    return system if "-" in system else f"{system}-{machine}"


def _platforms(text: str, name: str) -> list[str]:
    """What a lock calls a platform: from version 7 it may have several with other names, for which it says what it is.

    Which of them was installed is not told; that which agrees best is taken.
    """
    part = re.search(r"(?m)^platforms:\s*\n((?:[ -].*\n?|\n)*)", text)
    named = re.findall(rf"(?m)^- name: (.+)\n  subdir: {re.escape(name)}\s*$", part.group(1) if part else "")
    return [name, *(_unquoted(other) for other in named)]


def _locked(text: str, environment: str, platform: str) -> Iterator[_Locked]:
    """The packages of an environment for one platform, or for all (empty)."""
    described = _described(text)
    for kind, place in _listed(text, environment, platform):
        archive = _ARCHIVE.fullmatch(place.rpartition("/")[2])
        if kind == "conda" and archive:
            name, version, build = (str(archive.group(part)) for part in ("name", "version", "build"))
            yield _Locked(kind, name, version, build, place, place in described)
        else:
            name, version = described.get(place, ("", ""))
            yield _Locked(kind, normal(name), version, "", place, place in described)


def _listed(text: str, environment: str, platform: str) -> Iterator[tuple[str, str]]:
    """Kind and address of each; the depth of a line tells the part that it is in."""
    part = re.search(r"(?m)^environments:\s*\n((?:[ -].*\n?|\n)*)", text + "\n")
    own = re.search(rf"(?m)^  {re.escape(environment)}:\s*\n((?:   .*\n?|\n)*)", part.group(1)) if part else None
    current, packages = "", False
    for line in own.group(1).splitlines() if own else ():
        entry, key = _ENTRY.fullmatch(line), re.fullmatch(r"( {4}| {6})([\w.-]+):(?: .*)?", line)
        if key and len(key.group(1)) == 4:
            packages = key.group(2) == "packages"
        elif key:
            current = key.group(2)
        elif entry and packages and platform in {"", current}:
            yield entry.group(1), _unquoted(entry.group(2))


def _described(text: str) -> dict[str, tuple[str, str]]:
    """Name and version of each package, by address; up to version 5 with ``kind`` and ``url`` or ``path``."""
    part = re.search(r"(?m)^packages:\s*\n", text)
    found = {}
    for block in re.split(r"(?m)^- ", text[part.end() :] if part else "")[1:]:
        fields = dict(re.findall(r"(?m)^(?:  )?(conda|pypi|kind|name|version|url|path): (.+?)\s*$", block))
        place = next((fields[key] for key in ("conda", "pypi", "url", "path") if key in fields), "")
        found[_unquoted(place)] = (_unquoted(fields.get("name", "")), _unquoted(fields.get("version", "")))
    return found


def _unquoted(scalar: str) -> str:
    scalar = scalar.strip()
    return scalar[1:-1] if len(scalar) > 1 and scalar[0] == scalar[-1] and scalar[0] in "'\"" else scalar
