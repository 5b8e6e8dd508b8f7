"""What a server waits for: sockets that have something to say, and other threads.

One thread runs the loop, and never waits for anything else; what takes time is done aside, by others, which post what
they have found.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import select
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlipcluster.serving.stream import Stream

log = logging.getLogger("mlipcluster")

HELPERS = 32
Handler = Callable[[int], None]


class Loop:
    """Sockets and who attends to them. Used in the loop's own thread alone, but for :meth:`post` and :meth:`aside`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._streams: dict[int, Stream] = {}
        self._paused: set[socket.socket] = set()
        self._posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake_end, self._waker = socket.socketpair()
        self._wake_end.setblocking(False)
        self._helpers = ThreadPoolExecutor(HELPERS, thread_name_prefix="served workers")
        self.watch(self._wake_end, self._woken)

    def wait(self, seconds: float) -> None:
        """Wait for something to happen, at most so long, and attend to it."""
        for number, events in self._epoll.poll(seconds):
            if (handler := self._handlers.get(number)) is not None:
                handler(events)

    # Other threads

    def post(self, what: Callable[[], None]) -> None:
        """Have the loop's thread call *what*; any thread may ask for it."""
        self._posted.put(what)
        with contextlib.suppress(OSError):  # full, so it will wake anyway; or closed
            self._waker.send(b"!", socket.MSG_DONTWAIT)

    def aside(self, what: Callable[[], Any]) -> None:
        """Have another thread call *what*, which takes its time."""
        self._helpers.submit(_told, what)

    def _woken(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_end.recv(4096)
        with contextlib.suppress(queue.Empty):
            while True:
                _told(self._posted.get_nowait())

    # Sockets

    def watch(self, sock: socket.socket, handler: Handler) -> None:
        """Have *handler* called when something comes to a socket."""
        self._handlers[sock.fileno()] = handler
        self._epoll.register(sock, select.EPOLLIN)

    def watch_stream(self, stream: Stream, handler: Handler) -> None:
        """Have *handler* called when something comes from a peer, until :meth:`unwatch`; instead of who was before."""
        if stream.number in self._handlers:
            self._handlers[stream.number] = handler
            return
        self._streams[stream.number] = stream
        self.watch(stream.socket, handler)

    def unwatch(self, stream: Stream) -> None:
        """Watch a peer's socket no more, and close it."""
        number = stream.number
        if self._handlers.pop(number, None) is not None:
            del self._streams[number]
            with contextlib.suppress(OSError):
                self._epoll.unregister(number)
        stream.close()

    def set_events(self, stream: Stream, *, reading: bool = True) -> None:
        """Wait for what a peer is to be waited for now."""
        wanted = stream.events(reading=reading)
        if wanted != stream.watched and stream.number in self._handlers:
            self._epoll.modify(stream.number, wanted)
            stream.watched = wanted

    def pause(self, sock: socket.socket) -> None:
        """Do not attend to a socket until :meth:`resume`."""
        self._epoll.modify(sock, 0)
        self._paused.add(sock)

    def resume(self) -> None:
        """Attend to all sockets again."""
        for sock in self._paused:
            self._epoll.modify(sock, select.EPOLLIN)
        self._paused.clear()

    # The end

    def finish(self) -> None:
        """Wait for what is done aside; nothing more can be."""
        self._helpers.shutdown(wait=True)

    def close(self) -> None:
        """Let go of all sockets of peers, and of its own."""
        for stream in self._streams.values():
            stream.close()
        for end in (self._wake_end, self._waker):
            end.close()
        self._epoll.close()


def _told(what: Callable[[], Any]) -> None:
    """Call *what*, and tell of what it raises."""
    try:
        what()
    except Exception:
        log.exception("something asked for by another thread went wrong; this is a fault of mlipcluster")
