"""The server: a loop over sockets that carries out what `mlipcluster.serving.dispatch` decides.

One thread reads and writes all sockets, and never waits for anything else; what takes time (starting workers, ending
them) is done by others, which hand their findings back through a queue.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import queue
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mlipcluster.errors import InputError, MLIPClusterError
from mlipcluster.serving import address as addresses
from mlipcluster.serving.clients import Client
from mlipcluster.serving.dispatch import Dispatch, End, Give, Instruction, Limits, Refuse, Start
from mlipcluster.serving.fair_queue import Request
from mlipcluster.serving.requests import HANDLERS, refusal
from mlipcluster.serving.seats import Seat
from mlipcluster.serving.starters import Starters
from mlipcluster.serving.stream import Stream
from mlipcluster.socket_worker import wire
from mlipcluster.socket_worker.client import is_own_user

if TYPE_CHECKING:
    from typing_extensions import Self

    from mlipcluster.serving.nodes import Nodes
    from mlipcluster.serving.offer import Offer

log = logging.getLogger("mlipcluster")

TICK_SECONDS = 0.1
NODES_SECONDS = 1.0
#: How long the end waits for what runs.
FINISH_SECONDS = 600.0
#: How long it waits after that for clients that do not take their answers.
HAND_OVER_SECONDS = 5.0
#: How long a connection over TLS may take until it is known whose it is, and how many such there may be.
HANDSHAKE_SECONDS = 10.0
MOST_STRANGERS = 100
MAX_REQUEST = 1 << 28


@dataclass(frozen=True)
class Options:
    """What a server is told.

    Attributes
    ----------
    max_workers : int
        At most so many workers at a time, of all calculators together.
    idle_timeout : float
        Seconds without work after which a worker ends.
    start_timeout : float
        Seconds until a start is given up.
    max_request : int
        Bytes that a structure's arrays may have together.
    """

    max_workers: int = 2
    idle_timeout: float = 300.0
    start_timeout: float = 60.0
    max_request: int = MAX_REQUEST


class Server:
    """Serves calculators until it is told to stop. A context manager, which runs it in a thread of its own.

    Parameters
    ----------
    offer : Offer
        What it serves.
    address : path, optional
        Of its Unix socket; see `mlipcluster.serving.address`.
    options : Options
    nodes : Nodes, optional
        Where workers run, if not on this machine.

    Raises
    ------
    InputError
        It cannot listen there.
    """

    def __init__(
        self,
        offer: Offer,
        address: str | os.PathLike[str] | None = None,
        options: Options | None = None,
        nodes: Nodes | None = None,
    ) -> None:
        self.offer = offer
        self.options = options or Options()
        limits = Limits(self.options.max_workers, self.options.idle_timeout)
        self.dispatch = Dispatch(limits, offer.is_left_to_others)
        self.clients: dict[int, Client] = {}
        self.seats: dict[int, Seat] = {}
        self.started = time.time()
        self.waits_for = ""
        self._looked = 0.0
        self._streams: dict[int, Stream] = {}
        self._paused: set[socket.socket] = set()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._epoll = select.epoll()
        self._wake_end, self._waker = socket.socketpair()
        self._deadline: float | None = None
        self._thread: threading.Thread | None = None
        self._helpers = ThreadPoolExecutor(32, thread_name_prefix="served workers")
        self.starters = Starters(self)
        self._listen(address)
        self.nodes = nodes
        if nodes is not None:
            try:
                nodes.open(self)
            except BaseException:
                self.nodes = None
                self._close()
                raise

    def _listen(self, address: str | os.PathLike[str] | None) -> None:
        told = addresses.parse(address)
        if not told.path:
            raise InputError(f"{told}: a server listens at a Unix socket as well; give the path of that as address")
        self.address = told.path
        self._made = not os.path.isdir(os.path.dirname(told.path))
        self.tls_addresses: list[str] = []
        self._listeners: list[socket.socket] = []
        self._listen_at(addresses.bind(told.path), None)
        self._identity = os.stat(told.path)
        self._wake_end.setblocking(False)
        self.watch(self._wake_end, self._woken)

    def listen_tls(self, host: str, port: int, context: ssl.SSLContext) -> str:
        """Listen for others than this machine's as well; before it runs. The address there, ``tls://HOST:PORT``.

        Parameters
        ----------
        host, port : str, int
            Port 0 takes a free one.
        context : ssl.SSLContext
            Whom it takes; see `mlipcluster.serving.credentials`.

        Raises
        ------
        InputError
            It cannot listen there.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, port), family=family, backlog=512)
        except OSError as error:
            raise InputError(
                f"tls://{host}:{port} cannot be listened at: {error.strerror or error}; give a host name or address of"
                " this machine, and a port that is free (0 takes one)"
            ) from error
        self._listen_at(listener, context)
        self.tls_addresses.append(str(addresses.Address(host=host, port=listener.getsockname()[1])))
        return self.tls_addresses[-1]

    def _listen_at(self, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        listener.setblocking(False)
        self._listeners.append(listener)
        self.watch(listener, partial(self._accept, listener, context))

    # Running it

    def run(self) -> None:
        """Serve until :meth:`stop`, then finish what runs; leaves no process, socket or folder behind."""
        ticks = 0.0
        try:
            while not self._is_over():
                for number, events in self._epoll.poll(TICK_SECONDS):
                    if (handler := self._handlers.get(number)) is not None:
                        handler(events)
                if (now := time.monotonic()) >= ticks:
                    ticks = now + TICK_SECONDS
                    self._carry_out(self.dispatch.tick(now))
                    self._look_at_clients(now)
                    self._look_at_nodes(now)
        finally:
            self._close()

    def _look_at_clients(self, now: float) -> None:
        """See that nobody keeps a place who does not say who it is."""
        for client in list(self.clients.values()):
            if not client.stream.is_ready and now - client.since > HANDSHAKE_SECONDS:
                self._drop(client)
        for listener in self._paused:
            self._epoll.modify(listener, select.EPOLLIN)
        self._paused.clear()

    def _look_at_nodes(self, now: float) -> None:
        if self.nodes is not None and now - self._looked >= NODES_SECONDS:
            self._looked = now
            self.waits_for = self.nodes.tick()

    def stop(self, *, now: bool = False) -> None:
        """Take no more work, finish what runs, then end; *now* does not wait for that. Any thread may call this."""
        self.post(lambda: self._stop(now=now))

    def _stop(self, *, now: bool) -> None:
        seconds = 0.0 if now else FINISH_SECONDS
        self._deadline = time.monotonic() + seconds
        self.starters.cancel()
        self._carry_out(self.dispatch.stop(time.monotonic()))

    def _is_over(self) -> bool:
        if self._deadline is None:
            return False
        if not self.dispatch.has_work:
            self._deadline = min(self._deadline, time.monotonic() + HAND_OVER_SECONDS)
            if not any(client.stream.unsent for client in self.clients.values()):
                return True
        return time.monotonic() >= self._deadline

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.run, name="server of calculators", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(now=True)
        if self._thread is not None:
            self._thread.join()

    def post(self, what: Callable[[], None]) -> None:
        """Have the server's own thread call *what*; any thread may ask for it."""
        self._posted.put(what)
        with contextlib.suppress(OSError):  # full, so it will wake anyway; or closed
            self._waker.send(b"!", socket.MSG_DONTWAIT)

    @staticmethod
    def now() -> float:
        """The clock that the state machine goes by, s."""
        return time.monotonic()

    def aside(self, what: Callable[[], Any]) -> None:
        """Have another thread call *what*, which takes its time."""
        self._helpers.submit(_told, what)

    def _woken(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_end.recv(4096)
        with contextlib.suppress(queue.Empty):
            while True:
                what = self._posted.get_nowait()
                try:
                    what()
                except Exception:
                    log.exception("a word from another thread could not be heeded; this is a fault of mlipcluster")

    def close(self) -> None:
        """Let go of everything; of a server that never ran."""
        self._close()

    def _close(self) -> None:
        for listener in self._listeners:
            listener.close()
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(self.address), self._identity):
                os.unlink(self.address)
            if self._made:
                os.rmdir(os.path.dirname(self.address))
        self.starters.close()
        for seat in list(self.seats.values()):
            if (worker := self.dispatch.workers.get(seat.number)) is None or worker.ours:
                self.end_seat(seat, at_once=True)  # the others wait for the next server
        self._helpers.shutdown(wait=True)
        if self.nodes is not None:
            self.nodes.close()
        for stream in self._streams.values():
            stream.close()
        for end in (self._wake_end, self._waker):
            end.close()
        self._epoll.close()

    # Sockets

    def watch(self, sock: socket.socket, handler: Callable[[int], None]) -> None:
        """Have *handler* called when something comes to a socket."""
        self._handlers[sock.fileno()] = handler
        self._epoll.register(sock, select.EPOLLIN)

    def watch_stream(self, stream: Stream, handler: Callable[[int], None]) -> None:
        """Have *handler* called when something comes from a peer, until `unwatch`."""
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

    def _accept(self, listener: socket.socket, context: ssl.SSLContext | None, _: int) -> None:
        for _ in range(64):
            try:
                sock, _ = listener.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):  # it would be told again at once, for ever
                    log.warning("no more clients can be taken for now: %s", error.strerror)
                    self._epoll.modify(listener, 0)
                    self._paused.add(listener)
                return
            try:
                self._meet(sock, context)
            except OSError as error:
                log.warning("a client could not be taken: %s", error)
                sock.close()

    def _meet(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        if context is None:
            if not is_own_user(sock):
                log.warning("another user's process was turned away")
                sock.close()
                return
        else:
            if sum(not client.stream.is_ready for client in self.clients.values()) >= MOST_STRANGERS:
                sock.close()
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            sock = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        client = Client(Stream(sock, self.options.max_request), time.monotonic())
        self.clients[client.number] = client
        self.watch_stream(client.stream, partial(self._attend, client))

    def _attend(self, client: Client, events: int) -> None:
        """Read what a client sent, and write what it takes; a bad frame ends its own connection and nothing else."""
        try:
            self._exchange(client, events)
        except wire.FrameError as error:
            log.warning("client %d sent what is no frame, and its connection ends: %s", client.number, error)
            with contextlib.suppress(OSError):
                client.stream.send([refusal("InputError", f"this is no frame of the wire: {error}", 0)])
            self._drop(client)
        except Exception as error:
            if not isinstance(error, (EOFError, OSError)):
                log.exception("client %d could not be attended to; this is a fault of mlipcluster", client.number)
            self._drop(client)
            if client.seat is not None:
                self.lost(client.seat, error)
        else:
            self._update(client)

    def _exchange(self, client: Client, events: int) -> None:
        if events & select.EPOLLOUT:
            client.stream.flush()
        if events & ~select.EPOLLOUT:
            for message in client.stream.receive():
                if client.seat is not None:
                    self.heard(client.seat, message)
                elif client.number in self.clients:
                    self._handle(client, message)
                else:
                    return  # gone meanwhile, and so is its stream

    def drop(self, number: int) -> None:
        """End a client's connection, if it is there."""
        if (client := self.clients.get(number)) is not None:
            self._drop(client)

    def _update(self, client: Client) -> None:
        if client.number in self.clients:
            self.set_events(client.stream, reading=client.reads)

    def _drop(self, client: Client) -> None:
        if self.clients.pop(client.number, None) is None:
            return
        self.dispatch.withdrawn(client.number)
        self.starters.lost_control(client)
        self.unwatch(client.stream)

    def _handle(self, client: Client, message: wire.Message) -> None:
        kind = message.header.get("kind")
        handler = HANDLERS.get(kind) if isinstance(kind, str) else None
        try:
            if handler is None:
                raise InputError(f"no request is called {kind!r:.80}; there are {', '.join(HANDLERS)}")
            handler(self, client, message)
        except MLIPClusterError as error:
            self.answer(client, [refusal(type(error).__name__, str(error), message.id)])

    def answer(self, client: Client, buffers: Iterable[Any]) -> None:
        """Send a client an answer."""
        try:
            client.stream.send(list(buffers))
        except OSError:
            self._drop(client)
            return
        if client.stream.unsent:
            self._update(client)

    # Requests and workers

    def ask(self, client: Client, request: Request) -> None:
        """Hand a client's request to the state machine."""
        client.pending += 1
        client.held += len(request.frame)
        self._carry_out(self.dispatch.request(time.monotonic(), request))

    def seat(self, seat: Seat, call_timeout: float | None = None) -> None:
        """A worker is there, and takes work from now on."""
        if seat.number not in self.dispatch.workers:  # it came too late
            self.end_seat(seat, at_once=True)
            return
        self.seats[seat.number] = seat
        if seat.stream.number not in self._handlers:
            self.watch_stream(seat.stream, partial(self._hear, seat))
        log.info("worker %d of %r is there (%s)", seat.number, seat.name, seat.where)
        self._carry_out(self.dispatch.ready(time.monotonic(), seat.number, call_timeout))

    def adopt(self, client: Client, seat: Seat) -> None:
        """What was a client is a worker from now on: its connection carries answers."""
        self.clients.pop(client.number, None)
        client.seat = seat
        self._handlers[client.stream.number] = partial(self._hear, seat)

    def start_failed(self, worker: int, error: str, message: str) -> None:
        """A worker could not be started."""
        if worker in self.dispatch.workers:
            log.warning("%s", message)
            self._carry_out(self.dispatch.start_failed(time.monotonic(), worker, error, message))

    def _hear(self, seat: Seat, events: int) -> None:
        """Read a worker's answer, and pass it on."""
        try:
            if events & select.EPOLLOUT:
                seat.stream.flush()
            if events & ~select.EPOLLOUT:
                for message in seat.stream.receive():
                    self.heard(seat, message)
        except Exception as error:
            if not isinstance(error, (EOFError, OSError, wire.FrameError)):
                log.exception("worker %d could not be attended to; this is a fault of mlipcluster", seat.number)
            self.lost(seat, error)
            return
        self.set_events(seat.stream)

    def heard(self, seat: Seat, message: wire.Message) -> None:
        """A worker sent something; what is not the answer to its last request is dropped."""
        if message.id == 0:
            self.starters.heard(seat, message.header)
            return
        request = seat.request
        if request is None or message.id != seat.id or self.seats.get(seat.number) is not seat:
            log.warning("worker %d of %r: a stale answer was dropped", seat.number, seat.name)
            return
        seat.request = None
        self._pass_on(request, message)
        self._carry_out(self.dispatch.answered(time.monotonic(), seat.number))
        if seat.ends:
            self.end_seat(seat, at_once=False)

    def _pass_on(self, request: Request, message: wire.Message) -> None:
        client = self.clients.get(request.client)
        if client is None or request.withdrawn:
            return
        client.spare = request.frame
        head = bytearray(message.frame[: wire.PREFIX.size])
        wire.set_id(head, request.id)
        self._answered(client, request, [head, message.frame[wire.PREFIX.size :]])

    def _answered(self, client: Client, request: Request, buffers: list[Any]) -> None:
        client.pending -= 1
        client.held -= len(request.frame)
        self.answer(client, buffers)
        self._update(client)

    def lost(self, seat: Seat, why: BaseException) -> None:
        """A worker's connection has ended."""
        self.unwatch(seat.stream)
        if self.seats.pop(seat.number, None) is None:
            return  # it was told to end
        self.starters.forget(seat)
        self.starters.expect(seat)
        seat.request = None
        if not isinstance(why, EOFError):
            log.warning("worker %d of %r: %s", seat.number, seat.name, why)
        self.aside(lambda: self._find_out(seat))

    def _find_out(self, seat: Seat) -> None:
        try:
            how = seat.how()
        except Exception as error:  # noqa: BLE001 - whatever it is, its request must not be lost with it
            how = f"nobody can tell what ({error!r})"
        self.post(lambda: self._died(seat, how))

    def _died(self, seat: Seat, how: str) -> None:
        self.starters.let_go(seat)
        if seat.number in self.dispatch.workers:
            log.warning("worker %d of %r ended with %s", seat.number, seat.name, how)
            self._carry_out(self.dispatch.died(time.monotonic(), seat.number, how))

    def end_seat(self, seat: Seat, *, at_once: bool) -> None:
        """End a worker, and tell the state machine when it is gone."""
        seat.ends, seat.request = True, None
        if self.seats.pop(seat.number, None) is not None:
            self.starters.forget(seat)
        if seat.is_heard_alone:
            self.unwatch(seat.stream)
        if seat.blocks:
            self.aside(lambda: self._end_aside(seat, at_once=at_once))
            return
        with contextlib.suppress(OSError):
            seat.end(at_once=at_once)
        self.gone(seat)

    def _end_aside(self, seat: Seat, *, at_once: bool) -> None:
        seat.end(at_once=at_once)
        self.post(lambda: self.gone(seat))

    def retire(self, seat: Seat) -> None:
        """A worker wants to leave: what it works on is finished."""
        if seat.number in self.dispatch.workers and not seat.ends:
            self._carry_out(self.dispatch.retired(time.monotonic(), seat.number))

    def vanished(self, worker: int) -> None:
        """A worker that was to come will not, and nobody is to blame: what waits for it asks for another."""
        self._carry_out(self.dispatch.gone(time.monotonic(), worker))

    def gone(self, seat: Seat) -> None:
        """A worker has ended that was told to, or that left of its own will."""
        log.info("worker %d of %r has ended", seat.number, seat.name)
        if seat.number in self.dispatch.workers:
            self._carry_out(self.dispatch.gone(time.monotonic(), seat.number))

    def _carry_out(self, instructions: Iterable[Instruction]) -> None:
        for one in instructions:
            if isinstance(one, Give):
                self._give(one)
            elif isinstance(one, Refuse):
                self._refuse(one)
            elif isinstance(one, Start):
                self.starters.start(one.worker, one.name)
            elif isinstance(one, End):
                self._end(one)

    def _give(self, one: Give) -> None:
        seat = self.seats.get(one.worker)
        if seat is None:
            return  # lost a moment ago; it is about to be told as dead
        try:
            seat.give(one.request)
        except OSError as error:
            self.lost(seat, error)
            return
        if seat.stream.unsent:
            self.set_events(seat.stream)

    def _refuse(self, one: Refuse) -> None:
        client = self.clients.get(one.request.client)
        if client is not None and not one.request.withdrawn:
            self._answered(client, one.request, [refusal(one.error, one.message, one.request.id)])

    def _end(self, one: End) -> None:
        seat = self.seats.get(one.worker)
        if seat is None:
            return
        if seat.request is not None and not one.at_once:
            seat.ends = True  # as soon as it has answered
        else:
            self.end_seat(seat, at_once=one.at_once)


def _told(what: Callable[[], Any]) -> None:
    """Call *what*, and tell of what it raises."""
    try:
        what()
    except Exception:
        log.exception("something aside went wrong; this is a fault of mlipcluster")
