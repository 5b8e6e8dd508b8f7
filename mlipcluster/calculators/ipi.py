"""Any i-PI client as a calculator: ASE's own socket calculator, set up so that what goes wrong is told."""

from __future__ import annotations

import os
import shlex
import socket
import time
from collections.abc import Sequence
from multiprocessing.connection import wait
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError, all_changes
from ase.calculators.socketio import SocketIOCalculator, SocketServer

from mlipcluster.calculators.foreign_code import ForeignCode
from mlipcluster.calculators.ipi_address import LOOPBACK, IPIAddress
from mlipcluster.calculators.snapshot import Snapshot
from mlipcluster.errors import CalculatorError, CallTimeoutError, InputError, MLIPClusterError, WorkerDiedError

#: What of a structure can be sent, and what nobody asks i-PI for.
TRAVELS = {"positions", "cell", "tags"}
_POLL = 0.1  # seconds between looks at a code that has not come yet


class IPICalculator(SocketIOCalculator):
    """A calculator whose answers come from an i-PI client: LAMMPS (``fix ipi``), i-PI drivers, DFT codes.

    It listens from the beginning, and gives energy, forces and stress. Species, charges and periodicity do not travel
    in i-PI's protocol: the client has them from its own input, in the order of the atoms here. Numbers travel in
    Hartree and Bohr, so that they are not those of the client bit for bit. Codes that do not compute stress send zeros
    in its place; such are never handed on. After a client was lost, another may come.

    A port is plain text, for the protocol knows no encryption, and whoever can reach it may be the client: it is
    of the loopback unless *host* says otherwise. A Unix socket is open to its owner alone.

    Parameters
    ----------
    unixsocket : str, optional
        NAME of the Unix socket ``/tmp/ipi_NAME``.
    port : int, optional
        TCP port in place of it; 0 for any that is free, see :attr:`port`.
    host : str
        Address of this machine that the port is bound to; ``""`` for all of them.
    command : str or sequence of str, optional
        Starts the client, at the first calculation; ``{unixsocket}`` and ``{port}`` in it are filled in. No shell reads
        it; what it prints is not kept but for the end. Without one, somebody else starts the client.
    cwd : path, optional
        Folder to start it in.
    timeout : float, optional
        Seconds in which the client has to come, and each of its answers too. Default: as long as it takes.

    Raises
    ------
    InputError
        Both or neither of name and port, or one that cannot be had. When it is asked: no structure that could be sent.
    CalculatorStartError, WorkerDiedError, CallTimeoutError, CalculatorError
        When it is asked: the command cannot be run, the client ended, took too long, or answered what is no answer.
    """

    def __init__(
        self,
        unixsocket: str | None = None,
        port: int | None = None,
        *,
        host: str = LOOPBACK,
        command: str | Sequence[str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        timeout: float | None = None,
    ) -> None:
        self._place = IPIAddress(unixsocket, port, host)
        if timeout is not None and not (isinstance(timeout, (int, float)) and timeout > 0):
            raise InputError(f"timeout={timeout!r}; give a number of seconds, or None for as long as it takes")
        self._command = shlex.split(command) if isinstance(command, str) else list(command or ())
        if command is not None and not self._command:
            raise InputError("the command of the i-PI client is empty; give a program, or leave it out")
        self._cwd = cwd
        self._snapshot = Snapshot(())  # of the structure that the client was started for
        try:
            super().__init__(port=port, unixsocket=unixsocket, timeout=timeout)
        except BaseException:
            self.close()
            raise

    def launch_server(self) -> _Server:
        """ASE's server, listening."""
        server: _Server = self.closelater(_Server(self._place, self.timeout))
        return server

    @property
    def port(self) -> int | None:
        """The TCP port that it listens at; None for a Unix socket."""
        port: int | None = self._server.port
        return port

    @property
    def _server(self) -> _Server:
        server: _Server | None = self.server
        if server is None:
            raise CalculatorError(f"the calculator of i-PI clients at {self._place} is closed; make another")
        return server

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Send positions and cell of *atoms*, and take what comes back."""
        server, self.results = self._server, {}
        atoms = self.atoms if atoms is None else atoms
        if atoms is None:
            raise InputError("a calculator of i-PI clients has no structure yet; give atoms")
        self._look_at_structure(atoms)
        try:
            if self._command and server.proc is None:
                server.proc = ForeignCode([self._filled(word) for word in self._command], self._cwd)
            super().calculate(atoms, properties, system_changes)
            self._look_at_results(atoms)
        except (MLIPClusterError, PropertyNotImplementedError):
            raise
        except (OSError, AssertionError, ValueError) as error:
            raise self._told(error) from error
        finally:
            if not self.results:
                self._snapshot = Snapshot(())
                server.forget_client()
        if "stress" in properties and "stress" not in self.results:
            raise PropertyNotImplementedError(
                f"the i-PI client at {self._place} sent no stress (nothing but zeros), or the structure has no cell"
                " that it could belong to; have the code compute stress, or keep the cell fixed"
            )

    def _filled(self, word: str) -> str:
        return word.replace("{unixsocket}", self._place.unixsocket or "").replace("{port}", str(self.port or ""))

    def _look_at_structure(self, atoms: Atoms) -> None:
        changes = self._snapshot.changes(atoms)
        if self._snapshot.arrays and (fixed := [name for name in changes if name not in TRAVELS]):
            raise InputError(
                f"{' and '.join(fixed)} changed, which i-PI's protocol cannot tell the client at {self._place}; make a"
                " calculator, and start a client, for each such structure"
            )
        self._snapshot.take(atoms, changes)

    def _look_at_results(self, atoms: Atoms) -> None:
        forces = self.results["forces"]
        if forces.shape != (len(atoms), 3):
            self.results = {}
            raise CalculatorError(
                f"the i-PI client at {self._place} has {len(forces)} atoms and the structure {len(atoms)}; give the"
                " client the same structure in its own input"
            )
        if not np.any(self.results.get("stress", 0.0)):
            self.results.pop("stress", None)

    def _told(self, error: Exception) -> CalculatorError:
        """What happened, in our words; ASE's have none."""
        code = self._server.proc
        how = f"; {code.how_it_ended()}" if code is not None else ""
        client = f"the i-PI client at {self._place}"
        if isinstance(error, TimeoutError):
            return CallTimeoutError(f"{client} gave no answer within timeout={self.timeout:g} s; give it more time")
        if isinstance(error, OSError):
            return WorkerDiedError(f"{client} closed its connection in a calculation{how}; see what it has to say")
        return CalculatorError(
            f"{client} sent what is no answer: numbers that are not finite, or words that the protocol does not have"
            f" ({type(error).__name__}: {error}){how}; look at what the code computes"
        )


class _Server(SocketServer):
    """ASE's server, bound where it was told to be, which does not wait for a client that cannot come any more."""

    def __init__(self, place: IPIAddress, timeout: float | None) -> None:
        self._place = place
        super().__init__(port=place.port, unixsocket=place.unixsocket, timeout=timeout)
        if place.port is not None:
            self.port = self.serversocket.getsockname()[1]

    def closelater(self, fd: Any) -> Any:
        """Keep what is to be closed at the end; first comes ASE's listener, on all addresses: another in its place."""
        return super().closelater(fd if hasattr(self, "serversocket") else self._place.bound())

    def forget_client(self) -> None:
        """Let go of a client with which it cannot go on; another may come."""
        if self.clientsocket is not None:
            self.clientsocket.close()
        if self.proc is not None:
            self.proc.wait()
        self.protocol = self.clientsocket = self.proc = None

    def _accept(self) -> None:
        deadline = float("inf") if self.timeout is None else time.monotonic() + self.timeout
        while not wait([self.serversocket], _POLL):
            if self.proc is not None and self.proc.poll() is not None:
                raise WorkerDiedError(
                    f"no i-PI client came to {self._place}: {self.proc.how_it_ended()}; correct the command or its"
                    " input"
                )
            if time.monotonic() > deadline:
                raise CallTimeoutError(
                    f"no i-PI client came to {self._place} within timeout={self.timeout:g} s; start one, see that it"
                    " uses this address, or give it more time"
                )
        super()._accept()
        if self._place.port is not None:
            assert self.clientsocket is not None
            self.clientsocket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # many short messages
