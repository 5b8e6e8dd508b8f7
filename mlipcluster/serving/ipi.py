"""A calculator as a client of any i-PI server (i-PI, ASE's ``SocketIOCalculator``), on ASE's own socket classes.

Numbers travel in Hartree and Bohr: what the server gets differs from what the calculator computed in the last bits.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.socketio import IPIProtocol, SocketClient, SocketClosed
from ase.io import read
from ase.parallel import DummyMPI

from mlipcluster.calculators.ipi_address import IPIAddress
from mlipcluster.calculators.snapshot import REQUIRED, check
from mlipcluster.calculators.socket_calculator import SocketCalculator
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.errors import InputError, ServerGoneError, StructureError
from mlipcluster.settings.values import setting

START_TIMEOUT = 60.0
"""Seconds that a server gets to come up."""
#: What a server may say, by what the client told of itself last.
EXPECTED = {"READY": ("STATUS", "POSDATA", "EXIT"), "HAVEDATA": ("STATUS", "GETFORCE", "EXIT")}
_POLL = 0.1  # seconds between knocks at a server that is not there yet


def serve_ipi(
    calculator: str | Mapping[str, Any] | CalculatorSpec,
    target: str,
    structure: str | os.PathLike[str],
    *,
    stress: bool = True,
    timeout: float = START_TIMEOUT,
    **where: Any,
) -> int:
    """Let a calculator, in a process of its own, answer an i-PI server until that ends.

    Parameters
    ----------
    calculator : str, mapping or CalculatorSpec
        As :class:`.SocketCalculator` takes it.
    target : str
        ``unix:NAME`` or ``HOST:PORT``.
    structure : path
        File with the structure, whose last frame counts: species in the server's order, and periodicity.
    stress, timeout
        As of :func:`drive`.
    **where
        ``root=`` or ``cluster=``: where the environment of a model string is; ``tables=``, by default
        ``serve.calculators`` of the settings; other fields of the spec to change.

    Returns
    -------
    int
        How many structures were calculated.

    Raises
    ------
    InputError
        The target or the calculator is none, the file cannot be read, or as :func:`drive`.
    CalculatorError
        As :func:`drive`.
    """
    IPIAddress.parse(target)
    atoms = _read(structure)
    with SocketCalculator(calculator, **{"tables": setting("serve.calculators").value, **where}) as model:
        return drive(model, target, atoms, stress=stress, timeout=timeout)


def drive(
    calculator: Calculator, target: str, atoms: Atoms, *, stress: bool = True, timeout: float = START_TIMEOUT
) -> int:
    """Answer an i-PI server until that ends.

    Parameters
    ----------
    calculator : ase.calculators.calculator.Calculator
        Any of ASE's.
    target : str
        ``unix:NAME``, which is ``/tmp/ipi_NAME``, or ``HOST:PORT``.
    atoms : ase.Atoms
        The structure: what i-PI's protocol does not send. Its constraints are left to the server.
    stress : bool
        Tell the stress of a periodic cell. Without, the server gets zeros, and must keep the cell fixed.
    timeout : float
        Seconds in which the server has to come up.

    Returns
    -------
    int
        How many structures were calculated.

    Raises
    ------
    InputError
        The target is none, a stress is wanted that the calculator does not have, the server has another structure, or
        it does not speak i-PI's protocol.
    ServerGoneError
        No server came up in time, or it was lost in the middle of a calculation.
    Exception
        Whatever the calculator raises; the connection is closed then.
    """
    address = IPIAddress.parse(target)
    atoms = atoms.copy()
    atoms.set_constraint()
    check(atoms, REQUIRED)
    if stress and atoms.pbc.any() and "stress" not in calculator.implemented_properties:
        raise InputError(
            "the structure is periodic, but the calculator has no stress, and i-PI's protocol can only put zeros in its"
            " place, which the server would take for one; keep the cell fixed there and say so with --no-stress"
            " (stress=False), or take another calculator"
        )
    atoms.calc = calculator
    client = _Client(_connected(address, timeout), address, len(atoms), stress=stress)
    try:
        return sum(1 for _ in client.irun(atoms))
    except SocketClosed as closed:  # elsewhere than between two calculations, where it is the end
        raise ServerGoneError(
            f"{client} was lost in the middle of a calculation; see why, start both again"
        ) from closed
    finally:
        client.close()


def _read(path: str | os.PathLike[str]) -> Atoms:
    try:
        atoms = read(os.fspath(path), index=-1)
    except Exception as error:  # ASE's readers raise whatever comes up
        raise InputError(
            f"the structure {os.fspath(path)!r} cannot be read ({type(error).__name__}: {error}); give a file that"
            " ASE reads"
        ) from error
    assert isinstance(atoms, Atoms)
    return atoms


def _connected(address: IPIAddress, timeout: float) -> socket.socket:
    """A connection, as soon as the server is there."""
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        try:
            return address.connect(max(left, _POLL))
        except OSError as error:
            may_come = isinstance(error, (FileNotFoundError, ConnectionRefusedError))
            if not may_come or left <= _POLL:
                waited = f" within {timeout:g} s" if may_come else ""
                raise ServerGoneError(
                    f"no i-PI server answers at {address}{waited} ({error.strerror or error}); start it, see that it"
                    " has this address, or give it more time (timeout=)"
                ) from error
        time.sleep(_POLL)


class _Client(SocketClient):
    """ASE's client on a connection that is there already, which tells no zeros for a stress unless that was agreed."""

    def __init__(self, connection: socket.socket, address: IPIAddress, size: int, *, stress: bool) -> None:
        self._address, self._stress = address, stress
        self.comm = DummyMPI()
        self.host, self.port, self.unixsocket = address.host, address.port, address.unixsocket
        self.protocol = _Protocol(connection, self, size)
        self.log = self.protocol.log
        self.closed = False
        self.bead_index, self.bead_initbytes = 0, b""
        self.state = "READY"

    def __str__(self) -> str:
        return f"the i-PI server at {self._address}"

    def calculate(self, atoms: Atoms, use_stress: bool) -> tuple[float, np.ndarray, np.ndarray]:
        """Energy, forces and virial, in ASE's units; a structure without volume has none, and no server asks for it."""
        has_cell = atoms.cell.rank == 3
        if self._stress and has_cell and not atoms.pbc.any():
            raise InputError(
                f"{self} has a cell, but the structure is not periodic, so that its stress would be told as zeros; set"
                " pbc in the structure's file, or, for a molecule in a box that stays as it is, say --no-stress"
                " (stress=False)"
            )
        check(atoms, ("cell", "positions"))
        energy, forces, virial = super().calculate(atoms, use_stress=self._stress and has_cell)
        return energy, forces, virial


