"""The worker's loop: several connections, one calculator, everything in the main thread.

Requests, by ``header["kind"]``: ``configure`` (the spec; once a process), ``prepare`` (defined state, seed),
``calculate``, ``provenance``, ``stop``. Answers: ``ready``, ``done``, ``results``, ``provenance``, ``error``. An
exception of the calculator is an answer; a client that sends bad frames or does not read loses its own connection only.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import socket
import sys
from collections.abc import Mapping
from typing import Any, Union

from .calculation import Calculation
from .client import Client, is_own_user
from .errors import describe_error
from .provenance import describe
from .results import Packed, pack
from .structure import ASE_CHANGES
from .weights import WeightsWatch
from .wire import FrameError, Message, body, encode, set_id

KEPT_HEADS = 100
Answer = Union[dict[str, Any], Packed]


def serve(listener: int) -> None:
    """Serve the listening socket *listener* until a client says ``stop``."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    Server(socket.socket(fileno=listener)).run()


class Server:
    """The loop.

    Parameters
    ----------
    listener : socket.socket
        Listening stream socket.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._poll = select.poll()
        self._clients: dict[int, Client] = {}
        self._calculation: Calculation | None = None
        self._watch = WeightsWatch((os.path.dirname(str(listener.getsockname())),))
        self._last: Client | None = None  # whose structure the calculator knows
        self._heads: dict[Any, bytearray] = {}
        self._stopping = False

    def run(self) -> None:
        """Serve until a client says ``stop``."""
        self._listener.setblocking(False)
        self._poll.register(self._listener, select.POLLIN)
        while not self._stopping:
            for fd, events in self._poll.poll():
                client = self._clients.get(fd)
                if client is None:
                    self._accept()
                else:
                    self._attend(client, events)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        if not is_own_user(sock):
            sock.close()
            return
        self._clients[sock.fileno()] = Client(sock)
        self._poll.register(sock, select.POLLIN)

    def _attend(self, client: Client, events: int) -> None:
        try:
            was_waiting = client.is_waiting
            if was_waiting and events & select.POLLOUT:
                client.flush()
            elif not client.read():
                self._drop(client)
                return
            # A client that does not read its answers gets no further work done until it does.
            while not client.is_waiting and (message := client.decoder.next()) is not None:
                self._answer(client, message)
            if client.is_waiting != was_waiting:
                self._poll.modify(client.socket, select.POLLOUT if client.is_waiting else select.POLLIN)
        except FrameError as error:
            with contextlib.suppress(OSError):
                client.send([encode(describe_error(error))])
            self._drop(client)
        except OSError:
            self._drop(client)

    def _drop(self, client: Client) -> None:
        if self._last is client:
            self._last = None
        del self._clients[client.socket.fileno()]
        self._poll.unregister(client.socket)
        client.socket.close()

    def _answer(self, client: Client, message: Message) -> None:
        try:
            buffers = self._frame(self._handle(client, message), message.id)
        except BaseException as error:  # noqa: BLE001 - sys.exit in a calculator is its caller's to know
            buffers = [encode(describe_error(error), request_id=message.id)]
        client.send(buffers)

    def _frame(self, answer: Answer, request_id: int) -> list[Any]:
        if not isinstance(answer, Packed):
            return [encode(answer, request_id=request_id)]
        head = self._head(answer)
        set_id(head, request_id)
        return [head, *body(answer.arrays)]

    def _handle(self, client: Client, message: Message) -> Answer:
        kind = message.header.get("kind")
        calculation = self._calculation
        if kind == "stop":
            self._stopping = True
            return {"kind": "done"}
        if kind == "configure":
            return self._configure(message.header["spec"])
        if calculation is None:
            raise RuntimeError("this worker was not configured yet")
        if kind == "calculate":
            return self._calculate(calculation, client, message)
        if kind == "prepare":
            self._last = None
            if calculation.rebuilds:
                self._watch_named(calculation.spec)
            calculation.prepare(message.header.get("seed"))
            return {"kind": "done"}
        if kind == "provenance":
            return {"kind": "provenance", "provenance": describe(calculation, self._watch)}
        raise ValueError(f"no request is called {kind!r}")

    def _configure(self, spec: Mapping[str, Any]) -> Answer:
        if self._calculation is not None:
            raise RuntimeError("this worker is configured already")
        self._watch.install()
        self._watch_named(spec)
        self._calculation = Calculation(spec)
        gc.freeze()  # a model's many objects stay: no collection within a call needs to look at them
        return {"kind": "ready", "provenance": describe(self._calculation, self._watch)}

    def _watch_named(self, spec: Mapping[str, Any]) -> None:
        """Count the files that the arguments name, as they are now: compiled code may read them unseen."""
        for path in _files_named_in([spec.get("args"), spec.get("kwargs")]):
            self._watch.add(path)

    def _calculate(self, calculation: Calculation, client: Client, message: Message) -> Answer:
        atoms, changes = client.structure.update(message.header, message.arrays)
        if self._last is not client:
            changes = list(ASE_CHANGES)
        self._last = None
        packed = pack(calculation.results(atoms, message.header["properties"], changes))
        self._last = client
        return packed

    def _head(self, packed: Packed) -> bytearray:
        """The frame's head, kept for the next answer like it."""
        layout = packed.layout()
        if layout is None:
            return packed.head()
        if layout not in self._heads:
            if len(self._heads) >= KEPT_HEADS:
                self._heads.clear()
            self._heads[layout] = packed.head()
        return self._heads[layout]


def _files_named_in(value: Any) -> list[str]:
    if isinstance(value, str):
        path = os.path.expanduser(value)
        return [path] if os.path.isfile(path) else []
    values = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [path for item in values for path in _files_named_in(item)]
