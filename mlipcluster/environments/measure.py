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
from mlipcluster.environments.conda import channel_of
from mlipcluster.environments.environment import Environment, Package
from mlipcluster.environments.managers import find_manager
from mlipcluster.errors import MeasureError
from mlipcluster.process import run_command

INSTALLED = frozenset({"site-packages", "dist-packages"})  # what lies beneath was installed; other code is the user's


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
        more_files=tuple(sorted(lock.more_files.items())),
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
    command = [str(program), "-I", "-B", measure_script.__file__]  # -B: nothing is written, not even compiled modules
    if python is None:
        command += _beyond()
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


def _beyond() -> list[str]:
    """Where this process imports packages from that its interpreter alone would not: they belong to what is measured.

    Folders on ``PYTHONPATH``, as modules of a cluster set it. Those of the user's own code are left out: that is told
    by its source. So are those within a package, which setuptools adds for itself when it is imported.
    """
    folders = [os.path.abspath(folder) for folder in sys.path if folder]
    installed = [folder for folder in folders if Path(folder).name in INSTALLED]
    return [*(["--user"] if site.ENABLE_USER_SITE else []), *installed]


def _packages(measured: Mapping[str, Any]) -> tuple[Package, ...]:
    conda = [
        Package(entry["name"], entry["version"], "conda", entry["build"], _without_place(channel_of(entry)))
        for entry in measured["conda"]
    ]
    installed = [
        Package(entry["name"], entry["version"], _source(entry))
        for entry in measured["packages"]
        if entry.get("installer") != "conda"
    ]
    return tuple(sorted(conda + installed))


def _without_place(channel: str) -> str:
    """A channel's address; of a folder its name alone."""
    return f"file:{channel.rpartition('/')[2]}" if channel.startswith("file:") else channel


def _source(entry: Mapping[str, Any]) -> str:
    """Where a package came from, without anything that only this machine has."""
    url = entry.get("url", "")
    if not url:
        return "index"
    if entry.get("editable"):
        commit = f"@{entry['sha1']}" if "sha1" in entry else ""
        return f"editable:{entry['name']}{commit}{'+dirty' if entry.get('dirty') else ''}"
    local = url.startswith("file:")
    name = f"file:{url.rstrip('/').rpartition('/')[2]}" if local else url
    if entry.get("vcs"):
        return f"{name if local else entry['vcs'] + '+' + url}@{entry.get('commit', '')}"
    if entry.get("hash"):
        return f"{name}#{entry['hash'].replace(':', '=', 1)}"
    # At an address, #sha256= would be taken for the archive's own.
    return f"{name}#{'sha256' if local else 'record'}={entry['record']}" if entry.get("record") else name
