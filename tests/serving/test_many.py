"""Many requests over one connection, against a peer that does what the test says."""

from __future__ import annotations

import socket
import threading

import pytest

from mlipcluster.calculators.connection import Connection, ConnectionLostError
from mlipcluster.serving.many import WINDOW, exchange
from mlipcluster.socket_worker import wire


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    theirs.settimeout(30)
    connection = Connection(ours)
    yield connection, theirs
    connection.close()
    theirs.close()


@pytest.fixture
def peer(pair):
    """Have a thread play the server: ``peer(play)``, where *play* gets the server's end of the connection."""
    threads = []

    def start(play):
        threads.append(threading.Thread(target=play, args=(pair[1],)))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join()


def frames(count, size=0):
    return [lambda n=n: wire.encode({"kind": "calculate", "number": n, "more": size * "x"}) for n in range(count)]


def take(sock, count):
    """So many requests."""
    decoder, found = wire.Decoder(), []
    while len(found) < count:
        found += decoder.feed(sock.recv(1 << 16))
    return found


def answer(sock, messages):
    sock.sendall(b"".join(wire.encode({"to": one.header["number"]}, request_id=one.id) for one in messages))


def test_answers_are_given_in_whatever_order_they_come(pair, peer):
    peer(lambda sock: answer(sock, take(sock, 10)[::-1]))
    found = [(place, message.header["to"]) for place, message in exchange(pair[0], frames(10))]
    assert found == [(n, n) for n in reversed(range(10))]


def test_the_connection_is_fit_for_another_request_afterwards(pair, peer):
    for _ in range(2):
        peer(lambda sock: answer(sock, take(sock, 3)))
        assert len(list(exchange(pair[0], frames(3)))) == 3
    assert not pair[0].closed
    assert pair[0].socket.gettimeout() is None


def test_no_more_are_under_way_than_the_window_holds(pair, peer):
    seen = []

    def play(sock):
        first = take(sock, WINDOW)
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        sock.settimeout(30)
        answer(sock, first[:1])
        second = take(sock, 1)
        seen.append([one.header["number"] for one in [*first, *second]])
        answer(sock, [*first[1:], *second])

    peer(play)
    assert len(list(exchange(pair[0], frames(WINDOW + 1)))) == WINDOW + 1
    assert seen == [list(range(WINDOW + 1))]


def test_a_frame_is_made_when_it_is_its_turn(pair, peer):
    made = []
    told = [lambda n=n, frame=frame: (made.append(n), frame())[1] for n, frame in enumerate(frames(WINDOW + 5))]
    peer(lambda sock: (answer(sock, take(sock, WINDOW)), answer(sock, take(sock, 5))))
    found = exchange(pair[0], told)
    next(found)
    assert len(made) == WINDOW
    assert len(list(found)) == WINDOW + 4


def test_both_sides_may_have_more_to_say_than_sockets_hold(pair, peer):
    """Whoever only sent, or only read, would wait for ever."""
    size, decoder = 1 << 19, wire.Decoder(max_header=1 << 21)

    def play(sock):
        taken = 0
        while taken < 40:
            for one in decoder.feed(sock.recv(1 << 16)):
                taken += 1
                sock.sendall(wire.encode({"to": one.header["number"], "more": size * "y"}, request_id=one.id))

    peer(play)
    assert sorted(place for place, _ in exchange(pair[0], frames(40, size))) == list(range(40))


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        (wire.encode({"message": "what?"}, request_id=0), wire.FrameError, r"could not read a frame: what\?"),
        (wire.encode({}, request_id=99), wire.FrameError, "answer to request 99, which was never sent"),
        (b"x" * 64, wire.FrameError, "a frame starts with"),
        (b"", ConnectionLostError, "end of stream"),
    ],
    ids=["to no request", "to one that was never sent", "no frame", "the end"],
)
def test_what_is_no_answer_ends_the_connection(pair, peer, said, error, words):
    def play(sock):
        take(sock, 3)
        sock.sendall(said)
        sock.shutdown(socket.SHUT_WR)

    peer(play)
    with pytest.raises(error, match=words):
        list(exchange(pair[0], frames(3)))
    assert pair[0].closed


def test_silence_is_given_up(pair):
    with pytest.raises(TimeoutError):
        list(exchange(pair[0], frames(1), timeout=0.05))
    assert pair[0].closed


def test_who_wants_no_more_ends_the_connection_where_answers_are_still_to_come(pair, peer):
    peer(lambda sock: answer(sock, take(sock, 3)[:1]))
    found = exchange(pair[0], frames(3))
    next(found)
    found.close()
    assert pair[0].closed
