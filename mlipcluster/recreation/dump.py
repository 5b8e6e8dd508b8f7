"""Take the environments of a record out into a folder, for `mlipcluster.recreation.recreate` to build them again.

::

    env/
      requirements.txt          or uv.lock, environment.yml, pixi.lock …: the lock files, under their managers' names
      environment.json          the environment as it was measured
      uncommitted.diff          where the protocols' repository had changes that were not committed
      calculators/<name>/       the same for each calculator that has an environment of its own

Nothing in a record chooses a path: file names are those of
:data:`mlipcluster.environments.lock.LOCK_FILES`, and the names of calculators are made safe.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlipcluster.environments.environment import Environment
from mlipcluster.environments.lock import LOCK_FILES
from mlipcluster.errors import InputError
from mlipcluster.files import write_atomic
from mlipcluster.recreation.recorded import Recorded

MEASURED, DIFF, CALCULATORS = "environment.json", "uncommitted.diff", "calculators"
_NAME_LENGTH = 64
_TAKEN = frozenset({"con", "prn", "aux", "nul"})  # names that some systems keep for themselves


@dataclass(frozen=True)
class Dumped:
    """What was written.

    Attributes
    ----------
    folder : Path
        The folder.
    files : tuple of str
        Names of the files in it, with their folders.
    calculators : mapping of str to str
        For each calculator the folder in *folder* that its environment is in; empty where it shares the run's.
    """

    folder: Path
    files: tuple[str, ...]
    calculators: Mapping[str, str]


def dump(record: Recorded, folder: Path, *, force: bool = False) -> Dumped:
    """Write the lock files of a record's environments into *folder*, all of them or none.

    Parameters
    ----------
    record
        What was read of the record.
    folder
        Made if need be; what else lies in it stays as it is.
    force
        Whether files of these names may be overwritten.

    Raises
    ------
    InputError
        Files are there already and *force* is not set; the folder holds lock files that this record has none of, which
        would be mixed up with its own; or it cannot be written.
    """
    calculators = _calculator_folders(record)
    texts = _files("", record.environment)
    if record.diff:
        texts[DIFF] = record.diff
    for name, place in calculators.items():
        if place:
            texts.update(_files(place, record.calculators[name]))
    _check(folder, texts, force)
    try:
        _write(folder, texts)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "make room on that disk" if full else "choose another --env_dir"
        raise InputError(
            f"{str(folder)!r} cannot be written ({error.strerror or error}); nothing was changed; {remedy}"
        ) from error
    return Dumped(folder, tuple(sorted(texts)), calculators)


def _files(place: str, environment: Environment) -> dict[str, str]:
    measured = json.dumps(environment.to_json(), indent=1) + "\n"
    files = {**environment.files(), MEASURED: measured}
    return {f"{place}/{name}" if place else name: text for name, text in files.items()}


def _calculator_folders(record: Recorded) -> dict[str, str]:
    """Where each calculator's environment goes: a folder of its own, or nowhere if it is the run's."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name, environment in sorted(record.calculators.items()):
        if environment.digest == record.environment.digest:
            found[name] = ""
            continue
        safe = safe_name(name, taken)
        taken.add(safe.lower())
        found[name] = f"{CALCULATORS}/{safe}"
    return found


def safe_name(name: str, taken: set[str]) -> str:
    """A folder's name that is like *name*, and unlike those in *taken* (lower case)."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:_NAME_LENGTH].strip("._-") or "calculator"
    plain = f"{plain}_" if plain.partition(".")[0].lower() in _TAKEN else plain
    safe, number = plain, 2
    while safe.lower() in taken:
        safe, number = f"{plain}-{number}", number + 1
    return safe


def _check(folder: Path, texts: Mapping[str, str], force: bool) -> None:
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"{str(folder)!r} is no folder; choose another --env_dir")
    places = {""} | {name.rpartition("/")[0] for name in texts}
    for place in sorted(places - {""}):
        for part in (CALCULATORS, place):
            if (folder / part).is_symlink() or (os.path.lexists(folder / part) and not (folder / part).is_dir()):
                raise InputError(
                    f"{str(folder / part)!r} is no folder of its own; move it away, or choose another --env_dir"
                )
    there_too = {f"{CALCULATORS}/{path.name}" for path in (folder / CALCULATORS).glob("*")}
    others = [
        os.path.join(place, name)
        for place in sorted(places | there_too)
        for name in (*LOCK_FILES, MEASURED, DIFF)
        if (f"{place}/{name}" if place else name) not in texts and os.path.lexists(folder / place / name)
    ]
    if others:
        raise InputError(
            f"{str(folder)!r} holds {', '.join(others)} already, which would be mixed up with this record's files; "
            "choose another --env_dir, or move them away"
        )
    there = sorted(name for name in texts if os.path.lexists(folder / name))
    folders = [name for name in there if (folder / name).is_dir() and not (folder / name).is_symlink()]
    if folders:
        raise InputError(f"{str(folder / folders[0])!r} is a folder; move it away, or choose another --env_dir")
    if there and not force:
        raise InputError(
            f"{str(folder)!r} holds {', '.join(there)} already; choose another --env_dir, or overwrite with --force"
        )


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    """Everything beside first, then each into its place: a disk that fills leaves what was there."""
    with _made_folders(folder, texts):
        beside = folder / f".dump.{secrets.token_hex(4)}.part"
        try:
            for name, text in texts.items():
                write_atomic(beside / name, text)
            for name in texts:
                (beside / name).replace(folder / name)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


@contextlib.contextmanager
def _made_folders(folder: Path, texts: Mapping[str, str]) -> Iterator[None]:
    """The folders that the files need; those that were made are removed again if anything fails."""
    made: list[Path] = []
    try:
        for wanted in sorted({(folder / name).parent for name in texts} | {folder}):
            missing = [place for place in (wanted, *wanted.parents) if not place.exists()]
            for place in reversed(missing):
                place.mkdir()
                made.append(place)
        yield
    except BaseException:
        for place in reversed(made):
            with contextlib.suppress(OSError):
                place.rmdir()
        raise
