"""Environments of conda and mamba: one way to tell, lock and build them, with either's program.

Who made one is told by ``conda-meta/history``, where each writes the commands that changed the environment:
``# cmd: /opt/conda/bin/conda create …``, ``# cmd: micromamba create …``. The first counts. Without one it is conda's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlipcluster.environments import pip
from mlipcluster.environments.conda_drift import drift
from mlipcluster.environments.environment import Package
from mlipcluster.environments.lock import Lock
from mlipcluster.environments.origins import read_origins
from mlipcluster.environments.pixi_lock import subdir
from mlipcluster.environments.steps import Step, Wanted
from mlipcluster.errors import EnvironmentBuildError

FILES = (("environment.yml",), ("explicit.txt",))
_ANACONDA = "https://conda.anaconda.org/"  # where a channel that is but a name lies, unless conda was told otherwise
_SUBDIR = re.compile(r"noarch|(?:linux|osx|win|freebsd|emscripten|wasi|zos)-\w+")
# What YAML takes for text without quotes.
_PLAIN = re.compile(r"(?!(?:true|false|yes|no|on|off|null|y|n)$)[A-Za-z_][A-Za-z0-9_.=!+/-]*", re.IGNORECASE)


def owns(measured: Mapping[str, Any]) -> bool:
    """Whether the environment has packages in ``conda-meta``."""
    return bool(measured["conda"])


def made_by_mamba(measured: Mapping[str, Any]) -> bool:
    """Whether it has, and its history begins with a command of mamba or micromamba."""
    program = re.search(
        r"(?m)^# cmd: (?:.*?[/\\])??(conda|mamba|micromamba)(?:-env|-script\.py|\.exe)?(?=\s|$)|^# cmd: ",
        measured["history"],
    )
    return owns(measured) and program is not None and program.group(1) in {"mamba", "micromamba"}


def channel_of(entry: Mapping[str, Any]) -> str:
    """The channel of an installed package, the same whoever installed it: a name at anaconda.org, else an address.

    conda, mamba and pixi write it in different ways, with and without the platform's folder at its end.
    """
    parts = entry["url"].rsplit("/", 2)
    if len(parts) == 3 and _SUBDIR.fullmatch(parts[1]):
        channel = parts[0]
    else:
        channel = entry["channel"].rstrip("/")
        place, _, last = channel.rpartition("/")
        channel = place if place and _SUBDIR.fullmatch(last) else channel
    return "" if channel == "<unknown>" else str(channel).removeprefix(_ANACONDA)  # of a file, conda knows none


# --- lock ------------------------------------------------------------------------------------------------------------


def lock(measured: Mapping[str, Any], packages: tuple[Package, ...]) -> Lock:
    """``environment.yml`` with the build of every package, and the list of their addresses beside it.

    Formats: https://docs.conda.io/projects/conda/en/stable/user-guide/tasks/manage-environments.html
    """
    added = tuple(package for package in packages if package.source != "conda")
    return Lock(
        _environment_yml(measured, added),
        "environment.yml",
        more_files={"explicit.txt": _explicit(measured, added)},
        drift=drift(measured, added),
    )


def _environment_yml(measured: Mapping[str, Any], added: tuple[Package, ...]) -> str:
    """The environment in the format of ``conda env export``.

    ``nodefaults`` keeps the channels of whoever builds it out.
    """
    channels = _channels(measured)
    lines = [f"# Installed in Python {measured['python']} on {measured['platform']}.", "name: mlipcluster", "channels:"]
    lines += [f"  - {_scalar(channel)}" for channel in (*channels, "nodefaults")]
    lines.append("dependencies:")
    specs = [_spec(entry, channels[:1]) for entry in measured["conda"]]
    lines += [f"  - {_scalar(spec)}" for spec in specs or (f"python={measured['python']}", "pip")]
    if added:
        lines.append("  - pip:")
        listed = pip.requirements(measured, added, read_origins(measured), hashed=False).splitlines()[1:]
        lines += [f"      {line}" if line.startswith("#") else f"      - {_scalar(line)}" for line in listed]
        if all(line.startswith("#") for line in listed):
            lines[-len(listed) - 1] = "  # pip:"  # a list of nothing is none
    return "\n".join(lines) + "\n"


def _channels(measured: Mapping[str, Any]) -> list[str]:
    """The channels that packages came from, that of most packages first: it is the first to be asked."""
    count: dict[str, int] = {}
    for entry in measured["conda"]:
        channel = channel_of(entry)
        if channel:
            count[channel] = count.get(channel, 0) + 1
    return sorted(count, key=lambda channel: (-count[channel], channel))


def _spec(entry: Mapping[str, Any], usual: Iterable[str]) -> str:
    channel = channel_of(entry)
    place = f"{channel}::" if channel and channel not in usual else ""
    return f"{place}{entry['name']}={entry['version']}={entry['build']}"


def _scalar(text: str) -> str:
    """A YAML scalar; JSON's strings are YAML's as well, but for characters that break lines or cannot be printed."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in json.dumps(text, ensure_ascii=False))


