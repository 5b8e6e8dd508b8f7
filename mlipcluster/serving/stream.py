"""One peer of the server: its socket, plain or TLS, which never blocks, what it sent and what it has not taken yet."""

from __future__ import annotations

import select
import socket
import ssl
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from mlipcluster.socket_worker import wire
from mlipcluster.socket_worker.client import widen

#: What the kernel asks of a machine that says nothing: after so many seconds, again after so many, and how often.
ALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


def prepare_far(sock: socket.socket) -> None:
    """Of a connection to another machine: lose no time, and have the kernel end it once that one has gone silently."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in ALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Stream:
    """Frames from and to a peer.

    Parameters
    ----------
    sock : socket.socket or ssl.SSLSocket
        Connected; becomes non-blocking. Of TLS the handshake may be still to come.
    max_body : int
        Bytes that the arrays of one frame may have.

    Attributes
    ----------
    watched : int
        What is waited for, as `events` gave it.
    """

    def __init__(self, sock: socket.socket, max_body: int = wire.MAX_BODY) -> None:
        sock.setblocking(False)
        widen(sock)
        self.socket = sock
        self.watched = select.EPOLLIN
        self._decoder = wire.Decoder(max_body=max_body, views=False)
        self._unsent: deque[memoryview] = deque()
        self._is_tls = isinstance(sock, ssl.SSLSocket)
        self._shaking = self._is_tls
        self._needs_write = False  # TLS wants to write before it can read

    @property
    def number(self) -> int:
        """Its file descriptor."""
        return self.socket.fileno()

    @property
    def is_ready(self) -> bool:
        """Whether the handshake is over, so that the peer is one that may be here."""
        return not self._shaking

    @property
    def unsent(self) -> int:
        """How much it has not taken yet, in what was sent at a time."""
        return len(self._unsent)

    def events(self, *, reading: bool = True) -> int:
        """What to wait for, as ``select.epoll`` names it."""
        writing = self._unsent or self._needs_write
        return (select.EPOLLIN if reading else 0) | (select.EPOLLOUT if writing else 0)

    def receive(self) -> Iterator[wire.Message]:
        """Take what has come; each message is void as soon as the next one is asked for.

        Raises
        ------
        EOFError
            The peer has gone.
        wire.FrameError
            What it sent is no frame.
        OSError
            The connection broke.
        """
        if self._shaking and not self._shake():
            return
        while True:
            count = self._read()
            if count is None:
                return
            if not count:
                raise EOFError
            self._decoder.received(count)
            while (message := self._decoder.next()) is not None:
                yield message
            if not (isinstance(self.socket, ssl.SSLSocket) and self.socket.pending()):
                return  # what TLS has read already nobody would be told of again

    def send(self, buffers: Sequence[Any]) -> None:
        """Send what the peer takes now, and keep a copy of the rest."""
        if self._unsent or self._is_tls:
            self._unsent.append(memoryview(b"".join(buffers)))
            self.flush()
            return
        try:
            sent = self.socket.sendmsg(buffers)
        except (BlockingIOError, InterruptedError):
            sent = 0
        if sent < sum([memoryview(buffer).nbytes for buffer in buffers]):
            self._unsent.append(memoryview(b"".join(buffers))[sent:])

    def flush(self) -> None:
        """Send more of the rest."""
        self._needs_write = False
        if self._shaking and not self._shake():
            return
        while self._unsent:
            try:
                sent = self.socket.send(self._unsent[0])
            except (BlockingIOError, InterruptedError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return
            if sent < len(self._unsent[0]):
                self._unsent[0] = self._unsent[0][sent:]
            else:
                self._unsent.popleft()

    def trust(self) -> None:
        """Take as large frames as there are, from now on."""
        self._decoder.max_body = wire.MAX_BODY

    def close(self) -> None:
        """Close it, now."""
        self.socket.close()

    def _shake(self) -> bool:
        """Go on with the handshake; whether it is over."""
        assert isinstance(self.socket, ssl.SSLSocket)
        try:
            self.socket.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLWantWriteError:
            self._needs_write = True
            return False
        self._shaking = False
        return True

    def _read(self) -> int | None:
        """Count of bytes that came, 0 at the end of the stream, None when there are none now."""
        try:
            return self.socket.recv_into(self._decoder.space())
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError):
            return None
        except ssl.SSLWantWriteError:
            self._needs_write = True
            return None
        except ssl.SSLEOFError:
            return 0
