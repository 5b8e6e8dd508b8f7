"""Packages that were installed from a folder: no index has them, so somebody has to say where they are now."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from mlipcluster.environments.environment import Environment, Package
from mlipcluster.errors import InputError
from mlipcluster.process import run_command

OURS = "mlipcluster"


def places(environment: Environment | None, given: Mapping[str, str]) -> dict[str, Path]:
    """For each local package the folder, or file, to install it from.

    Parameters
    ----------
    environment
        As it is recorded; None: nothing is known, and what is *given* is taken.
    given
        By the user, name to path; an empty path leaves the package out. mlipcluster itself need not be given where this
        file lies in its checkout.

    Raises
    ------
    InputError
        A package's place is not given, is not there, or is given for a package that was not local.
    """
    local = {package.name: package for package in environment.packages if is_local(package)} if environment else {}
    unknown = sorted(given.keys() - local.keys()) if environment else []
    if unknown:
        known = f"those that were are {', '.join(sorted(local))}" if local else "none was"
        raise InputError(f"--package {unknown[0]}: no package of that name was installed from a folder; {known}")
    found = {name: _existing(name, path) for name, path in given.items() if path}
    checkout = own_checkout()
    if OURS in local and OURS not in given and checkout:
        found[OURS] = checkout
    missing = [package for name, package in sorted(local.items()) if name not in found and name not in given]
    if missing:
        raise InputError(
            f"not on any index, but installed from a folder: {'; '.join(map(told, missing))}. Say for each where it "
            f"is now: {' '.join(f'--package {package.name}=PATH' for package in missing)} (NAME= leaves it out)"
        )
    return found


def is_local(package: Package) -> bool:
    """Whether a package came from a folder or file of the machine."""
    return package.source.startswith(("editable:", "file:"))


def told(package: Package) -> str:
    """A package, and what to check out for it."""
    commit = commit_of(package)
    if commit:
        return f"{package.name} {package.version} (git checkout {commit})"
    return f"{package.name} {package.version}"


def commit_of(package: Package) -> str:
    """Commit of the checkout that it was installed from, or empty."""
    return package.source.partition("@")[2].partition("+")[0] if package.source.startswith("editable:") else ""


def own_checkout() -> Path | None:
    """The checkout that this file lies in, if it lies in one."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "recreate_env.py").is_file() and (root / "pyproject.toml").is_file() else None


def warnings(environment: Environment | None, found: Mapping[str, Path]) -> list[str]:
    """Where a local package is not at the commit that was recorded."""
    lines = []
    for package in environment.packages if environment else ():
        place, wanted = found.get(package.name), commit_of(package)
        if place is None or not wanted:
            continue
        here = _head(place)
        if here != wanted:
            lines.append(
                f"{package.name}: {str(place)!r} is at {here or 'no commit'}, recorded was {wanted}; run "
                f"'git checkout {wanted}' there to have the same code"
            )
    return lines


def _head(place: Path) -> str:
    try:
        done = run_command(["git", "-C", str(place), "rev-parse", "HEAD"], timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _existing(name: str, path: str) -> Path:
    place = Path(path).expanduser().absolute()
    if not place.exists():
        raise InputError(f"--package {name}={path}: there is nothing; give the folder of the package, or its wheel")
    return place
