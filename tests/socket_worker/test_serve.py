"""The worker over real sockets, with clients that behave and clients that do not."""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path

import numpy as np
import pytest

from mlipcluster.calculators.connection import Connection, ConnectionLostError
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.calculators.worker_process import WorkerProcess
from mlipcluster.socket_worker import wire
from mlipcluster.socket_worker.client import is_own_user

TRIAL = Path(__file__).parents[1] / "calculators" / "trial"
WHOLE = {"kind": "calculate", "whole": True, "info": {}, "properties": ["energy", "forces"]}


class Worker:
    """A worker and as many connections to it as a test wants."""

    def __init__(self, factory: str, *, configured: bool = True) -> None:
        self.process = WorkerProcess(CalculatorSpec(factory))
        self.opened = []
        self.first = self.connect()
        if configured:
            self.first.request({"kind": "configure", "spec": {"factory": factory, "paths": [str(TRIAL)]}})

    def connect(self) -> Connection:
        self.opened.append(self.process.connect())
        return self.opened[-1]

    def raw(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        self.opened.append(sock)
        sock.settimeout(60)
        sock.connect(self.process.address)
        return sock

    def close(self) -> None:
        self.process.close()
        for connection in self.opened:
            connection.close()


@pytest.fixture(scope="module")
def worker():
    worker = Worker("trial:Tells")
    yield worker
    worker.close()


@pytest.fixture
def plain():
    worker = Worker("trial:Trial")
    yield worker
    worker.close()


def structure(count=2, value=1.0):
    return {
        "numbers": np.full(count, 29),
        "positions": np.full((count, 3), value),
        "cell": np.eye(3),
        "pbc": np.ones(3, bool),
    }


def told(message):
    return message.header["values"]["told"]


def test_system_changes_are_exact(worker):
    connection = worker.connect()
    everything = ["cell", "initial_charges", "initial_magmoms", "numbers", "pbc", "positions"]
    assert told(connection.request(WHOLE, structure()))["changes"] == everything
    for arrays, changes in (
        ({"positions": np.zeros((2, 3))}, ["positions"]),
        ({"cell": 2 * np.eye(3), "positions": np.ones((2, 3))}, ["cell", "positions"]),
        ({"numbers": np.array([1, 2])}, ["numbers"]),
        ({"pbc": np.zeros(3, bool)}, ["pbc"]),
        ({"initial_magmoms": np.ones(2)}, ["initial_magmoms"]),
        ({"tags": np.ones(2, int)}, everything),
        ({}, []),
    ):
        message = connection.request({"kind": "calculate", "properties": ["told"]}, arrays)
        if changes:
            assert told(message)["changes"] == changes
        else:  # known already: nothing was calculated again
            assert told(message)["changes"] == everything
    gone = connection.request({"kind": "calculate", "properties": ["told"], "removed": ["initial_magmoms"]})
    assert told(gone)["changes"] == ["initial_magmoms"]
    assert "initial_magmoms" not in told(gone)["arrays"]


def test_another_connection_in_between_changes_everything(worker):
    one, two = worker.connect(), worker.connect()
    one.request(WHOLE, structure())
    two.request(WHOLE, structure(3, 7.0))
    answer = one.request({"kind": "calculate", "properties": ["told"]}, {"positions": np.zeros((2, 3))})
    assert len(told(answer)["changes"]) == 6
    assert told(answer)["arrays"]["positions"] == [[0.0] * 3] * 2
    assert told(answer)["arrays"]["numbers"] == [29, 29]


@pytest.mark.parametrize(
    ("header", "arrays", "words"),
    [
        ({"kind": "calculate", "properties": ["energy"]}, {}, "whole structure"),
        ({"kind": "dance"}, {}, "'dance'"),
        ({}, {}, "None"),
        ({"kind": "calculate", "properties": ["energy"], "whole": True}, {"numbers": np.ones(1, int)}, "needs"),
        ({**WHOLE}, {**structure(), "positions": np.zeros((3, 3))}, ""),
        ({**WHOLE}, {**structure(), "momenta": np.zeros((2, 3))}, "momenta"),
        ({**WHOLE}, {**structure(), "tags": np.zeros(3, int)}, "tags"),
        ({"kind": "configure", "spec": {}}, {}, "configured already"),
    ],
)
def test_a_wrong_request_gets_an_answer_and_the_connection_lives(worker, header, arrays, words):
    connection = worker.connect()
    answer = connection.request(header, arrays)
    assert answer.header["kind"] == "error"
    assert words in answer.header["message"]
    assert connection.request(WHOLE, structure()).header["kind"] == "results"


def test_a_bad_frame_is_told_and_costs_that_connection_only(worker):
    sock = worker.raw()
    sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    stream = b""
    while block := sock.recv(1 << 16):
        stream += block
    (answer,) = wire.Decoder().feed(stream)
    assert answer.id == 0
    assert "FrameError" in answer.header["types"][0]
    assert worker.first.request({"kind": "provenance"}).header["kind"] == "provenance"


def test_a_client_that_vanishes_within_a_frame_harms_nobody(worker):
    sock = worker.raw()
    sock.sendall(wire.encode(WHOLE, structure(), 1)[:100])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    assert worker.first.request({"kind": "provenance"}).header["kind"] == "provenance"


def test_a_client_that_does_not_read_holds_up_nobody(plain):
    sock = plain.raw()
    request = wire.encode(WHOLE, structure(50_000), 1)  # its answer is larger than any socket's buffer
    sock.sendall(request)
    sock.setblocking(False)
    taken = 0
    with contextlib.suppress(BlockingIOError):
        for taken in range(1000):  # noqa: B007 - read below
            sock.sendall(request)
    assert taken < 10  # no more is taken from a client that does not take its answer
    other = plain.connect()
    assert other.request(WHOLE, structure(value=2.0)).arrays["energy"] == 12.0
    sock.setblocking(True)
    decoder, messages = wire.Decoder(), []
    while not messages:
        messages += decoder.feed(sock.recv(1 << 20))
    assert messages[0].arrays["forces"].shape == (50_000, 3)


def test_pipelined_requests_are_answered_in_order(plain):
    sock = plain.raw()
    stream = wire.encode(WHOLE, structure(), 1)
    for number in range(2, 50):
        positions = np.full((2, 3), float(number))
        stream += wire.encode({"kind": "calculate", "properties": ["energy"]}, {"positions": positions}, number)
    sock.sendall(stream)
    decoder, messages = wire.Decoder(), []
    while len(messages) < 49:
        messages += decoder.feed(sock.recv(777))
    assert [message.id for message in messages] == list(range(1, 50))
    assert [float(message.arrays["energy"]) for message in messages] == [6.0, *(6.0 * n for n in range(2, 50))]


def test_an_unconfigured_worker_says_so():
    with contextlib.closing(Worker("ase.calculators.emt:EMT", configured=False)) as worker:
        assert "not configured" in worker.first.request({"kind": "provenance"}).header["message"]


def test_stop_ends_it_with_status_zero(plain):
    assert plain.first.request({"kind": "stop"}).header["kind"] == "done"
    assert plain.process.wait(60) == 0
    with pytest.raises(ConnectionLostError):
        plain.first.request({"kind": "provenance"})


def test_the_worker_folder_shadows_no_module():
    """``wire`` and ``serve`` may be names of a user's modules."""
    with contextlib.closing(Worker("wire:DTYPES", configured=False)) as worker:
        answer = worker.first.request({"kind": "configure", "spec": {"factory": "wire:DTYPES"}})
        assert answer.header["types"][0] == "builtins.ModuleNotFoundError"


def test_only_this_user_is_served(monkeypatch):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert is_own_user(ours)
        monkeypatch.setattr("os.getuid", lambda: 4_000_000)
        assert not is_own_user(ours)


def test_late_answers_are_dropped_and_impossible_ones_refused():
    ours, theirs = socket.socketpair()
    connection = Connection(ours)
    connection._id = 4
    theirs.sendall(wire.encode({"n": 3}, {}, 3) + wire.encode({"n": 4}, {}, 4) + wire.encode({"n": 5}, {}, 5))
    assert connection.request({"kind": "x"}).header == {"n": 5}
    theirs.sendall(wire.encode({}, {}, 99))
    with pytest.raises(wire.FrameError, match="99, which was never sent"):
        connection.request({"kind": "x"})
    assert connection.closed
    theirs.close()
