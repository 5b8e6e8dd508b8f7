"""A client's connection to a server of calculators: made when it is needed, and again when it was lost."""

from __future__ import annotations

import os
import select
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from mlipcluster import errors
from mlipcluster.calculators.connection import Connection, ConnectionLostError
from mlipcluster.calculators.remote_errors import remote_error
from mlipcluster.errors import CallTimeoutError, InputError, MLIPClusterError, ServerGoneError
from mlipcluster.serving.address import Address
from mlipcluster.serving.dial import HELLO_SECONDS, dial
from mlipcluster.serving.many import exchange
from mlipcluster.socket_worker import wire

#: How long a server that was there may stay away, s.
PATIENCE = 10.0
FIRST_WAIT, LONGEST_WAIT = 0.02, 1.0
Answer = TypeVar("Answer")
#: What the server's refusals may be raised as here.
RAISED = {
    name: getattr(errors, name)
    for name in (
        *("InputError", "StructureError", "CalculatorError", "CalculatorStartError", "WorkerDiedError"),
        *("CallTimeoutError", "ServerGoneError"),
    )
}


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
    timeout : float or None
        As given.
    hello : callable
        Called with each new connection before anything else is asked, and with the seconds that it may take.
    """

    def __init__(
        self, label: str, address: Address, context: ssl.SSLContext | None, retries: int, timeout: float | None
    ) -> None:
        self.address = address
        self.lock = threading.RLock()
        self.hello: Callable[[Connection, float], object] = lambda *_: None
        self._label = label
        self._context = context
        self._retries = retries
        self.timeout = timeout
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
        deadline, left = self._deadline(), self._retries
        with self.lock:
            while True:
                try:
                    return what(self.connect(deadline), deadline)
                except (ConnectionLostError, ServerGoneError) as error:
                    left = self._try_again(error, left, deadline)
                except (wire.FrameError, TimeoutError) as error:
                    self._tell(error, deadline)
                    raise

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
            deadline = self._deadline()
            try:
                yield from self._answers(todo, deadline)
            except (ConnectionLostError, ServerGoneError) as error:
                left = self._try_again(error, left, self._deadline())  # others may have been answered meanwhile
            except (wire.FrameError, TimeoutError) as error:
                self._tell(error, deadline)
                raise

    def _answers(
        self, todo: dict[int, Callable[[], bytes]], deadline: float | None
    ) -> Iterator[tuple[int, wire.Message]]:
        """Send what is *todo*, and strike out what was answered."""
        keys, refused = list(todo), ""
        for place, message in exchange(self.connect(deadline), list(todo.values()), self.timeout):
            if message.header.get("error") == ServerGoneError.__name__:
                refused = str(message.header.get("message"))
            else:
                del todo[keys[place]]
                yield keys[place], message
        if todo:
            raise ServerGoneError(refused)

    def connect(self, deadline: float | None = None) -> Connection:
        """The connection, made if need be, before *deadline*; a forked child makes its own."""
        if self._connection is not None and not self._connection.closed and self._pid == os.getpid():
            return self._connection
        self.close()
        connection = dial(self.address, self._context, _greeting_seconds(deadline))
        self._was_there = True
        try:
            self.hello(connection, _greeting_seconds(deadline))
        except BaseException as error:
            connection.close()
            if isinstance(error, TimeoutError):
                self._tell(error, deadline)
            raise
        self._connection, self._pid = connection, os.getpid()
        return connection

    def close(self) -> None:
        """Let go of the connection, which the next request makes anew."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _try_again(self, error: Exception, left: int, deadline: float | None) -> int:
        """See that a server is there again, or raise; how often it may be lost from then on."""
        if _is_past(deadline):
            self.close()
            raise self._late(deadline) from error
        if not self._was_there or not left:
            self.close()
            raise self._gone(error) from error
        self._outlast(deadline)
        self.close()
        self._wait_for_it(deadline)
        return left - 1

    def _outlast(self, deadline: float | None) -> None:
        """Where a server refused because it is about to end, wait until it has ended: it hangs up then."""
        connection = self._connection
        if connection is None or connection.closed:
            return
        patience = time.monotonic() + PATIENCE
        end = patience if deadline is None else min(deadline, patience)
        poll = select.poll()
        poll.register(connection.socket, select.POLLIN)
        poll.poll(1000 * max(end - time.monotonic(), 0.0))

    def _wait_for_it(self, deadline: float | None) -> None:
        """Wait until a server is there again, for as long as there is hope."""
        end, wait = time.monotonic() + PATIENCE, FIRST_WAIT
        while True:
            try:
                self.connect(deadline)
                return
            except wire.FrameError as error:
                raise unfit(self.address, error) from error
            except (ServerGoneError, ConnectionLostError, InputError) as error:
                if _is_past(deadline):
                    raise self._late(deadline) from error
                if time.monotonic() >= end:  # until then, what joins by hand may not be back yet
                    raise error if isinstance(error, InputError) else self._gone(error) from error
            left = self._left(deadline)
            time.sleep(wait if left is None else min(wait, left))
            wait = min(2 * wait, LONGEST_WAIT)

    def _tell(self, error: BaseException, deadline: float | None) -> None:
        """Raise what a connection raised in words that callers know, unless it is in such words already."""
        if isinstance(error, wire.FrameError):
            raise unfit(self.address, error) from error
        if isinstance(error, TimeoutError) and not isinstance(error, MLIPClusterError):
            raise self._late(deadline) from error

    def _deadline(self) -> float | None:
        return None if self.timeout is None else time.monotonic() + self.timeout

    def _left(self, deadline: float | None) -> float | None:
        return None if deadline is None else max(deadline - time.monotonic(), 0.0)

    def _gone(self, error: Exception) -> ServerGoneError:
        if isinstance(error, ServerGoneError):
            return error
        return ServerGoneError(f"the server at {self.address} was lost ({error}); start it again, then ask again")

    def _late(self, deadline: float | None) -> CallTimeoutError:
        limit = f"timeout={self.timeout:g} s" if _is_past(deadline) else f"{HELLO_SECONDS:g} s to a greeting"
        return CallTimeoutError(
            f"the server at {self.address} did not answer within {limit}; raise timeout, or see"
            " `mlipcluster status` for how many wait"
        )


def unfit(address: Address, error: wire.FrameError) -> InputError:
    """What is said where one side sent what the other cannot read."""
    return InputError(
        f"the server at {address} and this side do not understand each other: {error}. See that both have the same"
        " version of mlipcluster; how large a structure may be is serve.max_request in the server's settings"
    )


def _is_past(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


def _greeting_seconds(deadline: float | None) -> float:
    """How long a server may take to be reached, and then to be greeted."""
    return HELLO_SECONDS if deadline is None else min(HELLO_SECONDS, max(deadline - time.monotonic(), 1e-3))


def checked(message: wire.Message, label: str) -> wire.Message:
    """The same, unless it tells of an error of the server, or of the calculator *label*, which is raised."""
    header = message.header
    if header.get("kind") == "refused":
        raise RAISED.get(str(header.get("error")), errors.CalculatorError)(str(header.get("message")))
    if header.get("kind") == "error":
        raise remote_error(label, header)
    return message