class _Protocol(IPIProtocol):
    """ASE's, which takes nothing that does not fit the structure, and says so in words."""

    def __init__(self, connection: socket.socket, client: _Client, size: int) -> None:
        self._client, self._size = client, size
        super().__init__(connection)

    def recvmsg(self) -> str:
        """What the server wants; that it closes while it waits for an answer, is an end of its own kind."""
        try:
            message = str(super().recvmsg())
        except UnicodeDecodeError:
            message = "no text"
        except SocketClosed as closed:
            if self._client.state == "READY":
                raise
            raise ServerGoneError(f"{self._client} was lost before it took its answer; start both again") from closed
        if message not in EXPECTED[self._client.state]:
            raise InputError(
                f"{self._client} said {message!r} where one of {', '.join(EXPECTED[self._client.state])} was to come;"
                " give the address of a server that speaks i-PI's protocol"
            )
        return message

    def recvposdata(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cell, its inverse and positions, in Å."""
        cell, inverse, positions = super().recvposdata()
        self._compare(len(positions))
        return cell, inverse, positions

    def recv(self, shape: Any, dtype: Any) -> np.ndarray:
        """Numbers; of a size that fits."""
        if isinstance(shape, tuple) and shape != (3, 3):
            self._compare(shape[0])
        try:
            return np.asarray(super().recv(shape, dtype))
        except AssertionError:
            raise StructureError(
                f"{self._client} sent a cell or positions that are not finite; see what its dynamics does"
            ) from None

    def sendmsg(self, msg: str) -> None:
        """Say a word."""
        self._try(super().sendmsg, msg)

    def send(self, a: Any, dtype: Any) -> None:
        """Tell numbers."""
        self._try(super().send, a, dtype)

    def _recvall(self, nbytes: int) -> bytes:
        received: bytes = self._try(super()._recvall, nbytes)
        return received

    def _compare(self, size: int) -> None:
        if size != self._size:
            raise InputError(
                f"{self._client} has {size} atoms and the structure {self._size}; give the structure that the server"
                " has, in its order"
            )

    @staticmethod
    def _try(function: Any, *arguments: Any) -> Any:
        """Errors of the connection as ASE's own, told from those of the calculator."""
        try:
            return function(*arguments)
        except SocketClosed:
            raise
        except OSError as error:
            raise SocketClosed(str(error)) from error
