"""Hashes of archives, out of uv's own cache: uv is asked offline, so nothing is fetched.

An environment keeps no hashes, but the cache that uv filled it from does. Asked for a ``pylock.toml`` (PEP 751), uv
names of each version the one wheel that it would install here, and the source archive.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlipcluster.environments.environment import Package
from mlipcluster.environments.origins import Hashes, Origins, of_tables, read_origins
from mlipcluster.process import find_program, run_command

_PATIENCE = 30.0  # seconds; a cache on a slow file system is no reason to wait longer
_COMPILE = ("pip", "compile", "--offline", "--no-deps", "--format", "pylock.toml", "--no-header", "--no-annotate")


def find_origins(measured: Mapping[str, Any], packages: tuple[Package, ...]) -> Origins:
    """What files say of where packages came from; the hashes that they do not, uv's cache may know."""
    origins = read_origins(measured)
    pinned = {package.name: package.version for package in packages if package.source == "index"}
    missing = {name: version for name, version in pinned.items() if not origins.have(name, version)}
    uv = find_program(("uv",)) if missing else ""
    if not uv:
        return origins
    prefix = Path(measured["prefix"])
    found = cached_hashes(uv, str(prefix / "bin" / "python"), missing, prefix.parent)
    return replace(origins, hashes={**origins.hashes, **found})


def cached_hashes(uv: str, python: str, pinned: Mapping[str, str], folder: Path) -> Hashes:
    """Hashes of the archives of pinned versions that suit an interpreter; empty where uv's cache lacks any of them.

    Parameters
    ----------
    uv, python : str
        The program, and the interpreter of the environment.
    pinned : mapping of str to str
        Versions by normalised name.
    folder : Path
        Where uv looks for settings that name indexes.
    """
    lines = "".join(f"{name}=={version}\n" for name, version in sorted(pinned.items()))
    environment = {**os.environ, "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}
    with tempfile.TemporaryDirectory(prefix="mlipcluster-") as own:
        listed = Path(own) / "requirements.txt"
        listed.write_text(lines, encoding="utf-8")
        command = [uv, *_COMPILE, "--quiet", "--python", python, str(listed)]
        try:
            done = run_command(command, timeout=_PATIENCE, cwd=folder, env=environment)
        except (OSError, subprocess.TimeoutExpired):
            return {}
    found = {key: frozenset(values) for key, values in of_tables(done.stdout) if values}
    wanted = set(pinned.items())
    return {key: found[key] for key in wanted} if done.returncode == 0 and wanted <= found.keys() else {}


def narrowed(text: str, hashes: Hashes) -> str:
    """A ``requirements.txt`` with those hashes alone of what they are known of, instead of those of every platform."""

    def fewer(match: re.Match[str]) -> str:
        values = hashes.get((match.group("name"), match.group("version")))
        if not values:
            return match.group()
        return match.group("pin") + "".join(f" \\\n    --hash={value}" for value in sorted(values))

    pattern = r"(?m)^(?P<pin>(?P<name>[a-z0-9-]+)==(?P<version>[^\s;]+)[^\n\\]*?)(?: \\\n    --hash=\S+)+"
    return re.sub(pattern, fewer, text)
