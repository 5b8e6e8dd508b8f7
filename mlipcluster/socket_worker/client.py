"""One client of the worker: its socket, its structure, and what it has not read yet."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import Any

from .structure import Structure
from .wire import Decoder

CREDENTIALS = struct.Struct("3i")
#: Asked of the kernel for each socket, bytes: a frame of 10,000 atoms then goes in one piece, where that is granted.
BUFFER = 1 << 20


class Client:
    """A connected client.

    Parameters
    ----------
    sock : socket.socket
        Its socket, which becomes non-blocking.

    Attributes
    ----------
    decoder : Decoder
        Holds what it sent.
    structure : Structure
        What it has told of its structure.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        widen(sock)
        self.socket = sock
        self.decoder = Decoder()
        self.structure = Structure()
        self._unsent = memoryview(b"")

    @property
    def is_waiting(self) -> bool:
        """Whether it has not taken its last answer yet."""
        return bool(self._unsent)

    def read(self) -> bool:
        """Take what has come; False when the client has gone."""
        try:
            count = self.socket.recv_into(self.decoder.space())
        except (BlockingIOError, InterruptedError):
            return True
        self.decoder.received(count)
        return count > 0

    def send(self, buffers: list[Any]) -> None:
        """Send what the client takes now, and keep a copy of the rest: the calculator may overwrite its results."""
        try:
            sent = self.socket.sendmsg(buffers)
        except (BlockingIOError, InterruptedError):
            sent = 0
        if sent < sum([memoryview(buffer).nbytes for buffer in buffers]):
            self._unsent = memoryview(b"".join(buffers))[sent:]

    def flush(self) -> None:
        """Send more of the rest."""
        try:
            self._unsent = self._unsent[self.socket.send(self._unsent) :]
        except (BlockingIOError, InterruptedError):
            return


def widen(sock: socket.socket) -> None:
    """Let the kernel hold more of what is sent: who waits until it has been read in pieces, waits for each."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)


def is_own_user(sock: socket.socket) -> bool:
    """Whether the other end runs under this process's user; see ``SO_PEERCRED`` in ``unix(7)``."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    _, uid, _ = CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
    return bool(uid == os.getuid())
