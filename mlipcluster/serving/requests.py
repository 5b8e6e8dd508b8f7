"""What clients may ask of the server. Nothing that stops it, and nothing that is unpickled.

``open`` (is it served, and which entries of info does it read), ``calculate`` and ``provenance`` (handed on to a
worker), ``list``, ``status``; and of whoever looks after a worker: ``join`` and ``left``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mlipcluster.errors import InputError
from mlipcluster.serving import status
from mlipcluster.serving.fair_queue import Request
from mlipcluster.socket_worker import wire

if TYPE_CHECKING:
    from mlipcluster.serving.clients import Client
    from mlipcluster.serving.server import Server

LONGEST_NAME = 500


def refusal(error: str, message: str, request_id: int) -> bytes:
    """The answer to what the server itself refuses: the name of a class of `mlipcluster.errors`, and the message."""
    return wire.encode({"kind": "refused", "error": error, "message": message[: 1 << 16]}, request_id=request_id)


class Looks:
    """Tells what runs. Looking at processes takes time, so that is done aside, and once for all who wait by then.

    Parameters
    ----------
    server : Server
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._waiting: list[tuple[Client, int]] = []
        self._is_looking = False

    def ask(self, client: Client, request_id: int) -> None:
        """A client asks; it is answered as soon as somebody has looked."""
        self._waiting.append((client, request_id))
        if not self._is_looking:
            self._look()

    def _look(self) -> None:
        self._is_looking = True
        asked, self._waiting = self._waiting, []
        seen = status.seen(self._server)

        def look() -> None:
            try:
                answer = wire.encode({"kind": "status", **status.measured(seen)})
            except Exception as error:  # noqa: BLE001 - whoever waits has to hear of it
                answer = refusal("CalculatorError", f"the state cannot be told: {error!r}", 0)
            self._server.loop.post(lambda: self._tell(asked, bytearray(answer)))

        self._server.loop.aside(look)

    def _tell(self, asked: list[tuple[Client, int]], answer: bytearray) -> None:
        for client, request_id in asked:
            wire.set_id(answer, request_id)
            self._server.clients.answer(client, [answer])
        self._is_looking = False
        if self._waiting:
            self._look()


def named(message: wire.Message) -> str:
    """The calculator that a message names.

    Raises
    ------
    InputError
        It names none.
    """
    name = message.header.get("calculator")
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
        raise InputError(f"'calculator' is {name!r:.80}; give the name of one, of at most {LONGEST_NAME} characters")
    return name


def _open(server: Server, client: Client, message: wire.Message) -> None:
    name = named(message)
    server.offer.check(name)
    told = {"kind": "opened", "info_keys": server.offer.info_keys_of(name), "max_request": server.options.max_request}
    server.clients.answer(client, [wire.encode(told, request_id=message.id)])


def _hand_on(server: Server, client: Client, message: wire.Message) -> None:
    name = named(message)
    server.offer.check(name)
    is_calculation = message.header["kind"] == "calculate"
    if is_calculation and not message.header.get("whole"):
        raise InputError("a served calculator is told the whole structure each time; say whole: true")
    frame = client.copied(message.frame)
    server.ask(client, Request(client.number, message.id, name, frame, time.monotonic(), is_calculation))


def _list(server: Server, client: Client, message: wire.Message) -> None:
    server.clients.answer(client, [wire.encode({"kind": "list", **status.listed(server)}, request_id=message.id)])


def _status(server: Server, client: Client, message: wire.Message) -> None:
    server.looks.ask(client, message.id)


def _join(server: Server, client: Client, message: wire.Message) -> None:
    server.starters.join(client, named(message), message)


def _left(server: Server, client: Client, message: wire.Message) -> None:
    server.starters.left(client, message.header)


Handler = Callable[["Server", "Client", wire.Message], Any]
HANDLERS: dict[str, Handler] = {
    "open": _open,
    "calculate": _hand_on,
    "provenance": _hand_on,
    "list": _list,
    "status": _status,
    "join": _join,
    "left": _left,
}
