"""Where i-PI's protocol is spoken: ``unix:NAME``, i-PI's own convention, or ``HOST:PORT``."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from ase.calculators.socketio import actualunixsocketname

from mlipcluster.calculators.worker_process import LONGEST_SOCKET_PATH
from mlipcluster.errors import InputError

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class IPIAddress:
    """An address that i-PI's protocol is spoken at, either of two kinds.

    Attributes
    ----------
    unixsocket : str, optional
        Name of a Unix socket, ``/tmp/ipi_NAME``.
    port : int, optional
        TCP port, in plain text: the protocol knows no encryption. 0 to listen at any that is free.
    host : str
        The port's host.

    Raises
    ------
    InputError
        It is neither, both, or one that no socket can have.
    """

    unixsocket: str | None = None
    port: int | None = None
    host: str = LOOPBACK

    def __post_init__(self) -> None:
        if (self.unixsocket is None) == (self.port is None):
            said = "neither" if self.port is None else f"both unixsocket={self.unixsocket!r} and port={self.port!r}"
            raise InputError(f"i-PI's protocol is spoken at a unixsocket or a port, but {said} was given; give one")
        if self.unixsocket is None:
            if not isinstance(self.port, int) or isinstance(self.port, bool) or not 0 <= self.port <= 65535:
                raise InputError(f"port={self.port!r}; give a whole number from 1 to 65535, 0 for any that is free")
            return
        name = self.unixsocket
        if not isinstance(name, str) or not name or "/" in name or "\0" in name:
            raise InputError(
                f"unixsocket={name!r:.200} is not the name of an i-PI socket, which lies in /tmp as ipi_NAME; give NAME"
                " alone, not a path"
            )
        if len(os.fsencode(self.path)) > LONGEST_SOCKET_PATH:
            raise InputError(
                f"unixsocket={name!r:.200}: the path of its socket, /tmp/ipi_NAME, has {len(os.fsencode(self.path))}"
                f" bytes, and the kernel takes {LONGEST_SOCKET_PATH}; give a shorter name"
            )

    @classmethod
    def parse(cls, text: str) -> IPIAddress:
        """The address that ``unix:NAME`` or ``HOST:PORT`` means.

        Raises
        ------
        InputError
            It means none.
        """
        if text.startswith("unix:"):
            return cls(unixsocket=text.removeprefix("unix:"))
        host, colon, port = text.rpartition(":")
        if not colon or not host or "/" in host or not (port.isascii() and port.isdigit()) or not int(port[:6]):
            raise InputError(f"{text!r:.200} is not an address of i-PI's protocol; give unix:NAME or HOST:PORT")
        return cls(host=host.strip("[]"), port=int(port[:6]))

    @property
    def path(self) -> str:
        """Of the Unix socket; empty where it is a port."""
        return "" if self.unixsocket is None else actualunixsocketname(self.unixsocket)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.unixsocket is None else f"unix:{self.unixsocket}"

    def connect(self, timeout: float) -> socket.socket:
        """A connection to who listens there, to be had within *timeout* seconds.

        Raises
        ------
        OSError
            Nobody does, or may not be talked to.
        """
        if self.port is not None:
            connection = socket.create_connection((self.host, self.port), timeout)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # many short messages go to and fro
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        else:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(self.path)
            except OSError:
                connection.close()
                raise
        connection.settimeout(None)
        return connection

    @contextlib.contextmanager
    def bound(self) -> Iterator[socket.socket]:
        """A socket that is bound there; a Unix socket is its owner's alone, and is removed with the block.

        Raises
        ------
        InputError
            The address is taken, or cannot be had.
        """
        unix = self.unixsocket is not None
        with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as listener:
            if not unix:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(self.path if unix else (self.host, self.port))
            except OSError as error:
                remedy = (
                    f"if no program uses it any more, remove {self.path}; else give another name"
                    if unix
                    else "give a port that is free (0: any), of an address of this machine"
                )
                raise InputError(
                    f"cannot listen for i-PI clients at {self}: {error.strerror or error}; {remedy}"
                ) from error
            try:
                if unix:
                    os.chmod(self.path, 0o600)  # before it listens
                yield listener
            finally:
                if unix:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(self.path)
