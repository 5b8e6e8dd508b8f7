"""What a client is given, and how much is taken from one that asks without a pause."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from mlipcluster.serving import address, clients
from mlipcluster.serving.server import Options
from mlipcluster.socket_worker import wire


def question(atoms, number, name="waits"):
    """A frame that asks for the energy of a structure."""
    arrays = {**atoms.arrays, "numbers": atoms.numbers.astype("|u1"), "cell": atoms.cell.array, "pbc": atoms.pbc}
    header = {"kind": "calculate", "calculator": name, "whole": True, "properties": ["energy"]}
    return wire.encode(header, arrays, request_id=number)


def answers(sock, count):
    decoder, found = wire.Decoder(), []
    sock.settimeout(30)
    while len(found) < count:
        data = sock.recv(1 << 16)
        assert data, "the server ended the connection"
        found += decoder.feed(data)
    return found


@pytest.fixture
def waiting(serve, trial, tmp_path, until):
    """A server whose one calculator waits until the test says so: ``here, client, go``."""
    here = serve(Options(max_workers=2), waits=trial("WaitsFor", args=(str(tmp_path / "go"),)), emt=trial("Trial"))
    with address.connect(here.address) as sock:
        yield here, sock, (tmp_path / "go").touch


def of(here, count):
    """The client that has asked so much."""
    return [one for one in here.server.clients._here.values() if one.pending >= count]


def test_an_answer_may_be_larger_than_what_a_request_may_be(serve, large, cu):
    here = serve(Options(max_request=1 << 20), large=large)
    with here.calculator("large", retries=0) as calculator:
        assert calculator.get_property("hessian", cu()).sum() == np.arange(1 << 20, dtype=float).sum()


def test_of_a_client_with_much_pending_no_more_is_taken(waiting, cu, until):
    """Others are served meanwhile, and the rest is taken once it has its answers."""
    here, sock, go = waiting
    crystals = {number: cu(number) * (3, 3, 3) for number in range(1, 2 * clients.MOST_PENDING + 1)}
    frames = [question(atoms, number) for number, atoms in crystals.items()]
    thread = threading.Thread(target=sock.sendall, args=(b"".join(frames),))
    thread.start()
    (client,) = until(lambda: [one for one in of(here, clients.MOST_PENDING) if not one.reads])
    for seed in range(3):
        assert here.calculator("emt").get_property("energy", cu(seed)) == pytest.approx(cu(seed).positions.sum())
    assert client.pending < len(frames)
    go()
    found = {message.id: float(message.arrays["energy"]) for message in answers(sock, len(frames))}
    thread.join()
    assert found == {number: pytest.approx(atoms.positions.sum()) for number, atoms in crystals.items()}
    until(lambda: client.reads)
    assert (client.pending, client.held) == (0, 0)


def test_of_a_client_with_large_requests_no_more_is_taken(waiting, cu, until, monkeypatch):
    here, sock, go = waiting
    atoms = cu() * (20, 20, 20)
    frames = [question(atoms, number) for number in range(1, 21)]
    monkeypatch.setattr(clients, "MOST_HELD", 3 * len(frames[0]))
    thread = threading.Thread(target=sock.sendall, args=(b"".join(frames),))
    thread.start()
    (client,) = until(lambda: [one for one in of(here, 3) if not one.reads])
    assert here.calculator("emt").get_property("energy", cu()) == pytest.approx(cu().positions.sum())
    assert client.held < sum(map(len, frames)) / 2
    assert thread.is_alive()
    go()
    assert [message.id for message in answers(sock, 20)] == list(range(1, 21))
    thread.join()
    until(lambda: client.reads)
    assert (client.pending, client.held) == (0, 0)
