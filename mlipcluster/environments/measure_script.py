"""Prints, as JSON, everything installed in the Python that runs it.

Stands alone: standard library only, Python >= 3.9, started as ``python -I measure_script.py [--user] [folder ...]``.
``--user``: with the user's own site-packages, where this Python uses them; folders: from which packages are imported
before all others. The answer::

    {
        "schema": 1,
        "python": "3.11.7",  or "3.13.1t" where it has no global lock
        "implementation": "cpython",
        "platform": "linux-x86_64",
        "prefix": "…",
        "base_prefix": "…",
        "pyvenv": "text of pyvenv.cfg, or empty",
        "packages": [
            {"name", "version", "url", "editable", "vcs", "commit", "subdirectory", "hash", "record", "sha1", "dirty"}
        ],
        "conda": [{"name", "version", "build", "channel", "url", "md5", "sha256", "depends": [names]}],
        "history": "the lines of conda-meta/history that tell commands and specs, or empty",
        "pixi": "text of conda-meta/pixi, or empty",
    }

``url`` and the fields after it come from PEP 610's ``direct_url.json``
(https://packaging.python.org/en/latest/specifications/direct-url/) and are left out where they say nothing.
``record`` is a digest of the files of a package installed from a local folder, or from an archive whose hash the
installer did not keep, as uv does not; ``sha1`` and ``dirty`` are the git
commit of an editable package's checkout and whether its tracked files differ from it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import sysconfig

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing takes a tenth of the time that all this takes
    from typing import Any


def main() -> None:
    """Print the answer."""
    folders = sys.argv[1:]
    if folders[:1] == ["--user"]:
        import site

        site.addsitedir(site.getusersitepackages())
        del folders[0]
    sys.path[:0] = folders
    json.dump(measure(), sys.stdout)
    sys.stdout.write("\n")


def measure() -> dict[str, Any]:
    """Everything installed in this Python."""
    conda, theirs = _conda()
    return {
        "schema": 1,
        "python": ".".join(str(part) for part in sys.version_info[:3]) + _level() + getattr(sys, "abiflags", ""),
        "implementation": sys.implementation.name,
        "platform": sysconfig.get_platform(),
        "prefix": sys.prefix,
        "base_prefix": sys.base_prefix,
        "pyvenv": _read(os.path.join(sys.prefix, "pyvenv.cfg")),
        "packages": sorted(_packages(theirs), key=lambda package: package["name"]),
        "conda": sorted(conda, key=lambda package: package["name"]),
        "history": _history(),
        "pixi": _read(os.path.join(sys.prefix, "conda-meta", "pixi")),
    }


# An address, and no further than to the next: all between quotes, a whole line, or as far as there is no space.
_ADDRESS = re.compile(
    r"""(?<=")[\w+.-]{1,32}://(?:(?!://)[^"])*(?=")|(?<=')[\w+.-]{1,32}://(?:(?!://)[^'])*(?=')"""
    r"""|^[\w+.-]{1,32}://(?:(?!://)[^"'])*$|://(?:(?!://)[^\s"'<>])+"""
)
_NAMED = (  # like a secret, in a query or after #
    r"(?:[\w.-]{0,64}(?:token|secret|passw|pwd|sig|auth|credential|(?:access|account|api|shared)[_.-]?key)[\w.-]{0,64}"
    r"|(?:[\w.-]{0,64}[_.-])?key|code|pw|pass|jwt|bearer)=[^&#]*"
)
# A password may hold a slash, which it should not; digits and a slash are a port.
_USER = re.compile(r"[^\s/?#]*@|[^\s/?#@:\[]*:(?!\d{0,5}(?:[/?#]|$))[^\s@]*@")


def without_credentials(text: str) -> str:
    """Drop from each URL in *text* ``user:password@``, conda's ``/t/<token>`` and queries that are named like a secret.

    The user ``git`` of an SSH address stays: without it the address is another one.
    """
    text = re.sub(r"\A[\w.+-]+:[^\s:@/]+@(?!sha\d+:)(?=[\w.-]+:)", "", text)  # of an address without a scheme
    lines = text.split("\n")
    return "\n".join(_ADDRESS.sub(_without_secrets, line) if "://" in line else line for line in lines)


