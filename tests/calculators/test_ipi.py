"""Real codes: ASE's own i-PI client, in processes of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.socketio import SocketIOCalculator
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from mlipcluster.calculators.foreign_code import ForeignCode
from mlipcluster.calculators.ipi import IPICalculator
from mlipcluster.calculators.socket_calculator import SocketCalculator
from mlipcluster.errors import (
    CalculatorError,
    CalculatorStartError,
    CallTimeoutError,
    InputError,
    StructureError,
    WorkerDiedError,
)

CLIENT = str(Path(__file__).parent / "trial" / "ipi_client.py")
KINDS = ["unix", "tcp"]


@pytest.fixture
def name():
    return f"mlipcluster-{uuid.uuid4().hex}"


@pytest.fixture
def copper():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=1)
    return atoms


@pytest.fixture
def command(tmp_path, copper):
    """What starts a client that has the structure and some manner."""

    def told(kind="unix", manner=""):
        copper.write(tmp_path / "start.traj")
        where = {"unix": "{unixsocket}", "tcp": "{port}"}[kind]
        return [sys.executable, CLIENT, str(tmp_path / "start.traj"), where, manner]

    return told


@pytest.fixture
def made(name, command):
    """A calculator with a client of some manner, which has not been started."""
    calculators = []

    def make(manner="", kind="unix", **options):
        address = {"unix": {"unixsocket": name}, "tcp": {"port": 0}}[kind]
        options = {"command": command(kind, manner), "timeout": 100, **options}
        calculators.append(SocketCalculator.from_ipi(**address, **options))
        return calculators[-1]

    yield make
    for calculator in calculators:
        calculator.close()


def compare(atoms, calculator):
    reference = atoms.copy()
    atoms.calc, reference.calc = calculator, EMT()
    for ask in ("get_potential_energy", "get_forces", "get_stress"):
        np.testing.assert_allclose(getattr(atoms, ask)(), getattr(reference, ask)(), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_as_the_code_does(made, copper, kind):
    calculator = made(kind=kind)
    assert isinstance(calculator, SocketIOCalculator)
    for step in range(4):
        copper.rattle(0.02, seed=step)
        copper.set_cell(copper.cell * (1 + 0.01 * step), scale_atoms=True)
        compare(copper, calculator)


def test_relaxes_with_the_cell(made, copper):
    reference = copper.copy()
    copper.calc, reference.calc = made(), EMT()
    for atoms in (copper, reference):
        assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-3, steps=100)
    np.testing.assert_allclose(copper.cell, reference.cell, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_takes_a_client_that_somebody_else_starts(made, copper, command, kind):
    calculator = made(kind=kind, command=None)
    words = [calculator._filled(word) for word in command(kind)]
    with subprocess.Popen(words) as process:
        compare(copper, calculator)
        calculator.close()
        assert process.wait(60) == 0


def test_a_command_as_text(made, copper, command):
    compare(copper, made(command=" ".join(f"'{word}'" for word in command())))


def test_nobody_else_gets_at_it(made, name):
    made(command=None)
    assert stat.S_IMODE(os.stat(f"/tmp/ipi_{name}").st_mode) == 0o600
    port = made(kind="tcp", command=None)
    assert port.server.serversocket.getsockname() == ("127.0.0.1", port.port)
    everywhere = made(kind="tcp", command=None, host="")
    assert everywhere.server.serversocket.getsockname()[0] == "0.0.0.0"  # noqa: S104


def test_nothing_is_left(made, copper, name):
    calculator = made()
    compare(copper, calculator)
    process = calculator.server.proc
    calculator.close()
    calculator.close()
    assert process.poll() == 0
    assert not os.path.lexists(f"/tmp/ipi_{name}")
    copper.rattle(0.1)
    with pytest.raises(CalculatorError, match=r"closed; make another"):
        copper.get_forces()


def test_zeros_are_no_stress(made, copper):
    copper.calc = made("no stress")
    assert copper.get_potential_energy() == pytest.approx(EMT().get_potential_energy(copper), rel=1e-10)
    with pytest.raises(PropertyNotImplementedError, match="sent no stress"):
        copper.get_stress()
    assert np.isfinite(copper.get_forces()).all()


def test_a_client_that_is_killed_is_told_and_replaced(made, copper):
    calculator = copper.calc = made()
    energy = copper.get_potential_energy()
    os.kill(calculator.server.proc._process.pid, signal.SIGKILL)
    copper.positions += 0.1
    with pytest.raises(WorkerDiedError, match=r"closed its connection.*ended with signal SIGKILL"):
        copper.get_potential_energy()
    copper.positions -= 0.1
    assert copper.get_potential_energy() == pytest.approx(energy, rel=1e-10)


def test_a_code_that_ends_before_it_comes(made, copper):
    copper.calc = made("exits", timeout=None)
    with pytest.raises(WorkerDiedError, match=r"(?s)exit status 1; it last said:.*no such potential.*correct"):
        copper.get_potential_energy()


def test_a_code_that_is_not_there(made, copper):
    copper.calc = made(command="no-such-code {unixsocket}")
    with pytest.raises(CalculatorStartError, match=r"no-such-code.*correct"):
        copper.get_potential_energy()


def test_a_code_that_does_not_come(made, copper, monkeypatch):
    monkeypatch.setattr("mlipcluster.calculators.foreign_code.GRACE", 0.1)
    copper.calc = made(command="sleep 600", timeout=0.3)
    with pytest.raises(CallTimeoutError, match=r"no i-PI client came to unix:mlip.* within timeout=0\.3 s"):
        copper.get_potential_energy()


def test_a_code_that_does_not_answer(made, copper, monkeypatch):
    monkeypatch.setattr("mlipcluster.calculators.foreign_code.GRACE", 0.1)
    calculator = copper.calc = made("hangs", timeout=5)
    started = []

    def start(*arguments):
        started.append(ForeignCode(*arguments))
        return started[-1]

    monkeypatch.setattr("mlipcluster.calculators.ipi.ForeignCode", start)
    with pytest.raises(CallTimeoutError, match="timeout=5 s; give it more time"):
        copper.get_potential_energy()
    assert started[0].poll() is not None
    assert calculator.server.proc is None


def test_forces_that_are_no_numbers(made, copper):
    copper.calc = made("nan")
    with pytest.raises(CalculatorError, match="not finite"):
        copper.get_forces()


def test_another_number_of_atoms(made, copper):
    atoms = copper * (2, 1, 1)
    atoms.calc = made()
    with pytest.raises(CalculatorError, match=r"closed its connection|has 4 atoms and the structure 8"):
        atoms.get_forces()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda atoms: atoms.symbols.__setitem__(0, "Au"), "numbers"),
        (lambda atoms: atoms.set_pbc([True, True, False]), "pbc"),
        (lambda atoms: atoms.set_initial_charges([1, 0, 0, 0]), "initial_charges"),
    ],
)
def test_what_the_protocol_cannot_tell(made, copper, change, told):
    copper.calc = made()
    copper.get_potential_energy()
    change(copper)
    with pytest.raises(InputError, match=f"{told} changed.*make a calculator"):
        copper.get_potential_energy()


def test_no_structure_for_a_code(made, copper):
    calculator = copper.calc = made()
    copper.positions[1] = np.nan
    with pytest.raises(StructureError, match="position of atom 1"):
        copper.get_potential_energy()
    assert calculator.server.proc is None
    with pytest.raises(InputError, match="give atoms"):
        calculator.calculate()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "neither"),
        ({"unixsocket": "a", "port": 1}, "both"),
        ({"unixsocket": "a" * 100}, "shorter name"),
        ({"unixsocket": "a", "timeout": 0}, "timeout=0"),
        ({"unixsocket": "a", "command": ""}, "empty"),
        ({"port": 0, "host": "192.0.2.1"}, "address of this machine"),
    ],
)
def test_bad_input(given, told):
    with pytest.raises(InputError, match=told):
        SocketCalculator.from_ipi(**given)


def test_an_address_that_is_taken(made, name):
    made(command=None)
    with pytest.raises(InputError, match=f"in use.*remove /tmp/ipi_{name}"):
        IPICalculator(name)
    assert os.path.lexists(f"/tmp/ipi_{name}")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=re.escape(f"127.0.0.1:{port}") + r".*in use.*port that is free"):
            IPICalculator(port=port)
