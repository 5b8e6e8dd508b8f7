"""One writer at a time: the lock that keeps a second driver out of a run folder."""

from __future__ import annotations

import errno
import fcntl
import getpass
import json
import os
import socket
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mlipcluster.errors import RunFolderError

# what file systems say when they know no locks (NFS without its lock daemon, some cluster file systems)
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
# a process may lock a file twice as far as the kernel is concerned; this is where we know better
_held: dict[str, int] = {}


class ExclusiveLock:
    """A lock beside *path*: while one process holds it, every other is refused with that process's name.

    The lock is the kernel's (``fcntl``), so it ends with the process that held it, however that ended. On a file
    system without locks a file made with ``O_EXCL`` takes its place; it is taken over when the process that made it
    was on this host and is gone.

    Parameters
    ----------
    path
        What is protected. The lock is ``.<name>.lock`` in the same folder.
    """

    def __init__(self, path: Path) -> None:
        self.protected = path
        self.path = path.with_name(f".{path.name}.lock")
        self.owner_path = path.with_name(f".{path.name}.owner")
        self._fd: int | None = None
        self._owns_file = False

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._fd is not None

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        RunFolderError
            Another process, or this one through another object, holds it.
        """
        if self.held:
            return
        key = os.path.realpath(self.path)
        if _held.get(key) == os.getpid():
            raise RunFolderError(_refusal(self.protected, "another part of this very process"))
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RunFolderError(
                f"{self.protected.parent} cannot be written: {error.strerror}; choose another output_path"
            ) from error
        try:
            self._lock(fd)
        except BaseException:
            os.close(fd)
            raise
        _held[key] = os.getpid()
        self._fd = fd

    def _lock(self, fd: int) -> None:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                self._make_owner_file()
                return
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise RunFolderError(f"{self.path} cannot be locked: {error}; choose another output_path") from error
            raise RunFolderError(_refusal(self.protected, _describe(_read_owner(self.path)))) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, _owner_text(), 0)

    def _make_owner_file(self, *, again: bool = True) -> None:
        try:
            fd = os.open(self.owner_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            owner = _read_owner(self.owner_path)
            if again and _is_gone(owner):
                self.owner_path.unlink(missing_ok=True)
                self._make_owner_file(again=False)
                return
            raise RunFolderError(
                _refusal(self.protected, _describe(owner))
                + f"; if that process has ended, delete {self.owner_path} and run again"
            ) from None
        os.write(fd, _owner_text())
        os.close(fd)
        self._owns_file = True

    def release(self) -> None:
        """Give the lock back; nothing happens when it is not held."""
        if self._fd is None:
            return
        _held.pop(os.path.realpath(self.path), None)
        if self._owns_file:
            self.owner_path.unlink(missing_ok=True)
            self._owns_file = False
        os.close(self._fd)
        self._fd = None


def _owner_text() -> bytes:
    since = datetime.now(timezone.utc).isoformat(timespec="seconds")
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "user": _user(), "since": since}
    return json.dumps(owner).encode()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in some containers
        return str(os.getuid())


def _read_owner(path: Path) -> dict[str, Any]:
    try:
        owner = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _describe(owner: dict[str, Any]) -> str:
    if not owner:
        return "another process"
    return f"process {owner.get('pid')} of user {owner.get('user')} on {owner.get('host')} (since {owner.get('since')})"


def _refusal(path: Path, holder: str) -> str:
    return f"{path} is being written by {holder}; wait until it has ended, end it, or choose another output_path"


def _is_gone(owner: dict[str, Any]) -> bool:
    pid = owner.get("pid")
    if owner.get("host") != socket.gethostname() or not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
