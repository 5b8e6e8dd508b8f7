"""Environments that pip filled: the lock file is a ``requirements.txt`` pinned to what is installed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlipcluster.environments.environment import Package
from mlipcluster.environments.lock import Lock
from mlipcluster.environments.origins import OWN, Origins, pins, read_text
from mlipcluster.environments.steps import Step, Wanted
from mlipcluster.environments.uv_cache import find_origins

FILES = (("requirements.txt",),)
HEADER = "# Installed in Python "
# Whatever is set for the user's own packages: neither are those taken for what is wanted, nor is it installed there.
ALONE = {"PIP_USER": "0", "PYTHONNOUSERSITE": "1", "PYTHONPATH": ""}
_SPACE = re.compile(r"\s")
_SEEDS = ("setuptools", "pip")  # what `python -m venv` may bring; pip last, as it removes the other


def owns(measured: Mapping[str, Any]) -> bool:  # noqa: ARG001 - the table's signature
    """Whatever no other manager owns."""
    return True


def lock(measured: Mapping[str, Any], packages: tuple[Package, ...]) -> Lock:
    """The ``requirements.txt`` of what is installed."""
    text = requirements(measured, packages, find_origins(measured, packages))
    return Lock(text, "requirements.txt", drift=drift(measured, packages))


def interpreter(wanted: Wanted) -> Path:
    """The environment is made in the folder of the lock file itself."""
    return wanted.folder / "bin" / "python"


# --- build -----------------------------------------------------------------------------------------------------------


def steps(wanted: Wanted) -> list[Step]:
    """``python -m venv``, then ``pip install`` of exactly what ``requirements.txt`` lists, then local packages.

    ``venv`` brings pip, and up to Python 3.11 setuptools; what of them was not recorded is removed at the end.
    """
    pip = (str(interpreter(wanted)), "-I", "-m", "pip")
    install = (*pip, "install", "--disable-pip-version-check", "--no-input", "--no-deps")
    made = [
        Step((wanted.python, "-I", "-m", "venv", str(wanted.folder))),
        Step((*install, "--requirement", str(wanted.folder / "requirements.txt")), ALONE),
    ]
    made += [Step((*install, *place), ALONE) for place in local_places(wanted)]
    recorded = _recorded(wanted)
    surplus = [name for name in _SEEDS if recorded is not None and name not in recorded]
    if surplus:
        made.append(Step((*pip, "uninstall", "--disable-pip-version-check", "--yes", *surplus)))
    return made


def _recorded(wanted: Wanted) -> set[str] | None:
    """Names of all packages that are wanted; None where that is not known: a ``requirements.txt`` that is not ours."""
    if wanted.environment is not None:
        return {package.name for package in wanted.environment.packages}
    text = read_text(wanted.folder / "requirements.txt")
    return set(re.findall(r"(?m)^([a-z0-9-]+)(?:==| @ )", text)) if text.startswith(HEADER) else None


def local_places(wanted: Wanted) -> list[tuple[str, ...]]:
    """How an installer is told of each local package: its folder, editable where it was so."""
    environment = wanted.environment
    sources = {package.name: package.source for package in environment.packages} if environment else {}
    return [
        ("--editable", str(folder)) if sources.get(name, "").startswith("editable:") else (str(folder),)
        for name, folder in sorted(wanted.local.items())
    ]


# --- lock ------------------------------------------------------------------------------------------------------------


def drift(measured: Mapping[str, Any], packages: Iterable[Package]) -> tuple[str, ...]:
    """Where installed packages differ from the ``requirements.txt`` of ours that the environment was built from."""
    path = Path(measured["prefix"]) / OWN
    if not path.is_file():
        return ()
    text = read_text(path)
    if not text.startswith("#") and not pins(text):
        return (f"{OWN} pins nothing: it was changed or cut short",)
    pinned, lines = pins(text), []
    installed = {package.name: package for package in packages}
    for name, package in sorted(installed.items()):
        named = name in pinned or re.search(rf"(?mi)^(?:# )?{_any_spelling(name)}\s", text)
        if not named:
            lines.append(f"{name} {package.version} is installed but not in {OWN}")
        elif pinned.get(name, package.version) != package.version:
            lines.append(f"{name} {package.version} is installed, {OWN} says {pinned[name]}")
    lines += [
        f"{name} {pinned[name]} is in {OWN} but not installed" for name in sorted(pinned.keys() - installed.keys())
    ]
    return tuple(lines)


def _any_spelling(name: str) -> str:
    return re.escape(name).replace(r"\-", "[-_.]+")


def requirements(
    measured: Mapping[str, Any], packages: tuple[Package, ...], origins: Origins, *, hashed: bool = True
) -> str:
    """Installed packages in pip's format (https://pip.pypa.io/en/stable/reference/requirements-file-format/).

    Installers take hashes of all packages or of none. So they are given where they are known of all, without asking
    the network (:mod:`mlipcluster.environments.origins`); otherwise a comment says of which they are not.
    """
    raw = {entry["name"]: entry for entry in measured["packages"]}
    listed = [package for package in packages if not _is_comment(package, raw)]
    unknown = [package.name for package in listed if not _has_hash(package, raw, origins)]
    lines = [f"{HEADER}{measured['python']} on {measured['platform']}."]
    if hashed and unknown:
        lines.append(f"# Without hashes: all or none can have them, and not known are those of {_some(unknown)}.")
    lines += _index_lines(listed, origins)
    for package in packages:
        lines += _requirement(package, raw.get(package.name, {}))
        if hashed and not unknown and package in listed and not _own_hash(package, raw):
            known = sorted(origins.hashes[package.name, package.version])
            lines[-1] += "".join(f" \\\n    --hash={value}" for value in known)
    return "\n".join(lines) + "\n"


def _is_comment(package: Package, raw: Mapping[str, Any]) -> bool:
    """Whether there is no address to install it from: local packages, and conda's that are no Python packages."""
    unknown = package.source == "conda" and package.name not in raw
    return unknown or package.source.startswith(("editable:", "file:"))


