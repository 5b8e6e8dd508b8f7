"""How workers come to be: started on this machine, by a command, or by somebody else who has them join."""

from __future__ import annotations

import logging
import os
import secrets
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlipcluster.calculators.host import WorkerHost
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.errors import CalculatorError, InputError, MLIPClusterError, ServerGoneError
from mlipcluster.serving import address as addresses
from mlipcluster.serving.seats import HereSeat, JoinedSeat, Seat
from mlipcluster.serving.spawned import Spawned
from mlipcluster.serving.stream import Stream
from mlipcluster.socket_worker import wire

if TYPE_CHECKING:
    from mlipcluster.calculators.spawn import SpawnConfig
    from mlipcluster.serving.clients import Client
    from mlipcluster.serving.server import Server

log = logging.getLogger("mlipcluster")

#: How long a request waits for a worker that joined by itself before, and may be about to come back.
REJOIN_SECONDS = 10.0


class Starters:
    """Starts workers for a server, and takes in those that join. Used in the server's own thread alone.

    Parameters
    ----------
    server : Server
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._hosts: dict[int, WorkerHost] = {}
        self._spawned: dict[int, Spawned] = {}
        self._joined: dict[int, JoinedSeat] = {}  # by the client that looks after it
        self._awaited: dict[int, tuple[str, float]] = {}  # of a name that joined before, and until when
        self.tokens: dict[str, int] = {}  # of workers that are to join over TLS

    def start(self, worker: int, name: str) -> None:
        """Start a worker; the server hears of it, whatever comes of it."""
        known = self._server.offer.get(name)
        if known is None:
            self._awaited[worker] = name, self._server.now() + REJOIN_SECONDS
        elif known.command is not None:
            self._spawn(worker, known.command)
        elif known.spec is not None and self._server.nodes is not None:
            self._server.nodes.start(worker, name, known.spec)
        elif known.spec is not None:
            self._host(worker, name, known.spec)

    def tick(self, now: float) -> None:
        """Give up what has been awaited for too long."""
        for worker, (name, deadline) in list(self._awaited.items()):
            if now > deadline:
                del self._awaited[worker]
                words = (
                    f"no worker of {name!r} is here any more, and none came back within {REJOIN_SECONDS:.0f} s; start"
                    f" one: `mlipcluster worker … --name {name}`"
                )
                self._server.start_failed(worker, "CalculatorStartError", words)

    def cancel(self) -> None:
        """Give up all starts."""
        for host in self._hosts.values():
            host.kill()
        for spawned in self._spawned.values():
            spawned.kill()

    def close(self) -> None:
        """The server ends."""
        self.cancel()

    # On this machine

    def _host(self, worker: int, name: str, spec: CalculatorSpec) -> None:
        limit = self._server.options.start_timeout
        host = self._hosts[worker] = WorkerHost(spec.replace(startup_timeout=limit))
        self._server.aside(lambda: self._start_host(worker, name, host))

    def _start_host(self, worker: int, name: str, host: WorkerHost) -> None:
        """Takes its time, so aside."""
        try:
            host.start()
            seat = HereSeat(worker, name, host, self._server.options.max_request)
        except Exception as error:  # noqa: BLE001 - whoever waits for the worker has to hear of it
            host.kill()
            said = str(error) if isinstance(error, MLIPClusterError) else f"{type(error).__name__}: {error}"
            self._server.post(lambda: self._host_failed(worker, said))
            return
        self._server.post(lambda: self._host_ready(seat, host))

    def _host_failed(self, worker: int, said: str) -> None:
        self._hosts.pop(worker, None)
        self._server.start_failed(worker, "CalculatorStartError", said)

    def _host_ready(self, seat: HereSeat, host: WorkerHost) -> None:
        self._hosts.pop(seat.number, None)
        self._server.seat(seat, host.spec.call_timeout)

    # By a command

    def _spawn(self, worker: int, command: SpawnConfig) -> None:
        server, options = self._server, self._server.options
        try:
            spawned = Spawned(command, worker, server.address, options)
        except CalculatorError as error:
            server.start_failed(worker, "CalculatorStartError", str(error))
            return
        self._spawned[worker] = spawned
        spawned.watch(lambda said: server.post(lambda: self._spawn_ended(worker, said)))

    def _spawn_ended(self, worker: int, said: str) -> None:
        self._spawned.pop(worker, None)
        if worker not in self._server.seats:
            self._server.start_failed(worker, "CalculatorStartError", said)

    # By somebody else

    def join(self, client: Client, name: str, message: wire.Message) -> None:
        """Take in a worker.

        Raises
        ------
        InputError
            It cannot be reached, or may not join.
        """
        header, server = message.header, self._server
        told = header.get("provenance")
        if not isinstance(told, Mapping):
            raise InputError(f"'provenance' is {type(told).__name__}; give what the worker says of itself")
        is_far = isinstance(client.stream.socket, ssl.SSLSocket)
        number = self._expected(header) if is_far or header.get("worker") is not None else None
        stream = client.stream if is_far else self._connect(header.get("address"))
        if number is None:
            timeout = header.get("idle_timeout")
            limit = timeout if isinstance(timeout, (int, float)) else None
            number = server.dispatch.joined(server.now(), name, limit, self._awaited_as(name))
        seat = JoinedSeat(number, name, stream, dict(told), client.stream)
        pid = header.get("pid")
        seat.pid = pid if isinstance(pid, int) and not is_far else None
        seat.where = str(header.get("where") or seat.where)
        server.offer.joined[name] = server.offer.joined.get(name, 0) + 1
        if is_far:
            server.adopt(client, seat)
        else:
            self._joined[client.number] = seat
        client.stream.send([wire.encode({"kind": "joined", "worker": number}, request_id=message.id)])
        if number in self._spawned:
            self._spawned[number].joined = True
        limit = header.get("call_timeout")
        server.seat(seat, float(limit) if isinstance(limit, (int, float)) else None)

    def _awaited_as(self, name: str) -> int | None:
        """Number of a worker that requests wait for, and that somebody was to have join."""
        found = next((worker for worker, (awaited, _) in self._awaited.items() if awaited == name), None)
        if found is not None:
            del self._awaited[found]
        return found

    def _expected(self, header: Mapping[str, Any]) -> int:
        """Number of the worker that was to join."""
        worker, token = header.get("worker"), header.get("token")
        if isinstance(token, str):
            for known, number in self.tokens.items():
                if secrets.compare_digest(known.encode(), token.encode()):
                    return number
        elif isinstance(worker, int) and worker in self._spawned and worker not in self._server.seats:
            return worker
        raise InputError("no such worker was to join, or it comes too late; start it by hand, without a number")

    def _connect(self, address: Any) -> Stream:
        if not isinstance(address, str) or not os.path.isabs(address):
            raise InputError(f"'address' is {address!r:.80}; give the path of the worker's socket")
        try:
            return Stream(addresses.connect(address), self._server.options.max_request)
        except ServerGoneError as error:
            raise InputError(f"the worker's socket {address!r:.200} cannot be reached: {error.__cause__}") from error

    def left(self, client: Client, header: Mapping[str, Any]) -> None:
        """Whoever looks after a worker says that it has ended, or that it leaves."""
        seat = self._joined.get(client.number)
        if seat is not None:
            self.heard(seat, header)

    def heard(self, seat: Seat, header: Mapping[str, Any]) -> None:
        """A word about a worker that is no answer of it."""
        if not isinstance(seat, JoinedSeat):
            return
        memory = header.get("memory")
        if isinstance(memory, int):
            seat.memory = memory
        elif header.get("polite"):
            self._server.retire(seat)
        elif header.get("kind") == "left":
            seat.said(str(header.get("how", ""))[:8000])

    def lost_control(self, client: Client) -> None:
        """A client has gone; if it looked after a worker, that is lost."""
        if (seat := self._joined.pop(client.number, None)) is not None:
            seat.said("")
            self._server.lost(seat, EOFError())

    def forget(self, seat: Seat) -> None:
        """A worker's seat is empty."""
        if isinstance(seat, JoinedSeat):
            self._server.offer.joined[seat.name] -= 1
