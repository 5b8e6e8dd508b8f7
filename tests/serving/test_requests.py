"""What each request of the wire is answered."""

from __future__ import annotations

import threading

import pytest

from mlipcluster.calculators.provenance import Provenance
from mlipcluster.errors import InputError
from mlipcluster.serving import address, status
from mlipcluster.serving.dial import dial
from mlipcluster.serving.requests import LONGEST_NAME, named, refusal
from mlipcluster.serving.server import Options
from mlipcluster.socket_worker import wire


@pytest.fixture
def ask(serve, trial):
    """Ask a server that serves one calculator: ``ask(kind, …)``; the answer."""
    from mlipcluster.serving.address import parse

    here = serve(Options(max_request=1 << 20), sums=trial("Trial", info_keys=("field",)))
    connection = dial(parse(here.address))
    yield lambda kind, **header: connection.request({"kind": kind, **header}, timeout=60).header
    connection.close()


def test_what_is_said_of_a_calculator_before_it_is_asked_anything(ask):
    told = {"kind": "opened", "info_keys": ["field"], "max_request": 1 << 20}
    assert ask("open", calculator="sums") == told
    assert ask("status")["workers"] == []  # nothing was started for that
    refused = ask("open", calculator="sum")
    assert (refused["kind"], refused["error"]) == ("refused", "InputError")
    assert "Did you mean 'sums'?" in refused["message"]


def test_a_worker_says_what_it_is_and_that_is_no_call(ask):
    answer = ask("provenance", calculator="sums")
    assert Provenance.from_json(answer["provenance"]).implemented_properties == ("energy", "forces")
    assert [worker["calls"] for worker in ask("status")["workers"]] == [0]


def test_a_structure_is_whole_or_refused_before_anything_is_started(ask):
    for told in ({}, {"whole": False}):
        assert "say whole: true" in ask("calculate", calculator="sums", properties=["energy"], **told)["message"]
    assert ask("status")["workers"] == []


def test_a_name_is_as_long_as_is_taken():
    for length in (1, LONGEST_NAME):
        assert named(wire.Message(1, {"calculator": length * "x"}, {}, memoryview(b""))) == length * "x"
    with pytest.raises(InputError, match=f"at most {LONGEST_NAME} characters"):
        named(wire.Message(1, {"calculator": (LONGEST_NAME + 1) * "x"}, {}, memoryview(b"")))


def test_a_refusal_fits_into_a_frame_whatever_was_said():
    (message,) = wire.Decoder().feed(refusal("CalculatorError", "ä" * (1 << 22), 7))
    assert (message.id, message.header["error"]) == (7, "CalculatorError")
    assert set(message.header["message"]) == {"ä"}


def test_what_runs_is_looked_at_once_for_all_who_ask_meanwhile(serve, monkeypatch):
    """Starts and ends of workers share the threads that look, and must not stand behind thousands of looks."""
    looks, look, begun = [], status.measured, threading.Event()

    def slow(seen):
        begun.wait(60)
        looks.append(seen)
        return look(seen)

    monkeypatch.setattr(status, "measured", slow)
    here = serve()
    decoder, numbers = wire.Decoder(), []
    with address.connect(here.address) as sock:
        sock.settimeout(60)
        sock.sendall(b"".join(wire.encode({"kind": "status"}, request_id=number) for number in range(1, 301)))
        sock.sendall(wire.encode({"kind": "list"}, request_id=301))
        while len(numbers) < 301:
            numbers += [message.id for message in decoder.feed(sock.recv(1 << 16))]
            begun.set()
    assert sorted(numbers) == list(range(1, 302))
    assert len(looks) == 2
