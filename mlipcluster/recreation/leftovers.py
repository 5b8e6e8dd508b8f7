"""What recreating leaves in a folder: known by a marker, so that it can be taken away again, and nothing else with it.

The marker is written before anything is made and names what will be: what a manager makes at the top of an environment.
Nothing is started where any of that is there before. Whoever is killed leaves the marker behind, and the next start
clears what it names. What a user puts beside the environment, before or after, has other names and is never touched. A
folder is worked on by one process at a time.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlipcluster.environments.origins import OWN
from mlipcluster.errors import EnvironmentBuildError, InputError
from mlipcluster.files import write_atomic

MARKER = ".recreate.json"
TOKEN = "MLIPCLUSTER_RECREATE"  # noqa: S105 - no secret: what is started carries it, to be found again
_KIND = "mlipcluster recreate"
_MINOR = frozenset({"share", "etc", "man", ".gitignore", ".lock", "CACHEDIR.TAG", OWN})
ENVIRONMENT = frozenset({"bin", "lib", "lib64", "include", "Scripts", "pyvenv.cfg"})
"""What venv and uv make in the folder itself: any of it says that an environment is there."""
BELOW = frozenset({"env", ".pixi", ".venv", "conda-meta"})
"""Folders that hold an environment, or tell of one, of other managers and layouts."""
_PART = re.compile(rf"\.(?:{re.escape(MARKER)}|{re.escape(OWN)})\.[0-9a-f]{{8}}\.part")


@dataclass(frozen=True)
class Mark:
    """What the marker of a folder says.

    Attributes
    ----------
    made : frozenset of str
        Names in the folder that are of the environment, and of nobody else.
    whole : bool
        Whether all of it was made; otherwise it was cut short.
    token : str
        Value of :data:`TOKEN` in the processes that were started for it.
    digest : str
        Of the environment that was made.
    """

    made: frozenset[str]
    whole: bool = False
    token: str = ""
    digest: str = ""


def read_mark(folder: Path) -> Mark | None:
    """The marker in a folder, if there is one.

    Raises
    ------
    InputError
        It cannot be understood.
    """
    path = folder / MARKER
    try:
        packed: Any = json.loads(path.read_text(encoding="utf-8"))
        if packed["kind"] != _KIND or not (made := frozenset(packed["made"])) <= ENVIRONMENT | BELOW | _MINOR:
            raise TypeError("of another kind")
        return Mark(made, packed["whole"] is True, str(packed["token"]), str(packed["digest"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{str(path)!r} cannot be read ({error}); it says what was made here: delete it and what was made, or take "
            "a new folder"
        ) from error


def write_mark(folder: Path, mark: Mark) -> None:
    """Write the marker, on the disk before anything else is."""
    packed = {
        "kind": _KIND,
        "schema": 1,
        "made": sorted(mark.made),
        "whole": mark.whole,
        "token": mark.token,
        "digest": mark.digest,
    }
    write_atomic(folder / MARKER, json.dumps(packed, indent=1) + "\n")


def will_be_made(folder: Path, python: Path) -> frozenset[str]:
    """Names in a folder that making an environment adds to it, of which *python* will be the interpreter."""
    top = python.relative_to(folder).parts[0]
    return ENVIRONMENT | _MINOR if top in ENVIRONMENT else frozenset({top})


def clear(folder: Path, mark: Mark) -> None:
    """Remove what the marker names, and the marker last.

    Raises
    ------
    EnvironmentBuildError
        Something cannot be removed.
    """
    _end_processes(mark.token)
    for name in sorted(os.listdir(folder)):
        if name in mark.made or _PART.fullmatch(name):
            _remove(folder / name)
    (folder / MARKER).unlink(missing_ok=True)


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise EnvironmentBuildError(
            f"{str(path)!r} was made here and cannot be removed ({error}); remove it by hand"
        ) from error


def _end_processes(token: str) -> None:
    """End what a start that was killed has left running, on systems that tell of each process what it was given."""
    sign = f"{TOKEN}={token}".encode("ascii", "replace")
    for place in Path("/proc").glob("[0-9]*/environ") if token else ():
        with contextlib.suppress(OSError):
            if place.parent.name != str(os.getpid()) and sign in place.read_bytes().split(b"\0"):
                os.kill(int(place.parent.name), signal.SIGKILL)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else works on the folder meanwhile: its lock is the kernel's, and goes with the process.

    Raises
    ------
    InputError
        Another process does so now.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(folder, descriptor)
        yield
    finally:
        os.close(descriptor)


def _lock(folder: Path, descriptor: int) -> None:
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        pass
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise InputError(
                f"another process recreates the environment in {str(folder)!r} now; wait for it, or take another folder"
            ) from None
        # The file system has no locks: the marker alone has to do.