def _without_secrets(match: re.Match[str]) -> str:
    scheme, _, rest = match.group(0).partition("://")
    kind = (match.string[max(0, match.start() - 5) : match.start()] + scheme).lower()
    if not (kind.endswith("ssh") and rest.startswith("git@")):
        rest = _USER.sub("", rest, count=1) if _USER.match(rest) else rest
    path = re.split(r"[?#]", rest, maxsplit=1)[0]
    tail = rest[len(path) :]
    if kind.endswith(("http", "https")):
        path = re.sub(r"/t/[^/\s@]+(?<!\.git)(?=[/\s]|$)", "", path)
    tail = re.sub(rf"(?i)(?<=[?&#]){_NAMED}&", "", tail)
    return f"{scheme}://{path}" + re.sub(rf"(?i)[?&#]{_NAMED}", "", tail)


def _level() -> str:
    short = {"alpha": "a", "beta": "b", "candidate": "rc"}.get(sys.version_info.releaselevel)
    return f"{short}{sys.version_info.serial}" if short else ""


def _packages(theirs: set[str]) -> list[Any]:
    found: dict[str, dict[str, Any]] = {}
    conda = os.path.isdir(os.path.join(sys.prefix, "conda-meta"))
    for folder in _folders():
        for entry in _listed(folder):
            lower = entry.lower()
            egg = lower == "egg-info" and folder.endswith(".egg")
            if not (egg or lower.endswith((".dist-info", ".egg-info"))) or lower.startswith("~"):
                continue  # pip renames what it removes to ~…
            package = _package(os.path.join(folder, entry))
            if package is not None and conda:
                package["installer"] = _installer(os.path.join(folder, entry), theirs)
            if package is not None:
                found.setdefault(package["name"], package)  # the first folder on sys.path is what is imported
    return list(found.values())


def _folders() -> list[Any]:
    """The folders of sys.path that packages are installed in (with -I: no PYTHONPATH, no user folder, no script's)."""
    here = os.path.realpath(os.path.dirname(os.path.abspath(__file__)))
    folders = []
    for folder in sys.path:
        real = os.path.realpath(folder)
        if folder and os.path.isdir(real) and real != here and real not in folders:
            folders.append(real)
    return folders


def _package(path: str) -> dict[str, Any] | None:
    """One installed distribution, by its .dist-info or .egg-info; importlib.metadata takes five times as long."""
    text = _read(os.path.join(path, "METADATA")) or _read(os.path.join(path, "PKG-INFO"))
    if not text and os.path.isfile(path):
        text = _read(path)
    head = re.split(r"\r?\n\r?\n", text, maxsplit=1)[0]
    name = re.search(r"(?im)^Name:[ \t]*(\S+)", head)
    version = re.search(r"(?im)^Version:[ \t]*(\S+)", head)
    if name is None:
        return None
    package = {
        "name": re.sub(r"[-_.]+", "-", name.group(1)).lower(),
        "version": version.group(1) if version else "",
    }
    package.update(_origin(path))
    return package


def _installer(path: str, theirs: set[str]) -> str:
    """Who installed a distribution into a conda environment; conda's own say so, or are listed in conda-meta."""
    installer = _read(os.path.join(path, "INSTALLER")).strip()
    if installer:
        return installer
    relative = os.path.relpath(path, os.path.realpath(sys.prefix)).replace(os.sep, "/")
    return "conda" if relative in theirs else ""


def _origin(path: str) -> dict[str, Any]:
    place, kind = os.path.dirname(path), os.path.basename(path).lower()
    if kind.endswith(".egg-info") and os.path.isdir(path) and not place.endswith(("site-packages", "dist-packages")):
        return {"url": "file://" + place, "editable": True, **_checkout(place)}  # by `setup.py develop`
    try:
        origin = json.loads(_read(os.path.join(path, "direct_url.json")) or "{}")
        url = without_credentials(str(origin.get("url", "")))
        if not url:
            return {}
        vcs, archive, folder = (origin.get(key) or {} for key in ("vcs_info", "archive_info", "dir_info"))
        found = {"url": url, "subdirectory": origin.get("subdirectory", "")}
        if vcs:
            found.update(vcs=vcs.get("vcs", ""), commit=vcs.get("commit_id", ""))
        elif "dir_info" in origin:
            found["editable"] = bool(folder.get("editable"))
        hashes = archive.get("hashes") or {}
        found["hash"] = (
            "sha256:" + hashes["sha256"] if "sha256" in hashes else str(archive.get("hash", "")).replace("=", ":")
        )
        if found.get("editable"):
            found.update(_checkout(_local(url)))
        elif not (vcs or found["hash"]):
            found["record"] = _files_digest(path)
    except (ValueError, AttributeError, TypeError, RecursionError):
        return {}
    return {key: value for key, value in found.items() if value not in ("", None)}


