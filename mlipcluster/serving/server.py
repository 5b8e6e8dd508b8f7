"""The server: it carries out what `mlipcluster.serving.dispatch` decides, between clients and workers."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from mlipcluster.serving.clients import Client, Clients
from mlipcluster.serving.dispatch import Dispatch, End, Give, Instruction, Limits, Refuse, Start
from mlipcluster.serving.fair_queue import Request
from mlipcluster.serving.listeners import Listeners
from mlipcluster.serving.loop import Loop
from mlipcluster.serving.requests import Looks, refusal
from mlipcluster.serving.seats import Seat
from mlipcluster.serving.starters import Starters
from mlipcluster.socket_worker import wire

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
        self.loop = Loop()
        self.clients = Clients(self)
        self.looks = Looks(self)
        self.seats: dict[int, Seat] = {}
        self.starters = Starters(self)
        self.started = time.time()
        self.waits_for = ""
        self.nodes: Nodes | None = None
        self._looked = 0.0
        self._deadline: float | None = None
        self._thread: threading.Thread | None = None
        try:
            self.listeners = Listeners(self.loop, address, self.clients.meet)
        except BaseException:
            self.loop.close()
            raise
        if nodes is not None:
            try:
                nodes.open(self)
            except BaseException:
                self.close()
                raise
            self.nodes = nodes

    @property
    def address(self) -> str:
        """Path of its Unix socket."""
        return self.listeners.path

    # Running it

    def run(self) -> None:
        """Serve until :meth:`stop`, then finish what runs; leaves no process, socket or folder behind."""
        ticks = 0.0
        try:
            while not self._is_over():
                self.loop.wait(TICK_SECONDS)
                if (now := time.monotonic()) >= ticks:
                    ticks = now + TICK_SECONDS
                    self._carry_out(self.dispatch.tick(now))
                    self.clients.look(now)
                    self.loop.resume()
                    self._look_at_nodes(now)
        finally:
            self.close()

    def _look_at_nodes(self, now: float) -> None:
        if self.nodes is not None and now - self._looked >= NODES_SECONDS:
            self._looked = now
            self.waits_for = self.nodes.tick()

    def stop(self, *, now: bool = False) -> None:
        """Take no more work, finish what runs, then end; *now* does not wait for that. Any thread may call this."""
        self.loop.post(lambda: self._stop(now=now))

    def _stop(self, *, now: bool) -> None:
        seconds = 0.0 if now else FINISH_SECONDS
        self._deadline = time.monotonic() + seconds
        self._carry_out(self.dispatch.stop(time.monotonic()))
        self.starters.cancel()
        if self.nodes is not None:
            self.nodes.cancel()

    def _is_over(self) -> bool:
        if self._deadline is None:
            return False
        if not self.dispatch.has_work:
            self._deadline = min(self._deadline, time.monotonic() + HAND_OVER_SECONDS)
            if not self.clients.have_answers_to_take:
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

    def close(self) -> None:
        """End what it started, and let go of everything; one that runs does so by itself."""
        self.listeners.close()
        self.starters.close()
        for seat in list(self.seats.values()):
            if (worker := self.dispatch.workers.get(seat.number)) is None or worker.ours:
                self.end_seat(seat, at_once=True)  # the others wait for the next server
        self.loop.finish()
        if self.nodes is not None:
            self.nodes.close()
        self.loop.close()

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
        self.loop.watch_stream(seat.stream, partial(self._hear, seat))
        log.info("worker %d of %r is there (%s)", seat.number, seat.name, seat.where)
        self._carry_out(self.dispatch.ready(time.monotonic(), seat.number, call_timeout))

    def adopt(self, client: Client, seat: Seat) -> None:
        """What was a client is a worker from now on: its connection carries answers."""
        self.clients.release(client)
        client.stream.trust()  # an answer may be larger than a request
        client.seat = seat

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
        self.loop.set_events(seat.stream)

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
        head = bytearray(message.frame[: wire.PREFIX.size])
        wire.set_id(head, request.id)
        self.clients.answered(request, [head, message.frame[wire.PREFIX.size :]])

    def lost(self, seat: Seat, why: BaseException) -> None:
        """A worker's connection has ended."""
        self.loop.unwatch(seat.stream)
        if self.seats.pop(seat.number, None) is None:
            return  # it was told to end
        self.starters.forget(seat)
        self.starters.expect(seat)
        seat.request = None
        if not isinstance(why, EOFError):
            log.warning("worker %d of %r: %s", seat.number, seat.name, why)
        self.loop.aside(lambda: self._find_out(seat))

    def _find_out(self, seat: Seat) -> None:
        try:
            how = seat.how()
        except Exception as error:  # noqa: BLE001 - whatever it is, its request must not be lost with it
            how = f"nobody can tell what ({error!r})"
        self.loop.post(lambda: self._died(seat, how))

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
            self.loop.unwatch(seat.stream)
        if seat.blocks:
            self.loop.aside(lambda: self._end_aside(seat, at_once=at_once))
            return
        with contextlib.suppress(OSError):
            seat.end(at_once=at_once)
        self.gone(seat)

    def _end_aside(self, seat: Seat, *, at_once: bool) -> None:
        seat.end(at_once=at_once)
        self.loop.post(lambda: self.gone(seat))

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
            self.loop.set_events(seat.stream)

    def _refuse(self, one: Refuse) -> None:
        self.clients.answered(one.request, [refusal(one.error, one.message, one.request.id)])

    def _end(self, one: End) -> None:
        seat = self.seats.get(one.worker)
        if seat is None:
            return
        if seat.request is not None and not one.at_once:
            seat.ends = True  # as soon as it has answered
        else:
            self.end_seat(seat, at_once=one.at_once)
