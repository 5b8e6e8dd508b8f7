"""Folders that builds are made in: ``builds/.parts/<unique>``, each with a lock while it is being made."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mlipcluster.store.layout import Layout
from mlipcluster.store.turn import Owner, try_lock, write_owner

RETIRED_FILE = "retired.json"
"""In the folder of a build: since when nobody is sent there any more."""
_LATE = 60.0  # seconds after which a lock without its owner's text has been left


@contextlib.contextmanager
def new_part(layout: Layout, name: str, timeout: float) -> Iterator[tuple[Path, int]]:
    """A new folder to build *name* in, locked as long as this block runs; removed after it where no link points to it.

    The lock lies beside the folder and is taken before that is made: a folder without a held lock has no builder.

    Yields
    ------
    folder : Path
        The folder, empty.
    descriptor : int
        Of the lock, to be kept open by the programs that fill the folder: they may outlive this process.
    """
    path, descriptor = _locked(layout, name, timeout)
    folder = _folder(path)
    try:
        layout.make_folder(folder)
        yield folder, descriptor
    finally:
        if not _is_build(layout, folder):
            remove_tree(folder)
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _locked(layout: Layout, name: str, timeout: float) -> tuple[Path, int]:
    while True:
        path = layout.parts / f"{name}-{secrets.token_hex(6)}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        locked = try_lock(descriptor)
        # between these two lines it may have been taken for one that a dead builder left, and removed
        if locked is None or (locked and path.exists()):
            write_owner(descriptor, replace(Owner.here(timeout), locked=bool(locked)))
            layout.share_file(descriptor)
            return path, descriptor
        os.close(descriptor)


def linked(layout: Layout) -> dict[Path, str]:
    """The folders that are builds, with their digests: those that a link in ``builds/`` points to."""
    found = {}
    for entry in sorted(layout.builds.iterdir()):
        if entry.is_symlink() and not entry.name.startswith("."):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                found[layout.parts / Path(os.readlink(entry)).name] = entry.name
    return found


def abandoned(layout: Layout) -> list[Path]:
    """What builders that are no more have left: half made folders, locks, links to be switched in."""
    found = []
    for entry in _entries(layout):
        if entry.suffix == ".lock" or not _is_build(layout, entry):
            with _claimed(_folder(entry)) as ours:
                found += [entry] if ours else []
    return found


def running(layout: Layout) -> list[Owner]:
    """Who builds at this moment."""
    found = []
    for entry in _entries(layout):
        if entry.suffix == ".lock":
            with _claimed(_folder(entry)) as ours:
                owner = None if ours else Owner.read(entry)
                found += [owner] if owner else []
    return found


def remove_abandoned(layout: Layout, entry: Path) -> bool:
    """Remove one of :func:`abandoned`, unless its folder is a build by now; False where something could not go."""
    folder = _folder(entry)
    with _claimed(folder) as ours:
        if ours and not _is_build(layout, folder):
            remove_tree(folder)
        if not ours or (os.path.lexists(folder) and not _is_build(layout, folder)):
            return False
        with contextlib.suppress(PermissionError):
            for path in (folder.with_name(f"{folder.name}.link"), _lock_file(folder)):
                path.unlink(missing_ok=True)
    return not os.path.lexists(entry)


def _is_build(layout: Layout, folder: Path) -> bool:
    """Whether a folder is, or was, one that workers are sent to."""
    return folder in linked(layout) or (folder / RETIRED_FILE).is_file()


def _folder(entry: Path) -> Path:
    """What a lock is for, or a link that was not switched in leads to."""
    return entry.with_suffix("") if entry.suffix in (".lock", ".link") else entry


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _entries(layout: Layout) -> list[Path]:
    with contextlib.suppress(FileNotFoundError):
        return sorted(layout.parts.iterdir())
    return []


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[bool]:
    """Whether a folder has no builder; then its lock is ours as long as the block runs, and it gets none."""
    path = _lock_file(folder)
    try:
        descriptor = _opened(path)
    except FileNotFoundError:
        yield True
        return
    try:
        yield _is_free(path, descriptor)
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    """A lock, for writing, as NFS wants it; where that is not allowed, for reading, which others are content with."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _is_free(path: Path, descriptor: int) -> bool:
    owner = Owner.read(path)
    try:
        taken = try_lock(descriptor)
    except OSError:  # opened for reading alone, where that is not enough
        taken = None
    if taken is False:
        return False
    if owner is None:  # locked first, written next: with locks, its builder has died in between
        return taken is True or time.time() - os.fstat(descriptor).st_mtime > _LATE
    return (taken is True and owner.locked) or not (owner.alive or _has_process(path.with_suffix("")))


def _has_process(folder: Path) -> bool:
    """Whether a program that its builder started still works in a folder, where no lock tells that; on Linux."""
    full = os.path.realpath(folder)  # the builder may have come by another path
    for process in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):  # somebody else's, or ended by now
            if os.readlink(process) == full:
                return True
    return False


def remove_tree(folder: Path) -> None:
    """Remove a folder and all that is in it, as far as this user may; what was made read-only as well."""
    for _ in range(3):  # a process that was ended a moment ago may still have added a file
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        for parent, _folders, _files in os.walk(folder):
            with contextlib.suppress(OSError):
                os.chmod(parent, stat.S_IMODE(os.stat(parent).st_mode) | stat.S_IRWXU)


def share_tree(layout: Layout, folder: Path) -> tuple[int, int]:
    """Let everybody read what may read the root, and give folders its group's right to write; count files and bytes.

    Packages come out of a user's cache with the permissions that they have there.
    """
    files = size = 0
    read, write = layout.mode & 0o055, layout.mode & 0o020
    for parent, _, names in os.walk(folder):
        mode = stat.S_IMODE(os.stat(parent).st_mode)
        _chmod(parent, mode, mode | read | write)
        for name in names:
            path = os.path.join(parent, name)
            found = os.lstat(path)
            files, size = files + 1, size + found.st_size
            if stat.S_ISREG(found.st_mode):
                mode = stat.S_IMODE(found.st_mode)
                _chmod(path, mode, mode | (read & (0o055 if mode & stat.S_IXUSR else 0o044)))
    return files, size


def _chmod(path: str, mode: int, wanted: int) -> None:
    if mode != wanted:
        with contextlib.suppress(PermissionError):  # a file of the cache that is somebody else's
            os.chmod(path, wanted)
