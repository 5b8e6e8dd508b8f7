"""An ASE calculator whose model runs elsewhere: a server has it, and starts, shares and ends it."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from mlipcluster.calculators.connection import Connection
from mlipcluster.calculators.provenance import Provenance
from mlipcluster.calculators.snapshot import Snapshot
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.calculators.wire_calculator import WireCalculator, unpacked
from mlipcluster.errors import InputError, MLIPClusterError, StructureError
from mlipcluster.serving import address as addresses
from mlipcluster.serving.credentials import client_context
from mlipcluster.serving.link import Link, checked
from mlipcluster.settings.values import setting
from mlipcluster.socket_worker import wire

if TYPE_CHECKING:
    from distributed.security import Security


class RemoteCalculator(WireCalculator):
    """An ASE calculator that a server has (``mlipcluster serve``).

    Nothing is connected before it is first asked. Pickles, deep copies and forked children make a connection of their
    own. May be used from several threads, one calculation at a time; several of them are served at the same time. An
    answer depends on the structure alone: neither on what was asked before nor on which worker answers.

    Parameters
    ----------
    name : str
        The calculator, as the server knows it (``mlipcluster list --address …``).
    address : str, optional
        Of the server: the path of its Unix socket, or ``tls://HOST:PORT``. Default: ``serve.address`` of the settings,
        else that which ``mlipcluster serve`` has by default on this machine.
    retries : int, optional
        How often a call is tried again that was lost with its server; errors of the calculator never are. Default:
        ``serve.retries`` of the settings, else 2.
    timeout : float, optional
        Seconds that a call may take, with all its waiting; of many structures, until the next answer. Default:
        ``serve.timeout`` of the settings, else as long as it takes.
    security : path or distributed.Security, optional
        Credentials for ``tls://``: a folder that ``mlipcluster tls new`` made, for example. Default: ``serve.tls`` of
        the settings.

    Raises
    ------
    InputError
        The address is none, or a number cannot be meant. When it is asked: the server does not serve *name*.
    ServerGoneError
        When it is asked: no server answers, or it was lost again and again.
    """

    def __init__(
        self,
        name: str,
        address: str | None = None,
        *,
        retries: int | None = None,
        timeout: float | None = None,
        security: str | Path | Security | None = None,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise InputError(f"{name!r:.80} is not the name of a served calculator; `mlipcluster list` shows them")
        self._label = name
        self._properties: tuple[str, ...] | None = None
        self._info_keys = CalculatorSpec.info_keys  # what the server last met says; the snapshot follows
        self._max_request = wire.MAX_BODY
        self._frames: dict[tuple[str, ...], tuple[bytearray, list[Any]]] = {}
        where = addresses.parse(address)
        if isinstance(security, (str, os.PathLike)):
            security = os.path.abspath(os.path.expanduser(security))
        at = None if address is None else str(where)  # a copy may be made in another folder
        self._told = {"name": name, "address": at, "retries": retries, "timeout": timeout, "security": security}
        context = None if where.path else client_context(security)
        retries, timeout = setting("serve.retries", retries).value, setting("serve.timeout", timeout).value
        self._link = Link(name, where, context, retries, timeout)
        self._link.hello = _weakly(self._greet)
        self._finalizer = weakref.finalize(self, self._link.close)
        super().__init__(CalculatorSpec.info_keys)

    def close(self) -> None:
        """Close the connection, once no thread uses it; results stay, and another calculation makes a new one."""
        with self._link.lock:
            self._link.close()

    @property
    def address(self) -> str:
        """Of its server."""
        return str(self._link.address)

    @property
    def implemented_properties(self) -> list[str]:  # type: ignore[override]
        """Properties that the calculator can compute; asks the server, which starts a worker if need be."""
        if self._properties is None:
            self._properties = self.provenance().implemented_properties
        return list(self._properties)

    def provenance(self) -> Provenance:
        """What a worker of the calculator says of itself: versions, weights, devices."""
        message = self._link.ask(lambda: (wire.head({"kind": "provenance", "calculator": self._label}, {}), []))
        return Provenance.from_json(message.header["provenance"])

    def todict(self, skip_default: bool = True) -> dict[str, Any]:
        """What it is, as a JSON object: ASE writes it into files."""
        return {"served": self._label, "address": self.address}

    @property
    def _known_properties(self) -> tuple[str, ...] | None:
        return self._properties

    def _instead_of_set(self) -> str:
        return "have another one served: `mlipcluster serve --calculators FILE.py:NAME`"

    def _get_name(self) -> str:
        return self._label.lower()

    def __repr__(self) -> str:
        return f"RemoteCalculator({self._label!r}, {self.address!r})"

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {"told": self._told, **self._state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        RemoteCalculator.__init__(self, **state["told"])
        self._take_state(state)

    # One calculation

    def _greet(self, connection: Connection, seconds: float) -> None:
        """Ask whether the calculator is served; take over which entries of info it reads."""
        asked = {"kind": "open", "calculator": self._label}
        message = checked(connection.request(asked, timeout=seconds), self._label)
        keys = message.header["info_keys"]
        if keys is None:  # only a worker can tell, and that is started by being asked for something
            wanted = {"kind": "provenance", "calculator": self._label}
            checked(connection.request(wanted, timeout=self._link.timeout), self._label)
            message = checked(connection.request(asked, timeout=seconds), self._label)
            keys = message.header["info_keys"]
        self._info_keys = tuple(map(str, CalculatorSpec.info_keys if keys is None else keys))
        self._max_request = int(message.header.get("max_request", wire.MAX_BODY))

    def _evaluate(self, changes: list[str], properties: tuple[str, ...]) -> None:
        with self._link.lock:  # until the answer is copied: the next one overwrites it
            self._keep(self._link.ask(lambda: self._frame(changes, properties)))

    def meet(self) -> None:
        """Connect, and see that the calculator is served; raises as a calculation would."""
        self._link.meet()

    def _evaluate_all(self, structures: list[Atoms], properties: tuple[str, ...]) -> list[Any]:
        with self._link.lock:
            self.meet()
            while True:
                keys = self._info_keys
                found = self._ask_all(structures, properties)
                if keys == self._info_keys:  # else another server has come meanwhile, to which others count
                    return found

    def _ask_all(self, structures: list[Atoms], properties: tuple[str, ...]) -> list[Any]:
        found: list[Any] = [None] * len(structures)
        frames: dict[int, Callable[[], bytes]] = {}
        for number, atoms in enumerate(structures):
            snapshot = Snapshot(self._info_keys)
            try:
                snapshot.take(atoms, snapshot.changes(atoms))
                arrays = whole(snapshot)
                head = self._head(snapshot, arrays, properties)
                frames[number] = partial(_frame_of, head, arrays)
            except InputError as error:
                found[number] = error
        try:
            for number, message in self._link.ask_many(frames):
                try:
                    found[number] = unpacked(checked(message, self._label), self._label)
                except MLIPClusterError as error:
                    found[number] = error
        except MLIPClusterError as error:  # the server is lost for good; what it has answered is not
            found = [error if one is None else one for one in found]
        return found

    def _head(self, snapshot: Snapshot, arrays: dict[str, np.ndarray], properties: tuple[str, ...]) -> bytearray:
        info, more = snapshot.split_info()
        arrays.update(more)
        size = sum(array.nbytes + wire.padding(array.nbytes) for array in arrays.values())
        if size > self._max_request:
            raise StructureError(
                f"a structure of {len(arrays['numbers'])} atoms, {size} bytes, is more than the server at"
                f" {self.address} takes (max_request={self._max_request}); have it started with more, or leave arrays"
                " out"
            )
        header = {"kind": "calculate", "calculator": self._label, "whole": True, "properties": properties}
        try:
            return wire.head({**header, "info": info}, arrays)
        except wire.FrameError as error:
            raise StructureError(f"a structure with {', '.join(info)} in its info: {error}; leave some out") from error

    def _frame(self, changes: list[str], properties: tuple[str, ...]) -> tuple[bytearray, list[Any]]:
        """Head and body of a request, with the whole structure.

        Both are kept while nothing changes but positions and cell: the snapshot takes these into the same memory, and
        where atoms are more, fewer, or of another kind of number, another snapshot is begun.
        """
        self._look_at_info()
        if not all(name in ("positions", "cell") for name in changes):
            self._frames.clear()
        frame = self._frames.get(properties)
        if frame is None:
            arrays = whole(self._snapshot)
            frame = self._frames[properties] = (self._head(self._snapshot, arrays, properties), wire.body(arrays))
        return frame

    def _forget_sent(self) -> None:
        super()._forget_sent()
        self._frames.clear()

    def _look_at_info(self) -> None:
        """Take over entries of info that count to the server that was met since the structure was looked at."""
        snapshot, atoms = self._snapshot, self._asker()
        if snapshot.info_keys != self._info_keys:
            snapshot.info_keys = self._info_keys
            self._frames.clear()
            if atoms is not None and "info" in snapshot.changes(atoms):
                snapshot.take(atoms, ["info"])


def _weakly(method: Callable[[Connection, float], None]) -> Callable[[Connection, float], None]:
    """The same method, without a cycle: a connection is closed with the last reference to its calculator."""
    known = weakref.WeakMethod(method)

    def call(connection: Connection, seconds: float) -> None:
        if (found := known()) is not None:
            found(connection, seconds)

    return call


def _frame_of(head: bytearray, arrays: dict[str, np.ndarray]) -> bytes:
    return b"".join([bytes(head), *wire.body(arrays)])


def whole(snapshot: Snapshot) -> dict[str, np.ndarray]:
    """All arrays of a structure; atomic numbers, which end at 118, as single bytes."""
    return {**snapshot.arrays, "numbers": snapshot.arrays["numbers"].astype("|u1")}
