"""What a Dask worker does that hosts a calculator, when its job is about to end, and when its server has gone."""

from __future__ import annotations

import math
import socket
import threading

import numpy as np
import pytest
from ase.build import bulk

from mlipcluster.calculators.host import WorkerHost
from mlipcluster.deploy.certificates import issue
from mlipcluster.deploy.ending import VARIABLE, announce
from mlipcluster.deploy.tls import from_credentials
from mlipcluster.serving import far
from mlipcluster.serving.credentials import server_context, worker_context
from mlipcluster.serving.dial import TlsConnection
from mlipcluster.serving.server import Options
from mlipcluster.socket_worker import wire


@pytest.fixture
def ending(tmp_path, monkeypatch):
    """Say when the job ends in which all workers of this test are: ``ending(seconds)``."""
    file = tmp_path / "ending"
    announce(file, math.inf)
    monkeypatch.setenv(VARIABLE, str(file))
    return lambda seconds: announce(file, seconds)


def test_before_its_job_ends_it_takes_no_more_and_finishes_what_it_does(
    serve_on_nodes, trial, cu, until, tmp_path, ending
):
    here = serve_on_nodes(waits=trial("WaitsFor", args=(str(tmp_path / "go"),)))
    found = []
    calculator, other = here.calculator("waits"), here.calculator("waits")
    thread = threading.Thread(target=lambda: found.append(calculator.get_property("energy", cu())))
    thread.start()
    until((tmp_path / "go.begun").exists)
    (worker,) = here.workers()
    ending(10)
    until(lambda: here.workers("ending"))
    assert found == []
    ending(math.inf)
    (tmp_path / "go").touch()
    thread.join()
    assert found == [pytest.approx(cu().positions.sum())]
    assert other.get_property("energy", cu(1)) == pytest.approx(cu(1).positions.sum())
    assert worker["number"] not in [one["number"] for one in here.workers()]


def test_an_idle_one_leaves_before_its_job_ends(serve_on_nodes, cu, until, ending):
    here = serve_on_nodes()
    with here.calculator() as calculator:
        calculator.get_property("energy", cu())
        ending(10)
        until(lambda: not here.workers())


def test_what_is_large_travels_in_pieces(serve_on_nodes, trial):
    """More at a time than TLS, or a socket's buffer, takes at once; each way."""
    crystals = [bulk("Cu", cubic=True) * (20 + number, 25, 25) for number in range(3)]
    here = serve_on_nodes(sums=trial("Trial"))
    with here.calculator("sums") as calculator:
        found = calculator.evaluate(crystals, ("energy", "forces"))
    assert [one["energy"] for one in found] == [atoms.positions.sum() for atoms in crystals]
    assert [one["forces"].shape for one in found] == [atoms.positions.shape for atoms in crystals]
    assert all((one["forces"] == -1.0).all() for one in found)


def test_who_hosts_it_says_how_much_memory_it_takes(serve_on_nodes, cu, until):
    here = serve_on_nodes()
    with here.calculator() as calculator:
        calculator.get_property("energy", cu())
    until(lambda: (here.workers("idle")[0]["memory"] or 0) > 1 << 20)
    assert here.workers()[0]["pid"] is None  # it may be of another machine


def test_when_the_connection_to_its_server_is_lost_it_ends(serve_on_nodes, cu, until, below):
    here = serve_on_nodes()
    with here.calculator() as calculator:
        calculator.get_property("energy", cu())
        (seat,) = here.server.seats.values()
        (before,) = below("socket_worker")
        here.server.loop.post(lambda: seat.stream.socket.shutdown(socket.SHUT_RDWR))
        until(lambda: not before.is_running())
        calculator.get_property("energy", cu(1))


def test_answers_may_be_larger_than_requests(serve_on_nodes, large, cu):
    here = serve_on_nodes(Options(max_request=1 << 20), large=large)
    with here.calculator("large", retries=0) as calculator:
        assert calculator.get_property("hessian", cu()).sum() == np.arange(1 << 20, dtype=float).sum()


class Handed:
    """The server's end of a connection to a host of a calculator."""

    def __init__(self, sock):
        self.socket = sock
        self.decoder = wire.Decoder()

    def ask(self, atoms):
        arrays = {"numbers": atoms.numbers, "positions": atoms.positions, "cell": atoms.cell.array, "pbc": atoms.pbc}
        header = {"kind": "calculate", "whole": True, "info": {}, "properties": ["energy", "forces"]}
        self.socket.sendall(wire.encode(header, arrays, request_id=7))

    def hear(self):
        """The next frame; None at the end."""
        while (message := self.decoder.next()) is None:
            count = self.socket.recv_into(self.decoder.space())
            if not count:
                return None
            self.decoder.received(count)
        return message


@pytest.fixture
def handed(trial):
    """A calculator whose frames are handed on over TLS: ``handed(name)``."""
    security, running = from_credentials(issue()), []

    def start(name):
        ours, theirs = socket.socketpair()
        host = WorkerHost(trial(name))
        host.start()

        def hand_on():
            with worker_context(security).wrap_socket(theirs) as sock:
                far._hand_on(TlsConnection(sock), host)

        thread = threading.Thread(target=hand_on)
        thread.start()
        server = server_context(security).wrap_socket(ours, server_side=True)
        server.settimeout(60.0)
        running.append((server, thread, host))
        return Handed(server)

    yield start
    for server, thread, host in running:
        server.close()
        thread.join()
        host.stop()


def test_an_answer_is_not_broken_by_what_else_is_said(handed, monkeypatch):
    monkeypatch.setattr(far, "MEMORY_EVERY", 0.0)
    server = handed("Trial")
    atoms = bulk("Cu", cubic=True) * (40, 40, 10)
    atoms.rattle(0.1, seed=1)
    for _ in range(5):
        server.ask(atoms)
        while (message := server.hear()).id == 0:
            assert message.header["kind"] == "memory"
        assert message.id == 7
        assert np.all(message.arrays["forces"] == -1.0)
