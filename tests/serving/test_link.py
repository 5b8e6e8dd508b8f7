"""A client's connection: what is tried again, for how long, and what is not; against a server that lies, too."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
import time

import pytest

from mlipcluster.errors import CallTimeoutError, InputError, ServerGoneError
from mlipcluster.serving import link
from mlipcluster.serving.address import Address
from mlipcluster.serving.link import Link
from mlipcluster.socket_worker import wire


@pytest.fixture
def acts(tmp_path):
    """A server of sorts: each connection gets the next of the given functions; ``acts(first, second, …)``: its path."""
    with contextlib.ExitStack() as stack:

        def start(*parts):
            path = str(tmp_path / "s")
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(path)
            listener.listen(10)

            def play():
                for part in parts:
                    with contextlib.suppress(OSError), listener.accept()[0] as sock:
                        part(sock)
                listener.close()
                os.unlink(path)

            thread = threading.Thread(target=play)
            thread.start()
            stack.callback(thread.join)
            return path

        yield start


def received(sock):
    decoder, found = wire.Decoder(), []
    while not found:
        data = sock.recv(1 << 16)
        if not data:
            raise ConnectionAbortedError
        found = decoder.feed(data)
    return found


def answers(sock):
    for message in received(sock):
        sock.sendall(wire.encode({"kind": "done", "asked": message.header["kind"]}, request_id=message.id))


def hangs_up(sock):
    received(sock)


@pytest.fixture
def connect():
    made = []

    def make(path, retries=2, timeout=None):
        made.append(Link("emt", Address(path), None, retries, timeout))
        return made[-1]

    yield make
    for one in made:
        one.close()


def asked(one):
    return one.ask(lambda: (wire.head({"kind": "calculate"}, {}), []))


def test_what_was_lost_is_asked_again(acts, connect):
    assert asked(connect(acts(hangs_up, hangs_up, answers))).header["asked"] == "calculate"


def test_as_often_as_it_is_to_be(acts, connect):
    path = acts(hangs_up, hangs_up, answers)
    with pytest.raises(ServerGoneError, match="was lost"):
        asked(connect(path, retries=1))
    assert asked(connect(path)).header["asked"] == "calculate"


def test_a_server_that_was_never_there_is_not_waited_for(tmp_path, connect):
    begun = time.monotonic()
    with pytest.raises(ServerGoneError, match=r"no server answers.*mlipcluster serve"):
        asked(connect(str(tmp_path / "s")))
    assert time.monotonic() - begun < link.PATIENCE / 2


def test_one_that_stays_away_is_waited_for_until_patience_ends(acts, connect, monkeypatch):
    monkeypatch.setattr(link, "PATIENCE", 0.5)
    begun = time.monotonic()
    with pytest.raises(ServerGoneError):
        asked(connect(acts(hangs_up)))
    assert time.monotonic() - begun >= 0.5


def test_no_longer_than_the_call_may_take(acts, connect):
    with pytest.raises(CallTimeoutError, match=r"within timeout=0\.3 s"):
        asked(connect(acts(hangs_up), timeout=0.3))


def test_a_silent_server_is_given_up(acts, connect):
    with pytest.raises(CallTimeoutError, match=r"mlipcluster status"):
        asked(connect(acts(lambda sock: sock.recv(1 << 16) and sock.recv(1)), timeout=0.3))


def test_errors_are_not_tried_again(acts, connect):
    def refuses(sock):
        (message,) = received(sock)
        told = {"kind": "refused", "error": "InputError", "message": "no such calculator"}
        sock.sendall(wire.encode(told, request_id=message.id))

    with pytest.raises(InputError, match="no such calculator"):
        asked(connect(acts(refuses)))


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400 Bad Request\r\n\r\n" * 2, wire.encode({"kind": "done"}, request_id=99), wire.encode({})]
)
def test_a_server_that_says_what_is_none_is_named(acts, connect, said):
    def lies(sock):
        received(sock)
        sock.sendall(said)

    path = acts(lies, lies)
    with pytest.raises(InputError, match=f"{path} and this side do not understand each other"):
        asked(connect(path))
    with pytest.raises(InputError, match="do not understand each other"):
        list(connect(path).ask_many({0: lambda: wire.encode({"kind": "calculate"})}))


def test_a_greeting_that_is_not_answered_in_time_is_said(acts, connect):
    one = connect(acts(lambda sock: sock.recv(1 << 16) and sock.recv(1)))
    one.hello = lambda connection, _: connection.request({"kind": "open"}, timeout=0.2)
    with pytest.raises(CallTimeoutError, match="to a greeting"):
        asked(one)


def test_of_many_what_was_answered_is_not_asked_again(acts, connect):
    seen = []

    def messages(sock):
        decoder = wire.Decoder()
        while data := sock.recv(1 << 16):
            for message in decoder.feed(data):
                seen.append(message.header["number"])
                yield message

    def answer(sock, message):
        told = {"kind": "done", "number": message.header["number"]}
        sock.sendall(wire.encode(told, request_id=message.id))

    def two_and_gone(sock):
        _, second, _, fourth, _ = itertools.islice(messages(sock), 5)
        answer(sock, fourth)
        answer(sock, second)

    def all_of_them(sock):
        for message in messages(sock):
            answer(sock, message)

    frames = {key: lambda key=key: wire.encode({"kind": "calculate", "number": key}) for key in range(5)}
    one = connect(acts(two_and_gone, all_of_them))
    found = [(key, message.header["number"]) for key, message in one.ask_many(frames)]
    one.close()
    assert found == [(3, 3), (1, 1), (0, 0), (2, 2), (4, 4)]
    assert seen == [0, 1, 2, 3, 4, 0, 2, 4]


def test_a_first_contact_that_is_lost_is_made_again(acts, connect):
    def greeted(connection, _):
        connection.request({"kind": "open"})

    one = connect(acts(hangs_up, answers))
    one.hello = greeted
    one.meet()


def test_a_first_contact_that_is_lost_for_good_is_a_server_that_has_gone(acts, connect, monkeypatch):
    monkeypatch.setattr(link, "PATIENCE", 0.2)
    one = connect(acts(hangs_up))
    one.hello = lambda connection, _: connection.request({"kind": "open"})
    with pytest.raises(ServerGoneError):
        one.meet()


def test_a_greeting_takes_no_longer_than_the_call_may(acts, connect):
    one = connect(acts(lambda sock: sock.recv(1 << 16) and sock.recv(1)), timeout=0.3)
    one.hello = lambda connection, seconds: connection.request({"kind": "open"}, timeout=seconds)
    begun = time.monotonic()
    with pytest.raises(CallTimeoutError, match=r"within timeout=0\.3 s"):
        one.meet()
    assert time.monotonic() - begun < link.HELLO_SECONDS / 2


@pytest.fixture
def full(tmp_path):
    """A socket whose queue is full: its path, the listener, and what has those in the queue hang up."""
    path = str(tmp_path / "full")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as stack:
        listener.bind(path)
        listener.listen(0)
        with contextlib.suppress(BlockingIOError):
            for _ in range(10):
                sock = stack.enter_context(socket.socket(socket.AF_UNIX))
                sock.setblocking(False)
                sock.connect(path)
        yield path, listener, stack.close


def test_a_queue_is_waited_in_no_longer_than_the_call_may_take(full, connect):
    path, _, _ = full
    with pytest.raises(CallTimeoutError, match=r"within timeout=0\.3 s"):
        asked(connect(path, timeout=0.3))


def test_a_queue_that_moves_is_waited_in(full, connect):
    path, listener, hang_up = full

    def work_it_off():
        time.sleep(0.2)
        hang_up()
        with contextlib.suppress(TimeoutError):
            while True:
                with contextlib.suppress(ConnectionError), listener.accept()[0] as sock:
                    answers(sock)

    listener.settimeout(2)
    thread = threading.Thread(target=work_it_off)
    thread.start()
    assert asked(connect(path)).header["asked"] == "calculate"
    thread.join()


def test_what_is_no_frame_after_a_loss_is_named_too(acts, connect):
    def lies(sock):
        received(sock)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 2)

    one = connect(acts(hangs_up, lies))
    one.hello = lambda connection, seconds: connection.request({"kind": "open"}, timeout=seconds)
    with pytest.raises(InputError, match="do not understand each other"):
        one.meet()
