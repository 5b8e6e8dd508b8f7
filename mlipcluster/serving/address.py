"""Where a server of calculators is found: a Unix socket in a folder of one's own, or a host and port that speak TLS."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlipcluster.errors import InputError, ServerGoneError
from mlipcluster.settings.values import setting
from mlipcluster.socket_worker.client import is_own_user

LONGEST_PATH = 107
"""Bytes of a Unix socket's path that the kernel takes; see ``unix(7)``."""
#: Between two looks whether a queue has become shorter.
QUEUE_SECONDS = 0.01
_TLS = re.compile(r"tls://(?P<host>\[[0-9a-fA-F:.]+\]|[^:/\[\]]+):(?P<port>\d{1,5})/?")


@dataclass(frozen=True)
class Address:
    """An address.

    Attributes
    ----------
    path : str
        Of a Unix socket; empty where it is a host's.
    host, port : str, int
        Of a listener that speaks TLS.
    """

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.path or f"tls://{host}:{self.port}"


def parse(text: str | os.PathLike[str] | None = None) -> Address:
    """The address that *text* means; for None that of the settings (``serve.address``), else the default one.

    Raises
    ------
    InputError
        It means none, or the path is too long for a socket.
    """
    if text is None:
        text = setting("serve.address").value or default_path()
    told = os.fspath(text)
    if found := _TLS.fullmatch(told):
        port = int(found["port"])
        if port > 65535:
            raise InputError(f"{told!r:.200}: ports end at 65535; correct the address")
        return Address(host=found["host"].strip("[]"), port=port)
    path = told.removeprefix("unix://").removeprefix("unix:")
    if "://" in path or not path:
        raise InputError(
            f"{told!r:.200} is no address of a server; give the path of a Unix socket, or tls://HOST:PORT. There is no"
            " plain TCP"
        )
    return Address(_checked(os.path.abspath(os.path.expanduser(path))))


def default_path() -> str:
    """Where a server listens, and a client asks, when nobody says otherwise."""
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    base = Path(own) / "mlipcluster" if own and os.path.isdir(own) else Path("/tmp") / f"mlipcluster-{os.getuid()}"  # noqa: S108 - 0700, and ours
    return str(base / "serve.sock")


def own_folder(path: str) -> Path:
    """The folder of a socket: made with mode 0700 if need be, and nobody else's.

    Raises
    ------
    InputError
        Others could reach what is in it, or it is not this user's.
    """
    folder = Path(path).parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = os.lstat(folder)
    except OSError as error:
        raise InputError(f"{str(folder)!r}: {error.strerror}; name a socket in a folder of your own") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise InputError(
            f"{str(folder)!r} is not a folder that is yours alone (mode 0700); name a socket in one that is, e.g."
            f" {str(folder / 'mlipcluster' / 'serve.sock')!r}, which is made"
        )
    return folder


def bind(path: str) -> socket.socket:
    """A listening Unix socket at *path*; what a server that was killed left there is replaced.

    Raises
    ------
    InputError
        Another server listens there, or something else lies there.
    """
    with _alone_in(own_folder(path)) as folder:
        return _bind(path, f"/proc/self/fd/{folder}/.{secrets.token_hex(8)}")


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[int]:
    """A descriptor of the folder, in which no other server looks around or binds meanwhile."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # some file systems have no locks
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def _bind(path: str, beside: str) -> socket.socket:
    if os.path.lexists(path):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise InputError(f"{path!r} is there, and no socket; give another address")
        if _answers(path):
            raise InputError(
                f"a server listens at {path!r} already (`mlipcluster status --address {path}`); stop that one with"
                " Ctrl-C or SIGTERM, or give another address"
            )
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(beside)
        listener.listen(512)
        os.link(beside, path)  # fails where another server was quicker, instead of taking its place
    except OSError as error:
        listener.close()
        raise InputError(f"{path!r} cannot be listened at: {error.strerror}; give another address") from error
    finally:
        if os.path.lexists(beside):
            os.unlink(beside)
    return listener


def connect(path: str, timeout: float | None = None, *, queue_seconds: float = 0.0) -> socket.socket:
    """A connection to the server at *path*; its socket keeps *timeout*, in seconds.

    Parameters
    ----------
    path : str
    timeout : float, optional
        Without one, it waits for as long as others are before it in the server's queue.
    queue_seconds : float
        With one, for how long it waits there.

    Raises
    ------
    ServerGoneError
        None answers there, or it is not this user's.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        _queue(sock, path, queue_seconds)
        if not is_own_user(sock):
            raise PermissionError(1, "it is another user's")
    except OSError as error:
        sock.close()
        raise ServerGoneError(
            f"no server answers at {path!r} ({error.strerror or error}); start one: `mlipcluster serve`, or give the"
            " address of one that runs"
        ) from error
    return sock


def _queue(sock: socket.socket, path: str, seconds: float) -> None:
    """Connect; of a queue that is full, the kernel tells a socket with a timeout at once."""
    end = time.monotonic() + seconds
    while True:
        try:
            sock.connect(path)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                raise TimeoutError("it takes no connections") from None
            time.sleep(QUEUE_SECONDS)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(path)
        except OSError:
            return False
        return True


def _checked(path: str) -> str:
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise InputError(
            f"the socket's path {path!r} has {len(os.fsencode(path))} bytes, and the kernel takes {LONGEST_PATH};"
            " give a shorter one"
        )
    return path
