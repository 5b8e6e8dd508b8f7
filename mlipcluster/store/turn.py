"""Locks of builders: one at a time for a name, and a mark on a half made folder that ends with whoever makes it.

The lock is the kernel's (``flock``): it ends with the process, however that ends, and across hosts where the file
system carries it. Some do not; there the owner's text in the file has to do.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable

from mlipcluster.store.layout import Layout, read_json

# what file systems say when they know no locks (NFS without its lock daemon, some cluster file systems)
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_POLL = 0.2  # seconds
_MARGIN = 3600.0  # seconds by which clocks of hosts may differ, and a builder be late


@dataclass(frozen=True)
class Owner:
    """Who builds.

    Attributes
    ----------
    host, user : str
        Where, and who.
    pid : int
        Its process there.
    born : str
        When that process was started, as its kernel counts: another process may get the same number later.
    until : float
        Unix time at which it will have given up, in seconds.
    locked : bool
        Whether the file system carries locks; where it does not, nothing else tells that the process has ended.
    """

    host: str
    user: str
    pid: int
    born: str
    until: float
    locked: bool = True

    def __str__(self) -> str:
        return f"process {self.pid} of {self.user!r} on {self.host!r}"

    @classmethod
    def here(cls, timeout: float) -> Owner:
        """This process, which will have given up in *timeout* seconds."""
        return cls(socket.gethostname(), _user(), os.getpid(), _born(os.getpid()), time.time() + timeout)

    @classmethod
    def read(cls, path: Path) -> Owner | None:
        """Who wrote that file; None where it cannot be told."""
        found = read_json(path)
        try:
            until, locked = float(found["until"]), bool(found["locked"])
            return cls(str(found["host"]), str(found["user"]), int(found["pid"]), str(found["born"]), until, locked)
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def alive(self) -> bool:
        """Whether the process may still be there: on another host, until it will have given up."""
        if self.host != socket.gethostname():
            return time.time() < self.until + _MARGIN
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return self.born == _born(self.pid)


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file: True, False where somebody else has it, None where the file system carries no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        if error.errno in NO_LOCKS:
            return None
        raise
    return True


@contextlib.contextmanager
def turn(layout: Layout, name: str, timeout: float, log: Callable[[str], None]) -> Iterator[None]:
    """Wait until nobody else builds the environment *name*, and hold that turn; without locks, at once.

    Raises
    ------
    TimeoutError
        It took longer than *timeout* seconds.
    """
    path, give_up, told = layout.turn_file(name), time.monotonic() + timeout, False
    descriptor = _opened(path)
    try:
        while (locked := try_lock(descriptor)) is False or (locked and not _is_at(path, descriptor)):
            if locked:  # it was removed with the name that it is for, which has come back
                os.close(descriptor)
                descriptor = _opened(path)
                continue
            if not told:
                log(f"{name} is being built by {Owner.read(path) or 'somebody else'}; waiting for that")
                told = True
            if time.monotonic() > give_up:
                raise TimeoutError
            time.sleep(_POLL)
        write_owner(descriptor, Owner.here(timeout))
        layout.share_file(descriptor)
        yield
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def write_owner(descriptor: int, owner: Owner) -> None:
    """Write who holds it into an open file."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(asdict(owner)).encode(), 0)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in some containers
        return str(os.getuid())


def _born(pid: int) -> str:
    """When a process was started, in ticks since its machine was; empty where there is no /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]  # proc(5), field 22; the name before it may hold blanks
