"""Measure an environment: what is really installed, and the lock file it came from."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlipcluster.environments import measure_script
from mlipcluster.environments.environment import Environment, Package
from mlipcluster.environments.managers import find_manager
from mlipcluster.errors import MeasureError
from mlipcluster.process import run_command


def measure(python: str | os.PathLike[str] | None = None) -> Environment:
    """Measure the environment of an interpreter.

    Parameters
    ----------
    python : path, optional
        An interpreter, or the folder of an environment; None: the interpreter that runs this.

    Raises
    ------
    MeasureError
        There is no such interpreter, or it could not run the script.
    InputError
        ``MLIPCLUSTER_ENVIRONMENT_MANAGER`` names no manager.

    Notes
    -----
    Reads files and starts one short process; nothing is changed and the network is never used.
    """
    measured = _run(python)
    packages = _packages(measured)
    manager = find_manager(measured)
    lock = manager.lock(measured, packages)
    implementation = measured["implementation"]
    return Environment(
        manager=manager.name,
        prefix=measured["prefix"],
        python=measured["python"] if implementation == "cpython" else f"{implementation} {measured['python']}",
        platform=measured["platform"],
        packages=packages,
        lock=lock.text,
        lock_name=lock.name,
        toml=lock.toml,
        toml_format=lock.toml_format,
        drift=lock.drift,
    )


def interpreter(python: str | os.PathLike[str] | None) -> Path:
    """The interpreter that *python* names: itself, that of an environment's folder, or this process's.

    Raises
    ------
    MeasureError
        There is none.
    """
    if python is None:
        return Path(sys.executable)
    path = Path(python).expanduser()
    if path.is_dir():
        for name in ("bin/python", "bin/python3", "Scripts/python.exe", "python.exe"):
            if (path / name).is_file():
                return path / name
        raise MeasureError(f"{str(path)!r} holds no bin/python; name an interpreter or the folder of an environment")
    if not path.is_file():
        raise MeasureError(f"there is no interpreter {str(path)!r}; name one, or the folder of an environment")
    return path


def _run(python: str | os.PathLike[str] | None) -> dict[str, Any]:
    program = interpreter(python)
    command = [str(program), "-I", measure_script.__file__]
    if python is None and site.ENABLE_USER_SITE:
        command.append("--user")  # this process imports from there, so it belongs to what is measured
    try:
        done = run_command(command, timeout=60)
        answer = json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise MeasureError(f"{str(program)!r} could not be measured: {error}; is it a Python >= 3.9?") from error
    if not isinstance(answer, dict) or answer.get("schema") != 1:
        words = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise MeasureError(
            f"{str(program)!r} could not be measured: exit status {done.returncode}, {words or 'no message'}; "
            "is it a Python >= 3.9?"
        )
    return answer


def _packages(measured: Mapping[str, Any]) -> tuple[Package, ...]:
    conda = [
        Package(entry["name"], entry["version"], "conda", entry["build"], entry["channel"])
        for entry in measured["conda"]
    ]
    installed = [
        Package(entry["name"], entry["version"], _source(entry))
        for entry in measured["packages"]
        if entry.get("installer") != "conda"
    ]
    return tuple(sorted(conda + installed))


def _source(entry: Mapping[str, Any]) -> str:
    """Where a package came from, without anything that only this machine has."""
    url = entry.get("url", "")
    if not url:
        return "index"
    if entry.get("editable"):
        commit = f"@{entry['sha1']}" if "sha1" in entry else ""
        return f"editable:{entry['name']}{commit}{'+dirty' if entry.get('dirty') else ''}"
    if entry.get("vcs"):
        return f"{entry['vcs']}+{url}@{entry.get('commit', '')}"
    digest = entry.get("hash") or (f"sha256:{entry['record']}" if entry.get("record") else "")
    name = f"file:{url.rstrip('/').rpartition('/')[2]}" if url.startswith("file:") else url
    return name + (f"#{digest.replace(':', '=')}" if digest else "")
