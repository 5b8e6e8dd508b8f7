"""One connection to a socket worker: a request out, its answer in."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlipcluster.socket_worker import wire
from mlipcluster.socket_worker.client import widen


class ConnectionLostError(Exception):
    """The other side closed the connection, or this side had to; the connection is of no further use."""


class Connection:
    """A connected socket and its decoder. Not safe for several threads at once.

    Parameters
    ----------
    sock : socket.socket
        Connected stream socket; the connection owns it from here on.

    Attributes
    ----------
    socket : socket.socket
        The same.
    """

    def __init__(self, sock: socket.socket) -> None:
        widen(sock)
        self.socket = sock
        self._decoder = wire.Decoder()
        self._id = 0
        self._has_timeout = False
        self.closed = False

    def request(
        self, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None, timeout: float | None = None
    ) -> wire.Message:
        """Send a request and wait for its answer; see :meth:`exchange`."""
        arrays = arrays or {}
        return self.exchange(wire.head(header, arrays), wire.body(arrays), timeout)

    def exchange(self, head: bytearray, body: Sequence[Any], timeout: float | None = None) -> wire.Message:
        """Send a frame, whose id is set here, and wait for its answer.

        Returns
        -------
        wire.Message
            Its arrays are views that the next exchange overwrites.

        Raises
        ------
        ConnectionLostError
            The other side has gone.
        TimeoutError
            No answer within *timeout* seconds. The connection is closed: half an answer may be under way.
        """
        self._id += 1
        wire.set_id(head, self._id)
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            self._send([head, *body], deadline)
            return self._answer(deadline)
        except (ConnectionError, ConnectionLostError) as error:
            self.close()
            raise ConnectionLostError(str(error) or type(error).__name__) from error
        except BaseException:  # also Ctrl-C: the answer would be taken for the next request's
            self.close()
            raise

    def claim(self, count: int) -> int:
        """Ids for so many requests that somebody sends in a way of their own; the first of them."""
        first = self._id + 1
        self._id += count
        return first

    def close(self) -> None:
        """Close it, now and for good."""
        self.closed = True
        self.socket.close()

    def shut(self) -> None:
        """Wake whoever waits for an answer with :class:`ConnectionLostError`; any thread may call this."""
        with contextlib.suppress(OSError):  # closed already
            self.socket.shutdown(socket.SHUT_RDWR)

    def _send(self, buffers: list[Any], deadline: float | None) -> None:
        if self.closed:
            raise ConnectionLostError("closed")
        if deadline is not None or self._has_timeout:
            self._wait_until(deadline)
        sent = self.socket.sendmsg(buffers)
        if sent < sum([memoryview(buffer).nbytes for buffer in buffers]):
            rest = memoryview(b"".join(buffers))[sent:]
            while len(rest):
                self._wait_until(deadline)
                rest = rest[self.socket.send(rest) :]

    def _answer(self, deadline: float | None) -> wire.Message:
        decoder = self._decoder
        while True:
            while (message := decoder.next()) is not None:
                if message.id == self._id:
                    return message
                if message.id == 0:
                    raise wire.FrameError(f"the worker could not read a frame: {message.header.get('message')}")
                if message.id > self._id:
                    raise wire.FrameError(f"answer to request {message.id}, which was never sent")
            if deadline is not None:
                self._wait_until(deadline)
            count = self.socket.recv_into(decoder.space())
            if not count:
                raise ConnectionLostError("end of stream")
            decoder.received(count)

    def _wait_until(self, deadline: float | None) -> None:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError("timed out")
        self.socket.settimeout(left)
        self._has_timeout = left is not None
