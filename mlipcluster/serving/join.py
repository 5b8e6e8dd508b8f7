"""A worker that joins a server by hand: its calculator's process is started here, and looked after here."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mlipcluster.calculators.connection import Connection, ConnectionLostError
from mlipcluster.calculators.host import WorkerHost
from mlipcluster.calculators.known import known
from mlipcluster.calculators.provenance import Provenance
from mlipcluster.calculators.registry import resolve
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.errors import CalculatorError, CalculatorStartError, InputError, ServerGoneError
from mlipcluster.serving import address as addresses
from mlipcluster.serving.dial import HELLO_SECONDS
from mlipcluster.serving.link import checked
from mlipcluster.serving.spawned import WORKER_VARIABLE
from mlipcluster.settings.values import setting
from mlipcluster.socket_worker import wire

LOOK_SECONDS = 0.2
#: How long the next server is waited for, where nobody says otherwise, s.
ALONE_SECONDS = 300.0
EARLY_SECONDS = 30.0
EARLY_DEATHS = 5
"""A calculator whose process dies so often in a row, each time that soon after its start, is given up."""


class Joiner:
    """Starts a calculator's process, joins it to a server, and looks after it.

    A server that ends is waited for, with the calculator warm; a process that dies is started again, but where the
    server had this command run: then it knows when to do so again.

    Parameters
    ----------
    spec : CalculatorSpec
    name : str
        Under which it is served.
    address : str, optional
        Of the server's Unix socket.
    idle_timeout : float, optional
        Seconds without work after which it ends; default: what the server says. So long is a server waited for, too.

    Raises
    ------
    InputError
        The address is one of another machine.
    """

    def __init__(
        self, spec: CalculatorSpec, name: str, address: str | None = None, idle_timeout: float | None = None
    ) -> None:
        self._spec = spec
        self._name = name
        self._path = _path(address)
        self._idle_timeout = idle_timeout
        self._host = WorkerHost(spec)
        self._is_leaving = False  # no event of threads: a signal handler that sets one may wait for itself
        self._is_joined = False
        self._alone_since: float | None = None
        self._number = os.environ.get(WORKER_VARIABLE, "")
        self._is_spawned = self._number.isdecimal()

    def run(self) -> None:
        """Serve until the server, or :meth:`leave`, ends it.

        Raises
        ------
        ServerGoneError
            No server answers, or none came back.
        CalculatorError
            The calculator cannot be started, or dies again and again.
        """
        deaths = 0
        addresses.connect(self._path).close()  # before anything is loaded for nobody
        try:
            while not self._is_leaving:
                started = time.monotonic()
                told = self._start()
                if told is None or self._serve(told) or self._is_leaving:
                    return
                if self._host.alive:  # the server has gone
                    self._wait_for_server()
                    continue
                if self._is_spawned:
                    raise CalculatorError(
                        f"the process of calculator {self._name!r} ended with {self._host.how_it_ended()}"
                    )
                deaths = deaths + 1 if time.monotonic() - started < EARLY_SECONDS else 0
                if deaths >= EARLY_DEATHS:
                    raise CalculatorError(
                        f"the process of calculator {self._name!r} ends soon after each start, at last with"
                        f" {self._host.how_it_ended()}"
                    )
        finally:
            self._host.stop()

    def leave(self) -> None:
        """Take no more work, and end; safe in a signal handler."""
        self._is_leaving = True
        if not self._is_joined:
            self._host.cancel()  # nobody has asked for anything yet

    def _start(self) -> Provenance | None:
        """Start the calculator, unless it runs; None when it is to leave meanwhile."""
        try:
            return self._host.start()
        except CalculatorStartError:
            if self._is_leaving:
                return None
            raise

    def _serve(self, told: Provenance) -> bool:
        """Join and wait; True when that was the end, False when the process or the server is gone."""
        self._is_joined = True
        if self._is_leaving:  # a moment ago, so that its process was ended
            return True
        try:
            control = self._join(told)
        except (ServerGoneError, ConnectionLostError, TimeoutError):
            return False
        else:
            self._alone_since = None
            return self._stay(control)
        finally:
            self._is_joined = False

    def _stay(self, control: Connection) -> bool:
        try:
            return self._look_after(control)
        except (ConnectionLostError, OSError):
            return False
        finally:
            control.close()

    def _join(self, told: Provenance) -> Connection:
        control = Connection(addresses.connect(self._path))
        asked: dict[str, Any] = {
            "kind": "join",
            "calculator": self._name,
            "address": self._host.address,
            "pid": self._host.pid,
            "idle_timeout": self._idle_timeout,
            "call_timeout": self._spec.call_timeout,
            "info_keys": list(self._spec.info_keys),
            "provenance": told.to_json(),
        }
        if self._number.isdecimal():
            asked["worker"] = int(self._number)
            self._number = ""  # if it joins again, it is by itself
        try:
            checked(control.request(asked, timeout=HELLO_SECONDS), self._name)
        except BaseException:
            control.close()
            raise
        return control

    def _look_after(self, control: Connection) -> bool:
        poll = select.poll()
        poll.register(control.socket, select.POLLIN)
        decoder = wire.Decoder()
        has_said = False
        while True:
            if self._is_leaving and not has_said:
                _say(control, {"kind": "left", "polite": True})
                has_said = True  # the server answers with `end`, once it has what runs
            if not self._host.alive:
                _say(control, {"kind": "left", "how": self._host.how_it_ended()})
                return False
            if not poll.poll(1000 * LOOK_SECONDS):
                continue
            count = control.socket.recv_into(decoder.space())
            if not count:
                return False
            decoder.received(count)
            while (message := decoder.next()) is not None:
                if message.header.get("kind") == "end":
                    return True

    def _wait_for_server(self) -> None:
        """Wait until one answers: the next, or the last one, which may not be gone yet, and refuses."""
        self._alone_since = time.monotonic() if self._alone_since is None else self._alone_since
        end = self._alone_since + (self._idle_timeout or ALONE_SECONDS)
        while not self._is_leaving:
            time.sleep(LOOK_SECONDS)
            if time.monotonic() > end:
                raise ServerGoneError(
                    f"the server at {self._path!r} has ended and did not come back; start one: `mlipcluster serve`,"
                    " then this again"
                )
            with contextlib.suppress(ServerGoneError):
                addresses.connect(self._path).close()
                return


def spec_of(name: str, tables: Sequence[str], root: str | None, changes: Mapping[str, Any]) -> CalculatorSpec:
    """The calculator that a name means, with some fields changed.

    Raises
    ------
    InputError
        It means none, or one that only a command starts.
    """
    found = known(root=root, tables=setting("serve.calculators", list(tables) or None).value).get(name)
    if found is None:
        return resolve(name, root=root, **changes)
    if found.spec is None:
        raise InputError(f"{name!r} is started by a command ({found.source}), which `mlipcluster serve` runs; serve it")
    return resolve(found.spec, **changes)


def _path(address: str | None) -> str:
    told = addresses.parse(address)
    if not told.path:
        raise InputError(
            f"{told}: a worker by hand joins a server of its own machine; give the path of that one's Unix socket with"
            " --address. Workers of other machines come with `mlipcluster serve --cluster NAME`"
        )
    return told.path


def _say(control: Connection, header: dict[str, Any]) -> None:
    control.socket.sendall(wire.encode(header))