def _has_hash(package: Package, raw: Mapping[str, Any], origins: Origins) -> bool:
    if raw.get(package.name, {}).get("vcs"):
        return False  # a repository: its files cannot be hashed as one
    return _own_hash(package, raw) or origins.have(package.name, package.version)


def _own_hash(package: Package, raw: Mapping[str, Any]) -> bool:
    """Whether its address says the archive's hash."""
    return str(raw.get(package.name, {}).get("hash", "")).startswith("sha256:")


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _index_lines(packages: Iterable[Package], origins: Origins) -> list[str]:
    """The indexes besides PyPI, as far as they are known, that pinned packages came from."""
    used = {
        origins.indexes.get((package.name, package.version), "") for package in packages if package.source == "index"
    }
    return [f"--extra-index-url {index}" for index in sorted({*used, *origins.more} - {""})]


def _requirement(package: Package, raw: Mapping[str, Any]) -> list[str]:
    name, version, source = package.name, package.version, package.source
    pinned = f"{name}=={version}"
    if source.startswith("editable:"):
        commit = source.partition("@")[2].replace("+dirty", " with uncommitted changes")
        place = f"a git checkout at {commit}" if commit else "a folder that is not a git checkout"
        return [f"# {name} {version}: editable, from {place}; install it from there"]
    if source == "conda" and not raw:
        return [f"# {name} {version}: of conda, no Python package"]
    if source.startswith("file:"):
        return [f"# {name} {version}: from {source[5:]} on the machine; install it from there"]
    if raw.get("url"):
        parts = [f"subdirectory={raw['subdirectory']}"] if raw.get("subdirectory") else []
        if raw.get("vcs"):
            address = f"{raw['vcs']}+{raw['url']}@{raw.get('commit', '')}"
        else:
            address, parts = raw["url"], [raw["hash"].replace(":", "=", 1), *parts] if raw.get("hash") else parts
        whole = address + "#" * bool(parts) + "&".join(parts)
        return [f"{name} @ {_SPACE.sub(lambda space: quote(space.group()), whole)}"]
    if "+" in version:
        return ["# a local version: of an index other than PyPI, to be given with --extra-index-url", pinned]
    return [pinned]
