"""The host of a socket worker: starts, configures, asks, watches, restarts and stops it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlipcluster.calculators.connection import Connection, ConnectionLostError
from mlipcluster.calculators.provenance import Provenance
from mlipcluster.calculators.remote_errors import remote_error
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.calculators.worker_process import WorkerProcess, describe_exit
from mlipcluster.errors import CalculatorError, CalculatorStartError, CallTimeoutError, WorkerDiedError
from mlipcluster.socket_worker import wire

GRACE = 2.0


class WorkerGoneError(Exception):
    """The worker ended during a request; the text says how. Raised to the caller as ``WorkerDiedError``."""


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
        Whose structure the connection's other end holds; None after every new connection.
    """

    def __init__(self, spec: CalculatorSpec) -> None:
        self.spec = spec
        self.restarts = 0
        self.user: object = None
        self._process: WorkerProcess | None = None
        self._connection: Connection | None = None
        self._provenance: Provenance | None = None
        self._prepared: list[int | None] = []
        self._lock = threading.RLock()
        self._abandoned: list[WorkerProcess] = []

    def __enter__(self) -> WorkerHost:
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
    def implemented_properties(self) -> tuple[str, ...]:
        """What the calculator can compute; starts the worker if need be."""
        self.start()
        assert self._provenance is not None
        return self._provenance.implemented_properties

    @property
    def known_properties(self) -> tuple[str, ...] | None:
        """:attr:`implemented_properties` if they are known already."""
        return self._provenance.implemented_properties if self._provenance is not None else None

    def start(self) -> None:
        """Start the worker and build the calculator, unless it runs.

        Raises
        ------
        CalculatorStartError
            Interpreter, import or factory failed, or took longer than ``startup_timeout``.
        """
        with self._lock:
            if self.alive and self._connection is not None and not self._connection.closed:
                return
            if self.alive and self._reconnect():
                return
            self._start_process()

    def stop(self) -> None:
        """End the worker: politely, then not. Does nothing when none runs."""
        with self._lock:
            process, connection = self._process, self._connection
            if process is None or not process.is_here:
                return
            if self.alive and connection is not None and not connection.closed:
                try:
                    connection.request({"kind": "stop"}, timeout=GRACE)
                    process.wait(GRACE)
                except (ConnectionLostError, TimeoutError, OSError, wire.FrameError):
                    pass  # it gets killed below
            self._close_connection()
            process.close()

    def restart(self) -> None:
        """Replace the worker by a new one, in the state that was last prepared."""
        with self._lock:
            self.kill()
            self._start_process()

    def kill(self) -> None:
        """End the worker at once, whatever it does."""
        self._close_connection()
        if self._process is not None and self._process.is_here:
            self._process.close()

    def prepare(self, seed: int | None = None) -> None:
        """Bring the calculator to its defined state; seed its process's random generators with *seed*, if given."""
        with self._lock:
            self._prepared = [seed]
            self.start()
            try:
                self._ask({"kind": "prepare", "seed": seed})
            except WorkerGoneError:
                self.restart()

    def provenance(self) -> Provenance:
        """What the worker says of itself now; starts it if need be. One cheap round trip."""
        with self._lock:
            self.start()
            try:
                message = self._ask({"kind": "provenance"})
            except WorkerGoneError:
                self.restart()
                message = self._ask({"kind": "provenance"})
            self._provenance = Provenance.from_json(message.header["provenance"])
            return self._provenance

    def exchange(self, head: bytearray, body: Sequence[Any]) -> wire.Message:
        """Send a frame to the running worker and return the answer, whose arrays are void after the next exchange.

        Raises
        ------
        RemoteCalculatorError
            The calculator raised.
        CallTimeoutError
            It took longer than ``call_timeout``; the worker was killed.
        WorkerGoneError
            The worker ended. The next :meth:`start` starts another one.
        """
        connection = self._connection
        if connection is None or self._process is None:
            raise WorkerGoneError("it was not started")
        try:
            message = connection.exchange(head, body, self.spec.call_timeout)
        except ConnectionLostError as error:
            raise self._gone(error) from error
        except TimeoutError as error:
            self.kill()
            raise CallTimeoutError(
                f"calculator {self.spec.label!r} took longer than call_timeout={self.spec.call_timeout:g} s;"
                " its process was ended. Raise call_timeout if such calculations are expected"
            ) from error
        except wire.FrameError as error:
            self.kill()
            raise CalculatorError(
                f"calculator {self.spec.label!r} and mlipcluster lost the thread ({error}); its process was ended"
            ) from error
        if message.header["kind"] == "error":
            raise remote_error(self.spec.label, message.header)
        return message

    def died(self, gone: WorkerGoneError) -> WorkerDiedError:
        """The error for a worker that ended."""
        return WorkerDiedError(
            f"the process of calculator {self.spec.label!r} ended with {gone}. Run the calculation on its own to see"
            " why, or leave this structure out"
        )

    def _ask(self, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> wire.Message:
        arrays = arrays or {}
        return self.exchange(wire.head(header, arrays), wire.body(arrays))

    def _reconnect(self) -> bool:
        """A new connection to the running worker, after an interrupted call closed the last one."""
        assert self._process is not None
        try:
            self._connection = self._process.connect()
        except OSError:
            return False
        self.user = None
        return True

    def _start_process(self) -> None:
        if self._process is not None:
            if self._process.is_here:
                self._process.close()
                self.restarts += 1
            else:
                self._abandoned.append(self._process)  # its parent's; not to be finalized here
        self._process = WorkerProcess(self.spec)
        try:
            self._connection = self._process.connect()
            self.user = None
            self._provenance = self._configure(self._connection)
        except BaseException:
            self.kill()
            raise
        if self._prepared:
            try:
                self._ask({"kind": "prepare", "seed": self._prepared[0]})
            except WorkerGoneError as gone:
                raise self.died(gone) from gone

    def _configure(self, connection: Connection) -> Provenance:
        spec = self.spec
        stated = {**spec.identity(), "paths": list(spec.paths)}
        try:
            message = connection.request({"kind": "configure", "spec": stated}, timeout=spec.startup_timeout)
        except ConnectionLostError as error:
            raise CalculatorStartError(
                f"calculator {spec.label!r} did not start: {spec.interpreter} ended with {self._gone(error)}"
            ) from error
        except TimeoutError as error:
            words = self._quote()
            raise CalculatorStartError(
                f"calculator {spec.label!r} was not ready after startup_timeout={spec.startup_timeout:g} s{words}"
            ) from error
        if message.header["kind"] == "error":
            raise self._start_error(message.header)
        return Provenance.from_json(message.header["provenance"])

    def _start_error(self, stated: Mapping[str, Any]) -> CalculatorStartError:
        remote = remote_error(self.spec.label, stated)
        error = CalculatorStartError(
            f"calculator {self.spec.label!r} could not be built from {self.spec.factory!r} by {self.spec.interpreter}:"
            f" {remote.type_name.removeprefix('builtins.')}: {stated.get('message', '')}. Check factory, arguments and"
            f" python=; its traceback was:\n{remote.remote_traceback}"
        )
        error.__cause__ = remote
        return error

    def _gone(self, error: ConnectionLostError) -> WorkerGoneError:
        """Why the connection was lost: how the worker ended, and its last words."""
        assert self._process is not None
        status = self._process.wait(5.0)
        if status is None:
            self._process.kill()
            return WorkerGoneError(f"its connection lost ({error}){self._quote()}")
        return WorkerGoneError(describe_exit(status) + self._quote())

    def _quote(self) -> str:
        words = self._process.last_words() if self._process is not None else ""
        return f"; it last said:\n{words[-4000:]}\n" if words else "; it said nothing"

    def _close_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self.user = None