def _explicit(measured: Mapping[str, Any], added: tuple[Package, ...]) -> str:
    """The addresses of all packages as ``conda list --explicit --md5`` writes them; what pip added as comments."""
    lines = [f"# platform: {subdir(measured['platform'])}", "@EXPLICIT"]
    for entry in _dependencies_first(measured["conda"]):
        if entry["url"]:
            lines.append(entry["url"] + (f"#{entry['md5']}" if entry["md5"] else ""))
        else:
            lines.append(f"# {entry['name']}={entry['version']}={entry['build']}: without an address")
    if added:
        lines.append("# installed by pip:")
        lines += [
            f"#   {line}"
            for line in pip.requirements(measured, added, read_origins(measured), hashed=False).splitlines()[1:]
        ]
    return "\n".join(lines) + "\n"


def _dependencies_first(entries: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """In the order that they can be linked in: an explicit list is not sorted by who reads it."""
    named = {entry["name"]: entry for entry in entries}
    done: dict[str, Mapping[str, Any]] = {}
    for name in named:
        stack, open_ = [name], set()
        while stack:
            top = stack[-1]
            wanted = [] if top in open_ else [d for d in named[top]["depends"] if d in named and d not in done]
            open_.add(top)
            stack += [dependency for dependency in wanted if dependency not in open_]
            if stack[-1] == top:
                done.setdefault(stack.pop(), named[top])
    return list(done.values())


# --- build -----------------------------------------------------------------------------------------------------------


def interpreter(wanted: Wanted) -> Path:
    """The environment is made in ``env`` within the folder: conda wants a folder of its own."""
    return wanted.folder / "env" / "bin" / "python"


def steps(wanted: Wanted) -> list[Step]:
    """``conda env create`` from ``environment.yml``, or ``conda create`` of an explicit list; then local packages.

    ``conda env create`` asks nothing, and with ``--yes`` would remove what is in the way; mamba's asks, unless a
    variable says yes. micromamba reads ``environment.yml`` with ``create``.

    Raises
    ------
    EnvironmentBuildError
        The environment's place is taken, or there is no file to build from.
    """
    prefix, program = wanted.folder / "env", Path(wanted.program).name
    if prefix.exists() or prefix.is_symlink():
        raise EnvironmentBuildError(f"{str(prefix)!r} is in the way; name an empty folder")
    file = next((wanted.folder / name for (name,) in FILES if (wanted.folder / name).is_file()), None)
    if file is None:
        raise EnvironmentBuildError(
            f"{str(wanted.folder)!r} has no environment.yml and no explicit.txt; name a folder with one"
        )
    place = ("--prefix", str(prefix), "--file", str(file))
    if file.name == "environment.yml" and not program.startswith("micromamba"):
        yes = {"MAMBA_ALWAYS_YES": "true"} if program.startswith("mamba") else {}
        made = [Step((wanted.program, "env", "create", *place), {**pip.ALONE, **yes})]
    else:
        made = [Step((wanted.program, "create", "--yes", *place), pip.ALONE)]
    install = (str(interpreter(wanted)), "-I", "-m", "pip", "install", "--disable-pip-version-check", "--no-deps")
    return made + [Step((*install, *local), pip.ALONE) for local in pip.local_places(wanted)]
