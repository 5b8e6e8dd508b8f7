"""The worker's loop: several connections, one calculator, everything in the main thread.

Requests, by ``header["kind"]``: ``configure`` (the spec; once a process), ``prepare`` (defined state, seed),
``calculate``, ``provenance``, ``stop``. Answers: ``ready``, ``done``, ``results``, ``provenance``, ``error``. An exception
of the calculator is an answer; a client that sends no frames or does not read loses its own connection only.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import sys
import traceback
from collections.abc import Iterable, Mapping
from typing import Any, Union

from .calculation import Calculation
from .provenance import describe
from .results import Packed, pack
from .structure import ASE_CHANGES, Structure
from .weights import WeightsWatch
from .wire import Decoder, FrameError, Message, body, encode, head, set_id

MAX_TEXT = 1 << 16
Answer = Union[dict[str, Any], Packed]


def serve(listener: int) -> None:
    """Serve the listening socket *listener* until a client says ``stop``."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    server = _Server(socket.socket(fileno=listener))
    server.run()


class _Connection:
    """One client: its socket, its structure, and what it has not yet read."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.decoder = Decoder()
        self.structure = Structure()
        self.unsent: list[memoryview] = []

    def read(self) -> bool:
        """Take what has come; False when the client has gone."""
        try:
            count = self.socket.recv_into(self.decoder.space())
        except (BlockingIOError, InterruptedError):
            return True
        self.decoder.received(count)
        return count > 0

    def send(self, buffers: Iterable[Any]) -> None:
        """Send now what the client takes now, and keep a copy of the rest."""
        parts = [memoryview(buffer).cast("B") for buffer in buffers]
        try:
            sent = self.socket.sendmsg(parts)
        except (BlockingIOError, InterruptedError):
            sent = 0
        rest = b"".join(_after(parts, sent))
        if rest:
            self.unsent.append(memoryview(rest))

    def flush(self) -> None:
        """Send more of the rest."""
        while self.unsent:
            try:
                sent = self.socket.send(self.unsent[0])
            except (BlockingIOError, InterruptedError):
                return
            self.unsent[0] = self.unsent[0][sent:]
            if not len(self.unsent[0]):
                del self.unsent[0]


class _Server:
    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._calculation: Calculation | None = None
        self._watch = WeightsWatch((os.path.dirname(str(listener.getsockname())),))
        self._last: _Connection | None = None  # whose structure the calculator knows
        self._heads: dict[Any, bytearray] = {}
        self._stopping = False

    def run(self) -> None:
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        while not self._stopping:
            for key, events in self._selector.select():
                if key.data is None:
                    self._accept()
                else:
                    self._attend(key.data, events)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        if _is_own_user(sock):
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ, _Connection(sock))
        else:
            sock.close()

    def _attend(self, connection: _Connection, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                connection.flush()
            elif not connection.read():
                self._drop(connection)
                return
            # A client that does not read its answers gets no further work done until it does.
            while not connection.unsent and (message := connection.decoder.next()) is not None:
                self._answer(connection, message)
            wanted = selectors.EVENT_WRITE if connection.unsent else selectors.EVENT_READ
            if self._selector.get_key(connection.socket).events != wanted:
                self._selector.modify(connection.socket, wanted, connection)
        except FrameError as error:
            self._last_word(connection, error)
            self._drop(connection)
        except OSError:
            self._drop(connection)

    def _answer(self, connection: _Connection, message: Message) -> None:
        try:
            answer = self._handle(connection, message)
        except BaseException as error:
            answer = _describe_error(error)
        if isinstance(answer, Packed):
            frame_head = self._head(answer)
            set_id(frame_head, message.id)
            connection.send([frame_head, *body(answer.arrays)])
        else:
            connection.send([encode(answer, request_id=message.id)])

    def _handle(self, connection: _Connection, message: Message) -> Answer:
        kind = message.header.get("kind")
        if kind == "stop":
            self._stopping = True
            return {"kind": "done"}
        if kind == "configure":
            return self._configure(message.header["spec"])
        if self._calculation is None:
            raise RuntimeError("this worker was not configured yet")
        if kind == "calculate":
            return self._calculate(self._calculation, connection, message)
        if kind == "prepare":
            self._last = None
            self._calculation.prepare(message.header.get("seed"))
            return {"kind": "done"}
        if kind == "provenance":
            return {"kind": "provenance", "provenance": describe(self._calculation, self._watch)}
        raise ValueError(f"no request is called {kind!r}")

    def _configure(self, spec: Mapping[str, Any]) -> Answer:
        if self._calculation is not None:
            raise RuntimeError("this worker is configured already")
        self._watch.install()
        for path in _files_named_in([spec.get("args"), spec.get("kwargs")]):
            self._watch.add(path)
        self._calculation = Calculation(spec)
        return {"kind": "ready", "pid": os.getpid(), "provenance": describe(self._calculation, self._watch)}

    def _calculate(self, calculation: Calculation, connection: _Connection, message: Message) -> Answer:
        changes = connection.structure.update(message.header, message.arrays)
        if self._last is not connection:
            changes = list(ASE_CHANGES)
        self._last = None
        atoms = connection.structure.atoms
        assert atoms is not None
        packed = pack(calculation.results(atoms, message.header["properties"], changes))
        self._last = connection
        return packed

    def _head(self, packed: Packed) -> bytearray:
        """The frame's head, kept for the next answer unless it holds values."""
        if packed.values:
            return head(packed.header(), packed.arrays)
        key = tuple((name, array.dtype.str, array.shape) for name, array in packed.arrays.items()), str(packed[1:])
        if key not in self._heads:
            if len(self._heads) > 100:
                self._heads.clear()
            self._heads[key] = head(packed.header(), packed.arrays)
        return self._heads[key]

    def _last_word(self, connection: _Connection, error: FrameError) -> None:
        try:
            connection.send([encode(_describe_error(error))])
        except OSError:
            pass

    def _drop(self, connection: _Connection) -> None:
        if self._last is connection:
            self._last = None
        self._selector.unregister(connection.socket)
        connection.socket.close()


def _after(parts: list[memoryview], sent: int) -> list[memoryview]:
    """What is left of *parts* after *sent* bytes."""
    rest = []
    for part in parts:
        if sent < len(part):
            rest.append(part[sent:])
        sent = max(0, sent - len(part))
    return rest


def _is_own_user(sock: socket.socket) -> bool:
    """Whether the peer runs under this process's user; see ``SO_PEERCRED`` in ``unix(7)``."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return bool(uid == os.getuid())


def _files_named_in(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if os.path.isfile(value) else []
    values = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [path for item in values for path in _files_named_in(item)]


def _describe_error(error: BaseException) -> dict[str, Any]:
    try:
        message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    except Exception:
        message = "(its message could not be had)"
    return {
        "kind": "error",
        "types": [f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__ if cls is not object],
        "message": message[:MAX_TEXT],
        "traceback": "".join(traceback.format_exception(type(error), error, error.__traceback__))[-MAX_TEXT:],
    }