def _files_digest(path: str) -> str:
    """Digest of the installed files, by RECORD: without scripts (which name the prefix), caches and metadata."""
    skipped = re.compile(r"^\"?\.\.|\.dist-info/|\.pyc,|__editable__")
    record = _read(os.path.join(path, "RECORD")).splitlines()
    lines = sorted(_hashed(os.path.dirname(path), line) for line in record if line and not skipped.search(line))
    return hashlib.sha256("\n".join(lines).encode("utf-8")).hexdigest() if lines else ""


def _hashed(folder: str, line: str) -> str:
    """A line of RECORD; where the wheel gave no hash, with that of the file."""
    name, _, rest = line.rpartition(",")[0].rpartition(",")
    if rest or not name:
        return line
    if name.startswith('"'):
        name = name[1:-1].replace('""', '"')
    try:
        with open(os.path.join(folder, name), "rb") as file:
            return line + hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return line


def _local(url: str) -> str:
    """The folder that a file: URL names."""
    from urllib.parse import unquote, urlsplit

    return unquote(urlsplit(url).path)


def _checkout(folder: str) -> dict[str, Any]:
    """Commit of the git checkout that holds *folder*, and whether tracked files of *folder* differ from it."""
    sha1 = _git(folder, "rev-parse", "HEAD")
    if not re.fullmatch(r"[0-9a-f]{40,64}", sha1):
        return {}
    # Untracked files alone do not make it dirty: caches and notes come and go without changing what is imported.
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules", "--", ".")
    return {"sha1": sha1, "dirty": bool(changed)}


def _git(folder: str, *arguments: str) -> str:
    command = ["git", "--no-optional-locks", "-C", folder, "-c", "core.fsmonitor=false"]
    command.extend(arguments)
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(  # noqa: S603 - git, with arguments of our own
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else ""


def _conda() -> tuple[list[Any], set[str]]:
    """What conda-meta says of each package, and each .dist-info and .egg-info that conda brought, from the prefix.

    Read once: it may be many megabytes. What cannot be read is left out.
    """
    folder = os.path.join(sys.prefix, "conda-meta")
    found: list[Any] = []
    distributions: set[str] = set()
    for entry in _listed(folder):
        if not entry.endswith(".json"):
            continue
        try:
            meta = json.loads(_read(os.path.join(folder, entry)))
        except (ValueError, RecursionError):
            continue
        if isinstance(meta, dict) and meta.get("name"):
            found.append(_conda_package(meta))
            names = [name for name in _list(meta, "files") if isinstance(name, str) and "-info" in name]
            parts = (re.match(r"(.*?\.(?:dist|egg)-info)(?:/|$)", name) for name in names)
            distributions.update(part.group(1) for part in parts if part)
    return found, distributions


def _conda_package(meta: dict[str, Any]) -> dict[str, Any]:
    package: dict[str, Any] = {key: str(meta.get(key) or "") for key in ("name", "version", "build", "md5", "sha256")}
    package["url"] = without_credentials(str(meta.get("url") or ""))
    package["channel"] = without_credentials(str(meta.get("channel") or ""))
    package["depends"] = [str(spec).split(" ", maxsplit=1)[0] for spec in _list(meta, "depends")]
    return package


def _list(meta: dict[str, Any], key: str) -> list[Any]:
    found = meta.get(key)
    return found if isinstance(found, list) else []


def _history() -> str:
    lines = _read(os.path.join(sys.prefix, "conda-meta", "history")).splitlines()
    return without_credentials("\n".join(line for line in lines if re.match(r"#.*(?:cmd|specs):", line)))


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


if __name__ == "__main__":
    main()
