"""Real servers: ASE's own ``SocketIOCalculator``, here or in a process that is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.socketio import SocketClosed, SocketIOCalculator
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from mlipcluster.errors import InputError, RemoteCalculatorError, ServerGoneError, StructureError
from mlipcluster.serving.ipi import drive, serve_ipi

SERVE = "import json, sys; from mlipcluster.serving.ipi import serve_ipi; print(serve_ipi(*json.loads(sys.argv[1])))"
SERVER = """
import sys, time
from ase.calculators.socketio import SocketIOCalculator
from ase.io import read
atoms = read(sys.argv[2])
atoms.calc = SocketIOCalculator(unixsocket=sys.argv[1])
atoms.get_forces()
print("answered", flush=True)
if sys.argv[3] == "in a calculation":
    atoms.rattle(0.01)
    atoms.get_forces()
time.sleep(600)
"""


class Energies(Calculator):
    """Has no stress, and whatever else is asked of it here."""

    implemented_properties = ("energy", "forces")

    def __init__(self, seen=None, error=None):
        super().__init__()
        self.seen, self.error = seen if seen is not None else [], error

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.seen.append(atoms.copy())
        if self.error and len(self.seen) > 1:
            raise self.error
        self.results = {"energy": 1.0, "forces": np.ones((len(atoms), 3))}


class Stressed(Energies):
    implemented_properties = ("energy", "forces", "stress")

    def calculate(self, *arguments, **more):
        super().calculate(*arguments, **more)
        self.results["stress"] = np.arange(6.0)


class Slow(Stressed):
    def calculate(self, *arguments, **more):
        super().calculate(*arguments, **more)
        if len(self.seen) > 1:
            self.seen[0].info["in"].set()
            self.seen[0].info["go on"].wait(60)


@pytest.fixture
def name():
    return f"mlipcluster-{uuid.uuid4().hex}"


@pytest.fixture
def copper():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=1)
    return atoms


@pytest.fixture
def aside():
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


@pytest.fixture
def server(name, aside):
    """Closed before what goes on aside is waited for."""
    with SocketIOCalculator(unixsocket=name, timeout=100) as calculator:
        yield calculator


@pytest.fixture
def driven(name, server, aside):
    """Drive a calculator aside, and give what `drive` gives as a future."""

    def start(calculator, atoms, **options):
        return aside(drive, calculator, f"unix:{name}", atoms, **options)

    return start


@pytest.fixture
def served(tmp_path, copper):
    """`serve_ipi` of EMT in a process of its own."""
    copper.write(tmp_path / "start.extxyz")
    processes = []

    def start(target, calculator="emt"):
        told = json.dumps([calculator, target, str(tmp_path / "start.extxyz")])
        process = subprocess.Popen([sys.executable, "-c", SERVE, told], stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_ase_drives_a_calculator(served, copper, name, kind):
    address = {"unix": {"unixsocket": name}, "tcp": {"port": 0}}[kind]
    with SocketIOCalculator(**address, timeout=100) as calculator:
        port = calculator.server.serversocket.getsockname()[1] if kind == "tcp" else 0
        process = served({"unix": f"unix:{name}", "tcp": f"localhost:{port}"}[kind])
        for step in range(4):
            copper.rattle(0.02, seed=step)
            copper.set_cell(copper.cell * (1 + 0.01 * step), scale_atoms=True)
            reference = copper.copy()
            copper.calc, reference.calc = calculator, EMT()
            for ask in ("get_potential_energy", "get_forces", "get_stress"):
                expected = getattr(reference, ask)()
                np.testing.assert_allclose(getattr(copper, ask)(), expected, rtol=1e-10, atol=1e-13)
    assert process.communicate(timeout=60)[0] == "4\n"
    assert process.returncode == 0


def test_ase_relaxes_with_the_cell(served, copper, name, server):
    served(f"unix:{name}")
    reference = copper.copy()
    copper.calc, reference.calc = server, EMT()
    for atoms in (copper, reference):
        assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-3, steps=100)
    np.testing.assert_allclose(copper.cell, reference.cell, atol=1e-6)


def test_a_server_that_comes_late(copper, name, aside):
    future = aside(drive, Stressed(), f"unix:{name}", copper)
    time.sleep(0.3)
    with SocketIOCalculator(unixsocket=name, timeout=100) as calculator:
        copper.calc = calculator
        np.testing.assert_allclose(copper.get_stress(), np.arange(6.0), rtol=1e-10)
    assert future.result(60) == 1


def test_no_server(copper, name, tmp_path):
    with pytest.raises(ServerGoneError, match=rf"unix:{name} within 0\.2 s .*more time"):
        drive(Stressed(), f"unix:{name}", copper, timeout=0.2)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        port = unused.getsockname()[1]
        with pytest.raises(ServerGoneError, match=rf"127\.0\.0\.1:{port} within 0\.2 s"):
            drive(Stressed(), f"127.0.0.1:{port}", copper, timeout=0.2)
    with pytest.raises(ServerGoneError, match=r"no-such-host\.invalid:1"):
        drive(Stressed(), "no-such-host.invalid:1", copper, timeout=5)


@pytest.mark.parametrize("when", ["between two calculations", "in a calculation"])
def test_a_server_that_is_killed(copper, name, tmp_path, aside, when):
    copper.write(tmp_path / "start.traj")
    entered, go_on = threading.Event(), threading.Event()
    command = [sys.executable, "-c", SERVER, name, str(tmp_path / "start.traj"), when]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        calculator = Slow()
        future = aside(drive, calculator, f"unix:{name}", copper, timeout=100)
        assert process.stdout.readline() == "answered\n"
        calculator.seen[0].info.update({"in": entered, "go on": go_on})
        if when == "in a calculation":
            assert entered.wait(60)
        process.send_signal(signal.SIGKILL)
        process.wait()
        go_on.set()
        if when == "in a calculation":
            with pytest.raises(ServerGoneError, match=rf"unix:{name} was lost.*start both again"):
                future.result(60)
        else:
            assert future.result(60) == 1
    os.unlink(f"/tmp/ipi_{name}")


def test_zeros_are_told_for_a_stress_only_where_that_was_agreed(driven, server, copper):
    with pytest.raises(InputError, match=r"no stress.*--no-stress"):
        driven(Energies(), copper).result(60)
    future = driven(Energies(), copper, stress=False)
    copper.calc = server
    assert copper.get_potential_energy() == pytest.approx(1.0, rel=1e-12)
    assert not copper.get_stress().any()
    server.close()
    assert future.result(60) == 1


def test_a_cell_where_the_structure_has_none(driven, server, copper):
    """Else the stress would be told as zeros, and the energy be that of a cluster."""
    alone = copper.copy()
    alone.pbc = False
    future = driven(Stressed(), alone)
    copper.calc = server
    with pytest.raises((SocketClosed, ConnectionError)):
        copper.get_stress()
    with pytest.raises(InputError, match=r"not periodic.*--no-stress"):
        future.result(60)


def test_a_molecule(driven, server):
    water = molecule("H2O")
    future = driven(Energies(), water)
    water.calc = server
    assert water.get_forces().shape == (3, 3)
    server.close()
    assert future.result(60) == 1


@pytest.mark.parametrize("size", [1, 3, 8])
def test_another_number_of_atoms(driven, server, copper, size):
    future = driven(Stressed(), copper)
    other = Atoms(["Cu"] * size, positions=np.arange(3.0 * size).reshape(-1, 3), cell=copper.cell, pbc=True)
    other.calc = server
    with pytest.raises((SocketClosed, ConnectionError)):
        other.get_forces()
    with pytest.raises(InputError, match=f"has {size} atoms and the structure 4"):
        future.result(60)


def test_constraints_are_the_servers_affair(driven, server, copper):
    free = copper.copy()
    copper.set_constraint(FixAtoms([0]))
    calculator = Stressed()
    future = driven(calculator, copper)
    free.positions += 0.1
    free.calc = server
    assert free.get_forces().all()
    np.testing.assert_allclose(calculator.seen[0].positions, free.positions)
    assert copper.constraints
    server.close()
    assert future.result(60) == 1


def test_an_error_of_the_calculator_is_its_own(driven, server, copper):
    future = driven(Energies(error=KeyError("no such element")), copper, stress=False)
    copper.calc = server
    copper.get_forces()
    copper.rattle(0.1)
    with pytest.raises((SocketClosed, ConnectionError)):
        copper.get_forces()
    with pytest.raises(KeyError, match="no such element"):
        future.result(60)


def test_an_error_of_a_process_ends_it(name, server, aside, tmp_path):
    """EMT knows no xenon; `serve_ipi` ends with what EMT says."""
    xenon = bulk("Xe", cubic=True)
    xenon.write(tmp_path / "xenon.extxyz")
    future = aside(serve_ipi, "emt", f"unix:{name}", tmp_path / "xenon.extxyz", timeout=100)
    xenon.calc = server
    with pytest.raises((SocketClosed, ConnectionError)):
        xenon.get_forces()
    with pytest.raises(RemoteCalculatorError, match="Xe") as raised:
        future.result(60)
    assert isinstance(raised.value, NotImplementedError)


def test_positions_that_are_no_numbers(driven, server, copper):
    future = driven(Stressed(), copper)
    copper.positions[0] = np.nan
    copper.calc = server
    with pytest.raises((SocketClosed, ConnectionError)):
        copper.get_forces()
    with pytest.raises(StructureError, match="not finite"):
        future.result(60)


@pytest.mark.parametrize("said", [b"HTTP/1.1 400", b"\xff" * 12, b"GETFORCE    ", b"INIT        "])
def test_a_server_of_something_else(aside, copper, said):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        future = aside(drive, Stressed(), f"127.0.0.1:{listener.getsockname()[1]}", copper)
        connection, _ = listener.accept()
        with connection:
            connection.sendall(said)
            with pytest.raises(InputError, match="speaks i-PI's protocol"):
                future.result(60)
            assert connection.recv(1) == b""


@pytest.mark.parametrize(
    ("target", "content", "told"),
    [
        ("/tmp/ipi_a", "1\n\nCu 0 0 0\n", "give unix:NAME or HOST:PORT"),
        ("unix:a", "no structure", "cannot be read"),
        ("unix:a", None, "cannot be read"),
        ("unix:a", "1\n\nCu 0 0 nan\n", "position of atom 0"),
    ],
)
def test_bad_input(tmp_path, target, content, told):
    if content is not None:
        (tmp_path / "start.xyz").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=told):
        serve_ipi("emt", target, tmp_path / "start.xyz", timeout=0.1)


def test_the_settings_tables_count(tmp_path, monkeypatch, name):
    (tmp_path / "mine.py").write_text("CALCULATORS = {'mine': 'ase.calculators.emt:EMT'}\n")
    (tmp_path / "start.xyz").write_text("1\n\nCu 0 0 0\n")
    monkeypatch.setenv("MLIPCLUSTER_SERVE_CALCULATORS", f"{tmp_path / 'mine.py'}:CALCULATORS")
    with pytest.raises(ServerGoneError, match="no i-PI server"):  # so the calculator is known
        serve_ipi("mine", f"unix:{name}", tmp_path / "start.xyz", timeout=0.1)
