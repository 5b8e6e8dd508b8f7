"""One peer's frames, in whatever pieces they come and go."""

from __future__ import annotations

import select
import socket

import numpy as np
import pytest

from mlipcluster.serving.stream import Stream
from mlipcluster.socket_worker import wire


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    stream = Stream(ours, max_body=1 << 24)
    yield stream, theirs
    stream.close()
    theirs.close()


def test_what_does_not_fit_is_kept_in_order_until_it_is_taken(pair):
    stream, peer = pair
    decoder, found, large = wire.Decoder(), [], np.arange(1 << 19, dtype="<f8")
    for number in range(1, 6):
        array = large + number
        stream.send([wire.head({"kind": "results"}, {"a": array}, number), *wire.body({"a": array})])
        array[:] = 0  # whoever sent it may use its memory again
    assert stream.unsent > 0
    assert stream.events() == select.EPOLLIN | select.EPOLLOUT
    assert stream.events(reading=False) == select.EPOLLOUT
    while len(found) < 5:
        found += decoder.feed(peer.recv(1 << 20))
        stream.flush()
    assert [message.id for message in found] == [1, 2, 3, 4, 5]
    assert all((message.arrays["a"] == large + message.id).all() for message in found)
    assert stream.unsent == 0
    assert stream.events() == select.EPOLLIN


def test_frames_come_as_they_are_complete(pair):
    stream, peer = pair
    frames = b"".join(wire.encode({"number": number}, request_id=number) for number in range(10))
    found = []
    for start in range(0, len(frames), 37):
        peer.sendall(frames[start : start + 37])
        found += [message.id for message in stream.receive()]
    assert found == list(range(10))
    assert list(stream.receive()) == []


def test_the_end_and_what_is_no_frame(pair):
    stream, peer = pair
    peer.sendall(wire.encode({}, request_id=1) + b"x" * 32)
    received = stream.receive()
    assert next(received).id == 1
    with pytest.raises(wire.FrameError):
        next(received)
    peer.close()
    with pytest.raises(EOFError):
        list(stream.receive())


def test_more_than_is_taken_is_refused_before_it_comes(pair):
    stream, peer = pair
    peer.sendall(wire.PREFIX.pack(wire.MAGIC, wire.VERSION, 8, 1 << 25, 1))
    with pytest.raises(wire.FrameError, match=f"at most {1 << 24} are taken"):
        list(stream.receive())
