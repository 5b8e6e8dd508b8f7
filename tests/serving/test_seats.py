"""Where workers sit: how they get requests, how they end, and what is said of those that died."""

from __future__ import annotations

import os
import signal
import socket
import threading

import pytest

from mlipcluster.calculators.host import WorkerHost
from mlipcluster.serving import seats
from mlipcluster.serving.fair_queue import Request
from mlipcluster.serving.seats import HereSeat, JoinedSeat
from mlipcluster.serving.stream import Stream
from mlipcluster.socket_worker import wire


@pytest.fixture
def pairs():
    """Two streams and who is at their other ends: of a worker, and of whoever looks after it."""
    ends = [socket.socketpair() for _ in range(2)]
    streams = [Stream(ours) for ours, _ in ends]
    yield streams, [theirs for _, theirs in ends]
    for stream, (_, theirs) in zip(streams, ends, strict=True):
        stream.close()
        theirs.close()


@pytest.fixture
def seat(pairs):
    (stream, control), _ = pairs
    return JoinedSeat(7, "emt", stream, {}, control)


@pytest.fixture
def here(trial, tmp_path):
    host = WorkerHost(trial("Trial"))
    host.start()
    seat = HereSeat(1, "sums", host)
    yield seat
    host.kill()
    seat.stream.close()


def question(number):
    return Request(1, number, "emt", bytearray(wire.encode({"kind": "provenance"}, request_id=number)))


def received(sock):
    return [(one.id, one.header) for one in wire.Decoder().feed(sock.recv(1 << 16))]


def test_each_request_has_a_number_of_the_seats_own(seat, pairs):
    for number, count in ((500, 1), (500, 2)):
        seat.give(asked := question(number))
        assert received(pairs[1][0]) == [(count, {"kind": "provenance"})]
        assert seat.request is asked
        assert seat.id == count


def test_whoever_looks_after_it_is_asked_to_end_it(seat, pairs):
    for at_once in (False, True):
        seat.end(at_once=at_once)
        assert received(pairs[1][1]) == [(0, {"kind": "end", "at_once": at_once})]
    assert seat.is_heard_alone
    assert not seat.blocks


def test_the_first_word_about_its_death_counts(seat):
    threading.Timer(0.1, seat.said, ["signal SIGKILL"]).start()
    assert seat.how() == "signal SIGKILL"  # it was waited for
    seat.said("something else")
    assert seat.how() == "signal SIGKILL"


def test_when_nobody_says_a_word(seat, monkeypatch):
    monkeypatch.setattr(seats, "WORDS_SECONDS", 0.05)
    assert seat.how() == "its connection lost; whoever looked after it said nothing"


def test_no_word_is_waited_for_that_would_have_come_over_what_was_lost(pairs, monkeypatch):
    monkeypatch.setattr(seats, "WORDS_SECONDS", 1000.0)
    (stream, _), _ = pairs
    far = JoinedSeat(7, "emt", stream, {}, stream)
    assert not far.is_heard_alone
    assert far.how().startswith("its connection lost")


@pytest.mark.parametrize("at_once", [False, True])
def test_one_that_is_hosted_here_is_ended(here, at_once):
    assert (here.where, here.blocks, here.is_heard_alone) == ("here", True, True)
    assert here.told["implemented_properties"] == ["energy", "forces"]
    assert os.path.exists(f"/proc/{here.pid}")
    here.end(at_once=at_once)
    assert not os.path.exists(f"/proc/{here.pid}")


def test_of_one_that_is_hosted_here_it_is_seen_how_it_ended(here):
    os.kill(here.pid, signal.SIGSEGV)
    assert here.how().startswith("signal SIGSEGV")
