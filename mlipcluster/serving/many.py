"""Many structures over one connection: some are always under way, so that no worker waits for this side."""

from __future__ import annotations

import select
import ssl
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mlipcluster.calculators.connection import Connection, ConnectionLostError
from mlipcluster.socket_worker import wire

BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
#: Requests under way at a time.
WINDOW = 16
#: What the kernel can wait, ms.
LONGEST = 2**31 - 1


def exchange(
    connection: Connection, frames: Sequence[Callable[[], bytes]], timeout: float | None = None
) -> Iterator[tuple[int, wire.Message]]:
    """Send frames, at most :data:`WINDOW` before the first of them is answered; give the answers as they come.

    Parameters
    ----------
    frames : sequence of callable
        Each gives a frame, when it is its turn.
    timeout : float, optional
        Seconds without any answer after which it is given up.

    Yields
    ------
    int
        Which of *frames* it answers.
    wire.Message
        The answer; its arrays are void with the next.

    Raises
    ------
    ConnectionLostError
        The server has gone.
    TimeoutError
        Nothing was answered for so long.
    """
    sock, decoder, poll = connection.socket, wire.Decoder(), select.poll()
    poll.register(sock, select.POLLIN)
    first = connection.claim(len(frames))
    sock.setblocking(False)
    try:
        sent, answered, rest = 0, 0, memoryview(b"")
        while answered < len(frames):
            while not rest and sent < len(frames) and sent - answered < WINDOW:
                frame = bytearray(frames[sent]())
                wire.set_id(frame, first + sent)
                sent, rest = sent + 1, _sent(sock, memoryview(frame))
            poll.modify(sock, select.POLLIN | (select.POLLOUT if rest else 0))
            events = poll.poll(None if timeout is None else min(1000 * timeout, LONGEST))
            if not events:
                raise TimeoutError("timed out")
            if rest and events[0][1] & select.POLLOUT:
                rest = _sent(sock, rest)
            for message in _received(sock, decoder) if events[0][1] & ~select.POLLOUT else ():
                if message.id == 0:
                    raise wire.FrameError(f"it could not read a frame: {message.header.get('message')}")
                if not first <= message.id < first + sent:
                    raise wire.FrameError(f"answer to request {message.id}, which was never sent")
                answered += 1
                yield message.id - first, message
    except (ConnectionError, ConnectionLostError, ssl.SSLError) as error:
        connection.close()
        raise ConnectionLostError(str(error) or type(error).__name__) from error
    except BaseException:  # also Ctrl-C, and whoever wants no more: answers are still to come
        connection.close()
        raise
    sock.setblocking(True)


def _sent(sock: Any, data: memoryview) -> memoryview:
    """What is left of *data*."""
    try:
        return data[sock.send(data) :]
    except BLOCKED:
        return data


def _received(sock: Any, decoder: wire.Decoder) -> Iterator[wire.Message]:
    """What has come; all of it, for of what TLS has read already nobody would be told again."""
    while True:
        try:
            count = sock.recv_into(decoder.space())
        except BLOCKED:
            return
        if not count:
            raise ConnectionLostError("end of stream")
        decoder.received(count)
        while (message := decoder.next()) is not None:
            yield message
