"""A client's connection to a server of calculators: made when it is needed, and again when it was lost."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from mlipcluster import errors
from mlipcluster.calculators.connection import Connection, ConnectionLostError
from mlipcluster.calculators.remote_errors import remote_error
from mlipcluster.errors import CallTimeoutError, InputError, MLIPClusterError, ServerGoneError
from mlipcluster.serving import address as addresses
from mlipcluster.serving.address import Address
from mlipcluster.serving.many import exchange
from mlipcluster.socket_worker import wire

#: How long a server that was there may stay away, s.
PATIENCE = 10.0
FIRST_WAIT, LONGEST_WAIT = 0.02, 1.0
HELLO_SECONDS = 20.0
Answer = TypeVar("Answer")
#: What the server's refusals may be raised as here.
RAISED = {
    name: getattr(errors, name)
    for name in (
        *("InputError", "StructureError", "CalculatorError", "CalculatorStartError", "WorkerDiedError"),
        *("CallTimeoutError", "ServerGoneError"),
    )
}


class TlsConnection(Connection):
    """A connection over TLS, which takes one buffer at a time."""

    def _send(self, buffers: list[Any], deadline: float | None) -> None:
        if self.closed:
            raise ConnectionLostError("closed")
        self._wait_until(deadline)
        self.socket.sendall(b"".join(buffers))


def dial(address: Address, context: ssl.SSLContext | None = None, timeout: float = HELLO_SECONDS) -> Connection:
    """A new connection to a server.

    Raises
    ------
    ServerGoneError
        None answers, or not to these credentials.
    InputError
        Credentials are needed.
    """
    if address.path:
        return Connection(addresses.connect(address.path))
    if context is None:
        raise InputError(f"{address} needs credentials; give security=, a folder that `mlipcluster tls new` made")
    sock: socket.socket | None = None
    try:
        sock = socket.create_connection((address.host, address.port), timeout=timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wrapped = context.wrap_socket(sock, server_hostname=address.host if context.check_hostname else None)
    except (OSError, ValueError) as error:
        if sock is not None:
            sock.close()
        raise ServerGoneError(
            f"no server answers at {address} to these credentials ({error}); see that one runs there with"
            " --listen tls://…, and that both have credentials of the same authority"
        ) from error
    return TlsConnection(wrapped)


class Link:
    """What leads to a server, for one user at a time: whoever asks holds :attr:`lock`.

    Parameters
    ----------
    label : str
        The calculator, for people.
    address : Address
    context : ssl.SSLContext or None
    retries : int
        How often a request is sent again that was lost with its server.
    timeout : float or None
        Seconds that a request may take, with all waiting; None: as long as it takes.

    Attributes
    ----------
    hello : callable
        Called with each new connection before anything else is asked.
    """

    def __init__(
        self, label: str, address: Address, context: ssl.SSLContext | None, retries: int, timeout: float | None
    ) -> None:
        self.address = address
        self.lock = threading.RLock()
        self.hello: Callable[[Connection], object] = lambda _: None
        self._label = label
        self._context = context
        self._retries = retries
        self._timeout = timeout
        self._connection: Connection | None = None
        self._pid = 0
        self._was_there = False

    def ask(self, frame: Callable[[], tuple[bytearray, Sequence[Any]]]) -> wire.Message:
        """Send a request, and wait for its answer, whose arrays are void after the next one.

        Parameters
        ----------
        frame : callable
            Gives head and body; asked once the connection stands.

        Raises
        ------
        ServerGoneError
            There is no server, or it was lost more often than it is tried again.
        CallTimeoutError
            It took longer than the timeout.
        RemoteCalculatorError
            The calculator raised.
        MLIPClusterError
            The server refused: as what it says.
        """

        def exchange_it(connection: Connection, deadline: float | None) -> wire.Message:
            head, body = frame()
            return checked(connection.exchange(head, body, self._left(deadline)), self._label)

        return self._insist(exchange_it)

    def meet(self) -> None:
        """Connect, if need be; raises as :meth:`ask` does."""
        self._insist(lambda *_: None)

    def _insist(self, what: Callable[[Connection, float | None], Answer]) -> Answer:
        """Do something with the connection, again when that is lost on the way."""
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        left = self._retries
        with self.lock:
            while True:
                try:
                    return what(self.connect(), deadline)
                except (ConnectionLostError, ServerGoneError) as error:
                    self.close()
                    if not self._was_there or not left:
                        raise self._gone(error) from error
                    left -= 1
                    self._wait_for_it(deadline)
                except wire.FrameError as error:
                    raise self._unfit(error) from error
                except TimeoutError as error:
                    if isinstance(error, MLIPClusterError):
                        raise
                    raise self._late() from error

    def ask_many(self, frames: Mapping[int, Callable[[], bytes]]) -> Iterator[tuple[int, wire.Message]]:
        """Send many requests, several at a time, and give their answers, as they come; errors are not raised.

        Parameters
        ----------
        frames : mapping of int to callable
            Each gives a whole frame.

        Raises
        ------
        ServerGoneError
            There is no server, or it was lost more often than it is tried again.
        CallTimeoutError
            Nothing was answered for so long.
        """
        todo, left = dict(frames), self._retries
        while todo:
            try:
                keys = list(todo)
                refused = ""
                for place, message in exchange(self.connect(), list(todo.values()), self._timeout):
                    if message.header.get("error") == ServerGoneError.__name__:
                        refused = str(message.header.get("message"))
                    else:
                        del todo[keys[place]]
                        yield keys[place], message
                if todo:
                    raise ServerGoneError(refused)
            except (ConnectionLostError, ServerGoneError) as error:
                self.close()
                if not self._was_there or not left:
                    raise self._gone(error) from error
                left -= 1
                self._wait_for_it(None)
            except wire.FrameError as error:
                raise self._unfit(error) from error
            except TimeoutError as error:
                if isinstance(error, MLIPClusterError):
                    raise
                raise self._late() from error

    def connect(self) -> Connection:
        """The connection, made if need be; a forked child makes its own."""
        if self._connection is not None and not self._connection.closed and self._pid == os.getpid():
            return self._connection
        self.close()
        connection = dial(self.address, self._context)
        self._was_there = True
        try:
            self.hello(connection)
        except BaseException:
            connection.close()
            raise
        self._connection, self._pid = connection, os.getpid()
        return connection

    def close(self) -> None:
        """Let go of the connection, which the next request makes anew."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _wait_for_it(self, deadline: float | None) -> None:
        """Wait until a server is there again, for as long as there is hope."""
        end, wait = time.monotonic() + PATIENCE, FIRST_WAIT
        while True:
            try:
                self.connect()
                return
            except (
                ServerGoneError,
                ConnectionLostError,
                InputError,
            ) as error:  # what joins by hand may not be back yet
                now = time.monotonic()
                if now >= end:
                    raise error if isinstance(error, InputError) else self._gone(error) from error
                if deadline is not None and now >= deadline:
                    raise self._late() from error
            except TimeoutError as error:
                raise self._late() from error
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    def _left(self, deadline: float | None) -> float | None:
        return None if deadline is None else max(deadline - time.monotonic(), 0.0)

    def _gone(self, error: Exception) -> ServerGoneError:
        if isinstance(error, ServerGoneError):
            return error
        return ServerGoneError(f"the server at {self.address} was lost ({error}); start it again, then ask again")

    def _unfit(self, error: wire.FrameError) -> InputError:
        return InputError(
            f"the server at {self.address} and this side do not understand each other: {error}. See that both have the"
            " same version of mlipcluster; how large a structure may be is serve.max_request in the server's settings"
        )

    def _late(self) -> CallTimeoutError:
        limit = f"timeout={self._timeout:g} s" if self._timeout is not None else f"{HELLO_SECONDS:g} s to a greeting"
        return CallTimeoutError(
            f"the server at {self.address} did not answer within {limit}; raise timeout, or see"
            " `mlipcluster status` for how many wait"
        )


def checked(message: wire.Message, label: str) -> wire.Message:
    """The same, unless it tells of an error of the server, or of the calculator *label*, which is raised."""
    header = message.header
    if header.get("kind") == "refused":
        raise RAISED.get(str(header.get("error")), errors.CalculatorError)(str(header.get("message")))
    if header.get("kind") == "error":
        raise remote_error(label, header)
    return message
