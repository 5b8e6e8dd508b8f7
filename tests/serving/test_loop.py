"""What the server waits for."""

from __future__ import annotations

import logging
import select
import socket
import threading

import pytest

from mlipcluster.serving.loop import Loop
from mlipcluster.serving.stream import Stream


@pytest.fixture
def loop():
    made = Loop()
    yield made
    made.finish()
    made.close()


@pytest.fixture
def pair():
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


def test_what_other_threads_post_is_called_by_the_loops_own_in_order(loop):
    called = []
    thread = threading.Thread(
        target=lambda: [loop.post(lambda n=n: called.append((n, threading.get_ident()))) for n in range(5)]
    )
    thread.start()
    thread.join()
    assert called == []
    loop.wait(10)
    assert called == [(n, threading.get_ident()) for n in range(5)]


def test_what_takes_time_is_done_by_others_that_post_what_they_found(loop):
    found = []

    def look():
        elsewhere = threading.get_ident()
        loop.post(lambda: found.extend([elsewhere, threading.get_ident()]))

    loop.aside(look)
    loop.wait(10)
    elsewhere, here = found
    assert here == threading.get_ident() != elsewhere


def test_an_error_of_what_was_posted_is_told_and_holds_nothing_up(loop, caplog):
    called = []
    for what in (lambda: 1 / 0, lambda: called.append(1)):
        loop.post(what)
    with caplog.at_level(logging.ERROR, "mlipcluster"):
        loop.wait(10)
    assert called == [1]
    assert "ZeroDivisionError" in caplog.text


def test_a_socket_that_is_paused_is_not_heard_until_it_is_again(loop, pair):
    here, there = pair
    heard = []
    loop.watch(here, heard.append)
    loop.pause(here)
    there.send(b"word")
    loop.wait(0.05)
    assert heard == []
    loop.resume()
    loop.wait(10)
    assert heard == [select.EPOLLIN]


def test_a_stream_is_heard_by_who_came_last_and_closed_when_it_is_not_watched(loop, pair):
    here, there = pair
    first, second = [], []
    stream = Stream(here)
    for handler in (first.append, second.append):
        loop.watch_stream(stream, handler)
    there.send(b"word")
    loop.wait(10)
    assert (first, second) == ([], [select.EPOLLIN])
    assert here.recv(9) == b"word"
    loop.unwatch(stream)
    loop.unwatch(stream)
    assert there.recv(1) == b""
