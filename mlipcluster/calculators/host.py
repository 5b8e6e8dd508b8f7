"""The host of a socket worker: starts, configures, asks, watches, restarts and stops it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlipcluster.calculators.connection import Connection, ConnectionLostError
from mlipcluster.calculators.provenance import Provenance
from mlipcluster.calculators.remote_errors import remote_error
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.calculators.worker_process import WorkerProcess, describe_exit
from mlipcluster.errors import CalculatorError, CalculatorStartError, CallTimeoutError, WorkerDiedError
from mlipcluster.socket_worker import wire

if TYPE_CHECKING:
    from typing_extensions import Self

#: Seconds that a worker gets to end by itself.
GRACE = 2.0
#: Seconds after which a stop waits no longer for the end of a request.
IMPATIENCE = 0.1
QUOTED = 4000
#: Fields of the spec that the worker is told; the rest is for its start, and for the record.
TOLD = ("factory", "args", "kwargs", "paths", "device", "threads", "state")


class WorkerGoneError(Exception):
    """The worker ended during a request; the text says how. Callers get to see ``WorkerDiedError``."""


class WorkerHost:
    """A socket worker for one calculator, and the connection to it.

    Starts on first use. A context manager; also stopped when it is garbage collected or this process ends, however
    it ends. In a forked child it starts a worker of its own.

    Parameters
    ----------
    spec : CalculatorSpec
        The calculator.

    Attributes
    ----------
    spec : CalculatorSpec
        The calculator.
    restarts : int
        How often a worker was started after the first.
    user : object
        Stands for the one whose structure the connection's other end holds; None after every new connection.
    lock : threading.RLock
        Held from the start of a request until its answer was read: to be held longer by who reads the answer's arrays.
    """

    def __init__(self, spec: CalculatorSpec) -> None:
        self.spec = spec
        self.restarts = 0
        self.user: object = None
        self._process: WorkerProcess | None = None
        self._connection: Connection | None = None
        self._provenance: Provenance | None = None
        self._prepared: list[int | None] = []
        self.lock = threading.RLock()
        self._parents: list[WorkerProcess] = []
        self._busy = False
        self._is_cancelled = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.alive else "not running"
        return f"WorkerHost({self.spec.label!r}, {state})"

    @property
    def alive(self) -> bool:
        """Whether its worker runs."""
        return self._process is not None and self._process.is_here and self._process.exit_status is None

    @property
    def pid(self) -> int | None:
        """Process id of its worker; None when there is none."""
        return self._process.pid if self._process is not None and self.alive else None

    @property
    def exit_status(self) -> int | None:
        """How the last worker ended: its exit status, or minus the signal; None when it runs or never ran."""
        return self._process.exit_status if self._process is not None else None

    @property
    def known_properties(self) -> tuple[str, ...] | None:
        """What the calculator can compute, if it was ever started."""
        return self._provenance.implemented_properties if self._provenance is not None else None

    def start(self) -> Provenance:
        """Start the worker and build the calculator, unless it runs; return what it last said of itself.

        Raises
        ------
        CalculatorStartError
            Interpreter, import or factory failed, or took longer than ``startup_timeout``; or it was given up.
        """
        with self.lock:
            provenance, process = self._provenance, self._process
            if provenance is not None and process is not None and self.alive:
                if self._connection is not None and not self._connection.closed:
                    return provenance
                if self._reconnect(process):
                    return provenance
            return self._start_process()

    def stop(self) -> None:
        """End the worker: politely, then not. Does nothing when none runs. Ends a call of another thread as well."""
        if self._process is not None and not self._process.is_here:
            self.kill()
            return
        while not self.lock.acquire(timeout=IMPATIENCE):
            if self._busy:
                self.kill()
        try:
            connection = self._connection
            if self.alive and connection is not None and not connection.closed and not self._busy:
                with contextlib.suppress(ConnectionLostError, TimeoutError, OSError, wire.FrameError):
                    connection.request({"kind": "stop"}, timeout=GRACE)
                    if self._process is not None:
                        self._process.wait(GRACE)
            self.kill()
        finally:
            self.lock.release()

    def cancel(self) -> None:
        """Give up, for good: end a start that is under way, and the worker; any thread may call this, at any moment."""
        self._is_cancelled = True
        self.kill()

    def restart(self) -> None:
        """Replace the worker by a new one, in the state that was last prepared."""
        with self.lock:
            self.kill()
            self._start_process()

    def kill(self) -> None:
        """End the worker at once, whatever it does; in a forked child, only leave it alone from here on."""
        connection, self._connection, self.user = self._connection, None, None
        if self._process is not None and self._process.is_here:
            if connection is not None:
                connection.shut()  # another thread may be waiting for an answer
            self._process.close()
        if connection is not None:
            connection.close()

    def prepare(self, seed: int | None = None) -> None:
        """Bring the calculator to its defined state; seed its process's random generators with *seed*, if given.

        Raises
        ------
        WorkerDiedError
            The worker ended twice over it.
        """
        with self.lock:
            self.start()
            self._prepared = [seed]
            try:
                self._ask({"kind": "prepare", "seed": seed})
            except WorkerGoneError:
                self.restart()  # prepares as well

    def provenance(self) -> Provenance:
        """What the worker says of itself now; starts it if need be. One cheap round trip."""
        with self.lock:
            self.start()
            try:
                message = self._ask({"kind": "provenance"})
            except WorkerGoneError:
                return self._start_process()
            self._provenance = Provenance.from_json(message.header["provenance"])
            return self._provenance

    def exchange(self, head: bytearray, body: Sequence[Any], limit: str = "call_timeout") -> wire.Message:
        """Send a frame to the running worker and return the answer, whose arrays are void after the next exchange.

        Whoever calls this holds :attr:`lock`.

        Parameters
        ----------
        limit : str
            The spec's timeout that counts.

        Raises
        ------
        RemoteCalculatorError
            The calculator raised.
        CallTimeoutError
            It took too long; the worker was killed.
        WorkerGoneError
            The worker ended. The next :meth:`start` starts another one.
        CalculatorError
            Another thread stopped the worker.
        """
        connection, process = self._connection, self._process
        if connection is None or process is None:
            raise WorkerGoneError("nothing, for it was not started")
        self._busy = True
        try:
            message = connection.exchange(head, body, getattr(self.spec, limit))
        except ConnectionLostError as error:
            if self._connection is not connection:
                raise CalculatorError(f"calculator {self.spec.label!r} was closed while it calculated") from error
            raise WorkerGoneError(_how_it_ended(process, error)) from error
        except TimeoutError as error:
            self.kill()
            raise CallTimeoutError(
                f"calculator {self.spec.label!r} took longer than {limit}={getattr(self.spec, limit):g} s and its"
                f" process was ended; raise {limit} if that is to be expected"
            ) from error
        except wire.FrameError as error:
            self.kill()
            raise CalculatorError(
                f"calculator {self.spec.label!r} answered what is no frame ({error}) and its process was ended;"
                " check that nothing in it writes to file descriptors that it did not open"
            ) from error
        finally:
            self._busy = False
        if message.header["kind"] == "error":
            raise remote_error(self.spec.label, message.header)
        return message

    def died(self, gone: WorkerGoneError) -> WorkerDiedError:
        """The error for a worker that ended."""
        return WorkerDiedError(
            f"the process of calculator {self.spec.label!r} ended with {gone}. Run this calculation alone to see why,"
            " or leave the structure out"
        )

    @property
    def address(self) -> str:
        """Path of its worker's socket, for other processes of this user as well; empty where none runs."""
        if self._process is None or not self.alive:
            return ""
        return self._process.address.replace("/proc/self/", f"/proc/{os.getpid()}/")

    def connect(self) -> Connection:
        """A further connection to the running worker, for somebody who asks in a way of their own.

        Raises
        ------
        CalculatorError
            None runs.
        """
        process = self._process
        try:
            if process is None:
                raise ConnectionLostError("it was not started")
            return process.connect()
        except ConnectionLostError as error:
            raise CalculatorError(f"calculator {self.spec.label!r} does not run ({error}); start() it") from error

    def how_it_ended(self) -> str:
        """Exit status or signal of a worker that has ended, and its last words."""
        if self._process is None:
            return "nothing, for it was not started"
        return _how_it_ended(self._process, ConnectionLostError("end of stream"))

    def _ask(self, header: Mapping[str, Any]) -> wire.Message:
        return self.exchange(wire.head(header, {}), [], "startup_timeout")  # it may build the calculator again

    def _reconnect(self, process: WorkerProcess) -> bool:
        """A new connection to the running worker, after an interrupted call closed the last one."""
        try:
            self._connection = process.connect()
        except ConnectionLostError:
            return False
        self.user = None
        return True

    def _start_process(self) -> Provenance:
        if self._process is not None:
            if self._process.is_here:
                self.kill()
                self.restarts += 1
            else:
                self._parents.append(self._process)
        self._refuse_if_cancelled()
        self._process = process = WorkerProcess(self.spec)
        self.user = None
        try:
            self._refuse_if_cancelled()  # meanwhile there was nothing yet that could have been ended
            self._provenance = self._configure(process)
            if self._prepared:
                self._ask({"kind": "prepare", "seed": self._prepared[0]})
        except WorkerGoneError as gone:
            self.kill()
            self._refuse_if_cancelled()
            raise self.died(gone) from gone
        except BaseException:
            self.kill()
            self._refuse_if_cancelled()
            raise
        return self._provenance

    def _refuse_if_cancelled(self) -> None:
        if self._is_cancelled:
            raise CalculatorStartError(
                f"the start of calculator {self.spec.label!r} was given up; ask again for one that is to stay"
            )

    def _configure(self, process: WorkerProcess) -> Provenance:
        spec = self.spec
        stated = {name: value for name, value in spec.to_json().items() if name in TOLD}
        try:
            self._connection = process.connect()
            message = self._connection.request({"kind": "configure", "spec": stated}, timeout=spec.startup_timeout)
        except ConnectionLostError as error:
            how = _how_it_ended(process, error)
            raise CalculatorStartError(
                f"calculator {spec.label!r} did not start: {spec.interpreter} ended with {how}"
            ) from error
        except TimeoutError as error:
            raise CalculatorStartError(
                f"calculator {spec.label!r} was not ready after startup_timeout={spec.startup_timeout:g} s; raise it if"
                f" such starts are expected{_quote(process)}"
            ) from error
        if message.header["kind"] == "error":
            raise self._start_error(message.header)
        return Provenance.from_json(message.header["provenance"])

    def _start_error(self, stated: Mapping[str, Any]) -> CalculatorStartError:
        remote = remote_error(self.spec.label, stated)
        name = remote.type_name.removeprefix("builtins.")
        gone = self.spec.build is not None and not all(map(os.path.isdir, self.spec.paths))
        remedy = self.spec.remedy if gone else "Check factory, arguments and python="
        error = CalculatorStartError(
            f"calculator {self.spec.label!r} could not be built from {self.spec.factory!r} by {self.spec.interpreter}:"
            f" {name}: {stated.get('message', '')}. {remedy}; its traceback:\n"
            f"{remote.remote_traceback}"
        )
        error.__cause__ = remote
        return error


def _how_it_ended(process: WorkerProcess, error: ConnectionLostError) -> str:
    status = process.wait(5.0)
    if status is None:
        process.kill()
        return f"its connection lost ({error}){_quote(process)}"
    return describe_exit(status) + _quote(process)


def _quote(process: WorkerProcess) -> str:
    words = process.last_words()[-QUOTED:]
    return f"; it last said:\n{words}\n" if words else "; it said nothing"
