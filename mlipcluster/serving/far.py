"""What a Dask worker runs to host a served calculator: it starts it, joins the server over TLS, and hands frames on.

It is one call of Dask's for as long as the calculator stays; requests and answers go over the stream alone.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Mapping
from typing import Any

from distributed import get_worker

from mlipcluster.calculators.connection import Connection, ConnectionLostError
from mlipcluster.calculators.host import WorkerHost
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.deploy.ending import remaining
from mlipcluster.serving import address as addresses
from mlipcluster.serving.credentials import worker_context
from mlipcluster.serving.dial import HELLO_SECONDS, dial
from mlipcluster.serving.link import checked
from mlipcluster.serving.status import memory_of
from mlipcluster.socket_worker import wire

LOOK_SECONDS = 0.5
MEMORY_EVERY = 10.0
#: Before the job's end: from then on it takes no more requests.
LEAVE_SECONDS = 20.0


def host_calculator(spec: Mapping[str, Any], name: str, address: str, token: str) -> str:
    """Host a calculator until the server has it end.

    Parameters
    ----------
    spec : mapping
        Of a `CalculatorSpec`.
    name : str
        Under which it is served.
    address : str
        The server's, ``tls://HOST:PORT``.
    token : str
        What the server knows it by.

    Returns
    -------
    str
        Why it ended, for the log.

    Raises
    ------
    CalculatorStartError
        The calculator cannot be started.
    ServerGoneError
        The server cannot be reached from here.
    """
    context = worker_context(get_worker().security)
    with WorkerHost(CalculatorSpec.from_json(spec)) as host:
        server = dial(addresses.parse(address), context)
        try:
            _join(server, host, name, token)
            return _hand_on(server, host)
        finally:
            server.close()


def _join(server: Connection, host: WorkerHost, name: str, token: str) -> None:
    asked = {
        "kind": "join",
        "calculator": name,
        "token": token,
        "where": os.uname().nodename,
        "call_timeout": host.spec.call_timeout,
        "info_keys": list(host.spec.info_keys),
        "provenance": host.start().to_json(),
    }
    checked(server.request(asked, timeout=HELLO_SECONDS), name)


def _hand_on(server: Connection, host: WorkerHost) -> str:
    """Hand requests on, and answers back, until one of the two ends, or this job is about to."""
    worker = host.connect()
    worker.socket.setblocking(True)
    server.socket.settimeout(HELLO_SECONDS)
    poll, told, leaves = select.poll(), 0.0, False
    requests, answers = wire.Decoder(views=False), wire.Decoder(views=False)
    for connection in (server, worker):
        poll.register(connection.socket, select.POLLIN)
    try:
        while True:
            ready = {number for number, _ in poll.poll(1000 * LOOK_SECONDS)}
            if worker.socket.fileno() in ready and not _answers(worker, server, answers):
                _say(server, {"kind": "left", "how": host.how_it_ended()})
                return "its process ended"
            if server.socket.fileno() in ready and (end := _requests(server, worker, requests)):
                return end
            if not leaves and remaining() < LEAVE_SECONDS:
                leaves = True
                _say(server, {"kind": "left", "polite": True})
            if time.monotonic() - told > MEMORY_EVERY:
                told = time.monotonic()
                _say(server, {"kind": "memory", "memory": memory_of(host.pid) if host.pid else None})
    except (OSError, ConnectionLostError) as error:
        return f"the server was lost ({error})"
    finally:
        worker.close()


def _answers(worker: Connection, server: Connection, decoder: wire.Decoder) -> bool:
    """Hand on what the worker says, in whole frames, for others go between them; whether it is still there."""
    with contextlib.suppress(ConnectionError, wire.FrameError):
        count = worker.socket.recv_into(decoder.space())
        decoder.received(count)
        while (message := decoder.next()) is not None:
            server.socket.sendall(message.frame)
        return count > 0
    return False


def _requests(server: Connection, worker: Connection, decoder: wire.Decoder) -> str:
    """Hand on what the server says; why it is the end, if it is. What TLS has read already, poll does not tell of."""
    while True:
        count = server.socket.recv_into(decoder.space())
        if not count:
            return "the server has gone"
        decoder.received(count)
        while (message := decoder.next()) is not None:
            if message.header.get("kind") == "end":
                return "the server ended it"
            if message.id:
                worker.socket.sendall(message.frame)
        if not server.socket.pending():  # type: ignore[attr-defined]
            return ""


def _say(server: Connection, header: Mapping[str, Any]) -> None:
    server.socket.sendall(wire.encode(header))
