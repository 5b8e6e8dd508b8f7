"""How workers come to be: started on this machine, by a command, or by somebody else who has them join."""

from __future__ import annotations

import logging
import os
import secrets
import ssl
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlipcluster.calculators.host import WorkerHost
from mlipcluster.calculators.provenance import Provenance
from mlipcluster.calculators.spec import LONGEST_TIMEOUT, CalculatorSpec
from mlipcluster.errors import CalculatorError, InputError, MLIPClusterError, ServerGoneError
from mlipcluster.serving import address as addresses
from mlipcluster.serving.requests import LONGEST_NAME
from mlipcluster.serving.seats import HereSeat, JoinedSeat, Seat
from mlipcluster.serving.spawned import Spawned
from mlipcluster.serving.stream import Stream
from mlipcluster.socket_worker import wire

if TYPE_CHECKING:
    from mlipcluster.calculators.spawn import SpawnConfig
    from mlipcluster.serving.clients import Client
    from mlipcluster.serving.server import Server

log = logging.getLogger("mlipcluster")

CONNECT_SECONDS = 2.0
TOO_LATE = "no such worker was to join, or it comes too late; start it by hand, without a number"


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
        self.tokens: dict[str, int] = {}  # of workers that are to join over TLS
        self._is_closed = False

    def start(self, worker: int, name: str) -> None:
        """Start a worker; the server hears of it, whatever comes of it."""
        known = self._server.offer.get(name)
        if known is None:
            words = f"no worker of {name!r} is here; it joined by hand before: `mlipcluster worker … --name {name}`"
            self._server.start_failed(worker, "CalculatorStartError", words)
        elif known.command is not None:
            self._spawn(worker, known.command)
        elif known.spec is not None and self._server.nodes is not None:
            self._server.nodes.start(worker, name, known.spec)
        elif known.spec is not None:
            self._host(worker, name, known.spec)

    def cancel(self) -> None:
        """Give up all starts."""
        for host in self._hosts.values():
            host.cancel()
        for spawned in self._spawned.values():
            if not spawned.joined:
                spawned.kill()

    def close(self) -> None:
        """The server ends."""
        self._is_closed = True
        self.cancel()
        for spawned in self._spawned.values():
            spawned.kill()

    # On this machine

    def _host(self, worker: int, name: str, spec: CalculatorSpec) -> None:
        limit = self._server.options.start_timeout
        host = self._hosts[worker] = WorkerHost(spec.replace(startup_timeout=limit))
        self._server.loop.aside(lambda: self._start_host(worker, name, host))

    def _start_host(self, worker: int, name: str, host: WorkerHost) -> None:
        """Takes its time, so aside."""
        try:
            host.start()
            if self._is_closed:
                raise CalculatorError("the server ends")
            seat = HereSeat(worker, name, host)
        except Exception as error:  # noqa: BLE001 - whoever waits for the worker has to hear of it
            host.kill()
            said = str(error) if isinstance(error, MLIPClusterError) else f"{type(error).__name__}: {error}"
            self._server.loop.post(lambda: self._host_failed(worker, said))
            return
        self._server.loop.post(lambda: self._host_ready(seat, host))

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
        spawned.watch(lambda said: server.loop.post(lambda: self._spawn_ended(worker, said)))

    def _spawn_ended(self, worker: int, said: str) -> None:
        spawned = self._spawned.pop(worker, None)
        if spawned is None or not spawned.joined:  # otherwise its connection tells how it went
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
        told = _provenance(header.get("provenance"))
        if client.number in self._joined:
            raise InputError("this connection looks after a worker already; make one for each")
        is_far = isinstance(client.stream.socket, ssl.SSLSocket)
        is_expected = is_far or header.get("worker") is not None
        number = self._expected(header, name, is_far=is_far) if is_expected else None
        stream = client.stream if is_far else self._connect(header.get("address"))
        timeout = _seconds(header.get("idle_timeout"))
        if number is None:
            number = server.dispatch.joined(time.monotonic(), name, timeout)
        elif timeout is not None or (timeout := self._own_timeout(name)) is not None:
            server.dispatch.workers[number].idle_timeout = timeout
        seat = JoinedSeat(number, name, stream, told, client.stream)
        pid = header.get("pid")
        seat.pid = pid if isinstance(pid, int) and pid > 0 and not is_far else None
        seat.where = str(header.get("where") or seat.where)[:LONGEST_NAME]
        server.offer.joined[name] = server.offer.joined.get(name, 0) + 1
        server.offer.awaited.pop(name, None)
        keys = header.get("info_keys", CalculatorSpec.info_keys)
        server.offer.info_keys[name] = [str(key) for key in (keys if isinstance(keys, (list, tuple)) else ())]
        if is_far:
            server.adopt(client, seat)
            if server.nodes is not None:
                server.nodes.arrived(name)
        else:
            self._joined[client.number] = seat
        try:
            client.stream.send([wire.encode({"kind": "joined", "worker": number}, request_id=message.id)])
        except OSError:
            self.forget(seat)
            server.vanished(number)
            raise
        if number in self._spawned:
            self._spawned[number].joined = True
        server.seat(seat, _seconds(header.get("call_timeout")))

    def _own_timeout(self, name: str) -> float | None:
        """What a spawn configuration says of its worker's idleness."""
        known = self._server.offer.get(name)
        return None if known is None or known.command is None else known.command.idle_timeout

    def _expected(self, header: Mapping[str, Any], name: str, *, is_far: bool) -> int:
        """Number of the worker that was to join: over TLS it has to know a secret, its number alone is none."""
        number = self._numbered({**header, "worker": None} if is_far else header)
        if not self._server.dispatch.is_starting(number):
            raise InputError(TOO_LATE)
        expected = self._server.dispatch.workers[number]
        if expected.name != name:
            raise InputError(f"a worker of {expected.name!r:.200} was to join, not of {name!r}; name it so")
        return number

    def _numbered(self, header: Mapping[str, Any]) -> int:
        worker, token = header.get("worker"), header.get("token")
        if isinstance(token, str):
            for known, number in self.tokens.items():
                if secrets.compare_digest(known.encode(), token.encode()):
                    return number
        elif isinstance(worker, int) and worker in self._spawned:
            return worker
        raise InputError(TOO_LATE)

    def _connect(self, address: Any) -> Stream:
        if not isinstance(address, str) or not os.path.isabs(address):
            raise InputError(f"'address' is {address!r:.80}; give the path of the worker's socket")
        try:
            return Stream(addresses.connect(address, timeout=CONNECT_SECONDS))
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
            if not seat.words:
                self._server.offer.awaited.pop(seat.name, None)  # nobody is there to start it again
            seat.said("")
            self._server.lost(seat, EOFError())

    def forget(self, seat: Seat) -> None:
        """A worker's seat is empty."""
        if isinstance(seat, JoinedSeat):
            self._server.offer.joined[seat.name] -= 1

    def expect(self, seat: Seat) -> None:
        """A worker is lost; if whoever looks after it is still there, it will be back."""
        if isinstance(seat, JoinedSeat) and seat in self._joined.values() and seat.number not in self._spawned:
            self._server.offer.awaited[seat.name] = time.monotonic() + self._server.options.start_timeout

    def let_go(self, seat: Seat) -> None:
        """A worker is lost for good: whoever looks after it has it join anew."""
        for number, joined in list(self._joined.items()):
            if joined is seat and (client := self._server.clients.get(number)) is not None:
                self._server.clients.drop(client)


def _seconds(told: Any) -> float | None:
    is_number = isinstance(told, (int, float)) and not isinstance(told, bool)
    return float(told) if is_number and 0 < told < LONGEST_TIMEOUT else None


def _provenance(told: Any) -> dict[str, Any]:
    try:
        return Provenance.from_json(told).to_json()
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"'provenance' is not what a worker says of itself ({error}); send that") from error
