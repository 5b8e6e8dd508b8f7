"""The clients of a server: each with its connection, what it has asked, and what it has not been told yet."""

from __future__ import annotations

import contextlib
import itertools
import logging
import select
import socket
import ssl
import time
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from mlipcluster.errors import InputError, MLIPClusterError
from mlipcluster.serving.fair_queue import Request
from mlipcluster.serving.requests import HANDLERS, refusal
from mlipcluster.serving.seats import Seat
from mlipcluster.serving.stream import Stream, prepare_far
from mlipcluster.socket_worker import wire
from mlipcluster.socket_worker.client import is_own_user

if TYPE_CHECKING:
    from mlipcluster.serving.server import Server

log = logging.getLogger("mlipcluster")

#: How long a connection over TLS may take until it is known whose it is, and how many such there may be.
HANDSHAKE_SECONDS = 10.0
MOST_STRANGERS = 100
#: Requests of one client that are taken before the first of them is answered.
MOST_PENDING = 64
#: Bytes of them, from which on no more are taken.
MOST_HELD = 1 << 28
_NUMBERS = itertools.count(1)


class Client:
    """A connected client.

    Attributes
    ----------
    number : int
        Its own; never used again.
    stream : Stream
    since : float
        When it came, monotonic s.
    held : int
        Bytes of its requests that are not answered yet.
    pending : int
        How many of its requests are not answered yet.
    spare : bytearray
        Memory of a request that was answered, for the next one: to get as much anew takes longer than to copy it.
    seat : Seat or None
        That of the worker that it has become.
    """

    def __init__(self, stream: Stream, since: float = 0.0) -> None:
        self.since = since
        self.held = 0
        self.number = next(_NUMBERS)
        self.stream = stream
        self.pending = 0
        self.spare = bytearray()
        self.seat: Seat | None = None

    def copied(self, frame: memoryview) -> bytearray:
        """A copy of a frame that it has sent."""
        kept, self.spare = self.spare, bytearray()
        if len(kept) != len(frame):
            return bytearray(frame)
        kept[:] = frame
        return kept

    @property
    def reads(self) -> bool:
        """Whether more is taken from it: not while it has enough to wait for, or takes no answers."""
        return self.pending < MOST_PENDING and self.held < MOST_HELD and not self.stream.unsent


class Clients:
    """The clients that a server has: who they are, what they ask, and what they are told.

    Parameters
    ----------
    server : Server
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = server.loop
        self._here: dict[int, Client] = {}

    def __len__(self) -> int:
        return len(self._here)

    def get(self, number: int) -> Client | None:
        """The client of that number, unless it has gone."""
        return self._here.get(number)

    @property
    def have_answers_to_take(self) -> bool:
        """Whether some have not taken all that they were sent."""
        return any(client.stream.unsent for client in self._here.values())

    def meet(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        """Take a connection, or turn it away.

        Raises
        ------
        OSError
            It is broken already.
        """
        if context is None:
            if not is_own_user(sock):
                log.warning("another user's process was turned away")
                sock.close()
                return
        else:
            strangers = [client for client in self._here.values() if not client.stream.is_ready]
            if len(strangers) >= MOST_STRANGERS:
                self.drop(strangers[0])  # who has not said who it is for longest makes room
            prepare_far(sock)
            sock.setblocking(False)
            sock = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        client = Client(Stream(sock, self._server.options.max_request), time.monotonic())
        self._here[client.number] = client
        self._loop.watch_stream(client.stream, partial(self._attend, client))

    def look(self, now: float) -> None:
        """See that nobody keeps a place who does not say who it is."""
        for client in list(self._here.values()):
            if not client.stream.is_ready and now - client.since > HANDSHAKE_SECONDS:
                self.drop(client)

    def answer(self, client: Client, buffers: Iterable[Any]) -> None:
        """Send a client something; nothing happens if it has gone."""
        if client.number not in self._here:
            return
        try:
            client.stream.send(list(buffers))
        except OSError:
            self.drop(client)
            return
        self._update(client)

    def answered(self, request: Request, buffers: Iterable[Any]) -> None:
        """Send the answer to a request, if somebody still waits for it."""
        client = self._here.get(request.client)
        if client is None or request.withdrawn:
            return
        client.spare = request.frame
        client.pending -= 1
        client.held -= len(request.frame)
        self.answer(client, buffers)

    def drop(self, client: Client) -> None:
        """End a client's connection."""
        if self._here.pop(client.number, None) is None:
            return
        self._server.dispatch.withdrawn(client.number)
        self._server.starters.lost_control(client)
        self._loop.unwatch(client.stream)

    def release(self, client: Client) -> None:
        """It is a client no more, but its connection stays."""
        self._here.pop(client.number, None)

    def _attend(self, client: Client, events: int) -> None:
        """Read what a client sent, and write what it takes; a bad frame ends its own connection and nothing else."""
        try:
            self._exchange(client, events)
        except Exception as error:
            if isinstance(error, wire.FrameError):
                log.warning("client %d sent what is no frame, and its connection ends: %s", client.number, error)
                with contextlib.suppress(OSError):
                    client.stream.send([refusal("InputError", f"this is no frame of the wire: {error}", 0)])
            elif not isinstance(error, (EOFError, OSError)):
                log.exception("client %d could not be attended to; this is a fault of mlipcluster", client.number)
            self.drop(client)
            if client.seat is not None:
                self._server.lost(client.seat, error)
        else:
            self._update(client)

    def _exchange(self, client: Client, events: int) -> None:
        if events & select.EPOLLOUT:
            client.stream.flush()
        if events & ~select.EPOLLOUT:
            for message in client.stream.receive():
                if client.seat is not None:  # it has become a worker over what it sent just before
                    self._server.heard(client.seat, message)
                elif client.number in self._here:
                    self._handle(client, message)
                else:
                    return  # gone meanwhile, and so is its stream

    def _handle(self, client: Client, message: wire.Message) -> None:
        kind = message.header.get("kind")
        handler = HANDLERS.get(kind) if isinstance(kind, str) else None
        try:
            if handler is None:
                raise InputError(f"no request is called {kind!r:.80}; there are {', '.join(HANDLERS)}")
            handler(self._server, client, message)
        except MLIPClusterError as error:
            self.answer(client, [refusal(type(error).__name__, str(error), message.id)])

    def _update(self, client: Client) -> None:
        if client.number in self._here:
            self._loop.set_events(client.stream, reading=client.reads)
