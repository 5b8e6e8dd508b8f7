"""The server's sockets: what bad frames, strangers and crowds do to it, which is nothing."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from ase.calculators.emt import EMT

from mlipcluster.errors import CalculatorError, InputError
from mlipcluster.serving import address, server
from mlipcluster.serving.requests import HANDLERS
from mlipcluster.serving.server import Options
from mlipcluster.socket_worker import wire


def expected(atoms):
    atoms = atoms.copy()
    atoms.calc = EMT()
    return atoms.get_potential_energy()


def all_of(sock):
    """Messages until the other side closes."""
    decoder, found = wire.Decoder(), []
    sock.settimeout(20)
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(1 << 16):
            found += decoder.feed(data)
    return found


def frame(header=b"{}", body=b"", magic=b"MLIP", version=1, lengths=None):
    header += b" " * (-len(header) % 8)
    told = lengths or (len(header), len(body))
    return struct.pack("<4sIQQQ", magic, version, *told, 5) + header + body


BAD = {
    "another magic": frame(magic=b"HTTP"),
    "another version": frame(version=2),
    "a header that is not UTF-8": frame(b'{"kind":"open","calculator":"\xff\xfe"}'),
    "no JSON": frame(b"{'kind'}"),
    "no object": frame(b"[1]"),
    "a huge header": frame(lengths=(1 << 40, 0)),
    "a huge body": frame(lengths=(8, 1 << 40)),
    "odd lengths": frame(lengths=(3, 0)),
    "deep JSON": frame(b"[" * 100_000),
    "arrays without bytes": frame(b'{"arrays":[["positions","<f8",[1,3]]]}'),
    "an object's dtype": frame(b'{"arrays":[["positions","|O",[1]]]}', b"\0" * 8),
    "text": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2,
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_frame_ends_its_own_connection_with_a_word(serve, cu, what, caplog):
    here = serve()
    calculator = here.calculator()
    assert calculator.get_property("energy", cu()) == expected(cu())
    with caplog.at_level(logging.WARNING, "mlipcluster"), address.connect(here.address) as sock:
        sock.sendall(BAD[what])
        (answer,) = all_of(sock)
    assert answer.header["kind"] == "refused"
    assert "no frame of the wire" in answer.header["message"]
    assert "its connection ends" in caplog.text
    assert calculator.get_property("energy", cu(1)) == expected(cu(1))


@pytest.mark.parametrize("kind", ["stop", "shutdown", "configure", "prepare", "", None, 7, ["stop"], "end"])
def test_what_is_no_request_is_refused_and_nothing_more(serve, cu, kind):
    here = serve()
    with address.connect(here.address) as sock:
        sock.sendall(wire.encode({"kind": kind}, request_id=3) + wire.encode({"kind": "list"}, request_id=4))
        sock.shutdown(socket.SHUT_WR)
        refused, listed = all_of(sock)
    assert refused.header["kind"] == "refused"
    assert refused.id == 3
    assert listed.header["calculators"] == [{"name": "emt", "source": "a test"}]


@pytest.mark.parametrize("name", [None, 5, "", "x" * 501, "\ud800", "../../etc", ["emt"], {"emt": 1}])
def test_names_that_are_none(serve, name):
    here = serve()
    with address.connect(here.address) as sock:
        for number, kind in enumerate(("open", "calculate", "provenance"), 1):
            sock.sendall(wire.encode({"kind": kind, "calculator": name, "whole": True}, request_id=number))
        sock.shutdown(socket.SHUT_WR)
        answers = all_of(sock)
    assert [answer.header["error"] for answer in answers] == 3 * ["InputError"]


@pytest.mark.parametrize(
    "header",
    [
        {"whole": True, "properties": ["energy"]},
        {"whole": True},
        {"properties": ["energy"]},
        {"whole": True, "properties": 5},
        {"whole": True, "properties": ["energy"], "info": 5},
        {"whole": True, "properties": ["energy"], "removed": 5},
    ],
)
def test_requests_that_a_worker_cannot_mean_are_errors_and_the_worker_lives(serve, cu, header):
    here = serve()
    calculator = here.calculator()
    calculator.get_property("energy", cu())
    (pid,) = here.pids()
    with address.connect(here.address) as sock:
        sock.sendall(wire.encode({"kind": "calculate", "calculator": "emt", **header}, request_id=9))
        decoder, found = wire.Decoder(), []
        while not found:
            found = decoder.feed(sock.recv(1 << 16))
    assert found[0].header["kind"] in ("error", "refused")
    assert found[0].id == 9
    assert here.pids() == [pid]
    assert calculator.get_property("energy", cu(1)) == expected(cu(1))


def test_arrays_that_cannot_be_end_their_own_connection(serve, cu):
    """They take no bytes, and yet no array has such a shape."""
    here = serve()
    calculator = here.calculator()
    calculator.get_property("energy", cu())
    (pid,) = here.pids()
    header = {"kind": "calculate", "calculator": "emt", "whole": True, "arrays": [["a", "<f8", [1 << 32, 1 << 32, 0]]]}
    with address.connect(here.address) as sock:
        sock.sendall(wire.encode(header, request_id=9))
        decoder, found = wire.Decoder(), []
        while not found:
            found = decoder.feed(sock.recv(1 << 16))
        assert "no frame of the wire" in found[0].header["message"]
        assert sock.recv(1) == b""
    assert calculator.get_property("energy", cu(1)) == expected(cu(1))
    assert here.pids() == [pid]


def test_a_request_without_positions_harms_nobody_else(serve, cu):
    here = serve(Options(max_workers=1))
    calculator = here.calculator()
    calculator.get_property("energy", cu())
    (pid,) = here.pids()
    atoms = cu(1)
    arrays = {**atoms.arrays, "cell": atoms.cell.array, "pbc": atoms.pbc}
    header = {"kind": "calculate", "calculator": "emt", "whole": True, "properties": ["energy"]}
    with address.connect(here.address) as sock:
        sock.sendall(wire.encode({**header, "removed": ["positions"]}, arrays, request_id=9))
        decoder, found = wire.Decoder(), []
        while not found:
            found = decoder.feed(sock.recv(1 << 16))
    assert "'removed' is ['positions']" in found[0].header["message"]
    assert calculator.get_property("energy", cu(2)) == expected(cu(2))
    assert here.pids() == [pid]


def test_a_structure_over_the_limit(serve, cu):
    here = serve(Options(max_request=1000))
    with pytest.raises(InputError, match=r"256 atoms, 6480 bytes.*max_request=1000"):
        here.calculator(retries=0).get_property("energy", cu() * (4, 4, 4))


def test_who_takes_no_answers_is_given_no_more(serve, cu, until):
    here = serve()
    here.calculator().get_property("energy", cu())
    asked = wire.encode({"kind": "list"}, request_id=1)
    with address.connect(here.address) as sock:
        sock.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 1 << 26:
                sent += sock.send(asked * 100)
        assert sent < 1 << 26  # the server reads no more of it
        assert here.calculator().get_property("energy", cu(1)) == expected(cu(1))
    until(lambda: here.status()["clients"] <= 2)


def test_three_hundred_clients_at_once(serve, cu):
    here = serve()
    calculators = [here.calculator() for _ in range(300)]
    found = [calculator.get_property("energy", cu(7)) for calculator in calculators]
    assert set(found) == {expected(cu(7))}
    assert here.status()["clients"] >= 300
    for calculator in calculators:
        calculator.close()


def test_clients_of_many_threads(serve, cu):
    here = serve()
    calculator, wrong = here.calculator(), []

    def work(seed):
        atoms = cu(seed)
        for one in (calculator, here.calculator()):
            wrong.extend([seed] if one.get_property("energy", atoms) != expected(cu(seed)) else [])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(os.getuid() != 0, reason="to be another user takes root")
def test_another_user_is_turned_away(serve, tmp_path, caplog, until):
    here = serve()
    for folder in (tmp_path, *tmp_path.parents[:-2], tmp_path / "own"):
        with contextlib.suppress(OSError):
            folder.chmod(0o755)
    Path(here.address).chmod(0o777)
    code = (
        "import os, socket, sys\nos.setuid(12345)\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n"
        "try: s.sendall(b'x' * 64); print(len(s.recv(100)))\nexcept (ConnectionResetError, BrokenPipeError): print(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, here.address], capture_output=True, text=True, check=False)
    (tmp_path / "own").chmod(0o700)
    assert done.stdout == "0\n", done.stderr
    assert "another user's process was turned away" in caplog.text


def test_nothing_is_left(serve, cu, until, tmp_path):
    before = threading.active_count()
    here = serve()
    here.calculator().get_property("energy", cu())
    pids = here.pids()
    here.server.__exit__()
    assert not (tmp_path / "own").exists()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    until(lambda: threading.active_count() <= before)


def test_who_takes_no_answers_does_not_hold_up_the_end(serve, until, monkeypatch):
    monkeypatch.setattr(server, "HAND_OVER_SECONDS", 0.5)
    here = serve()
    with address.connect(here.address) as sock:
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sock.send(wire.encode({"kind": "list"}, request_id=1) * 100)
        here.server.stop()
        until(lambda: not os.path.exists(here.address))


def test_a_fault_of_the_servers_own_ends_a_connection_and_nothing_else(serve, cu, monkeypatch, caplog):
    here = serve()
    with caplog.at_level(logging.ERROR, "mlipcluster"), address.connect(here.address) as sock:
        monkeypatch.setitem(HANDLERS, "list", lambda *_: 1 / 0)
        sock.sendall(wire.encode({"kind": "list"}, request_id=1))
        assert all_of(sock) == []
        here.server.loop.post(lambda: {}["no such thing"])
        assert here.calculator().get_property("energy", cu()) == expected(cu())
    assert "ZeroDivisionError" in caplog.text
    assert "KeyError" in caplog.text


def test_the_end_in_the_middle_of_a_start_leaves_no_process(serve, trial, cu, until, below):
    here = serve(slow=trial("BuildsSlowly", args=(60,)))
    calculator = here.calculator("slow", retries=0)
    found = []

    def ask():
        try:
            calculator.get_property("energy", cu())
        except CalculatorError as error:
            found.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    until(lambda: here.workers("starting"))
    children = until(lambda: below("socket_worker"))
    here.server.__exit__()
    thread.join()
    assert len(found) == 1
    until(lambda: not any(child.is_running() for child in children))


def test_a_client_that_goes_away_in_the_middle_of_a_frame(serve, cu):
    here = serve()
    whole = wire.encode({"kind": "calculate", "calculator": "emt", "whole": True, "properties": ["energy"]})
    for length in (1, 31, 32, 40, len(whole) - 1):
        with address.connect(here.address) as sock:
            sock.sendall(whole[:length])
    assert here.calculator().get_property("energy", cu()) == expected(cu())


def test_a_frame_that_comes_byte_by_byte_is_answered(serve):
    here = serve()
    with address.connect(here.address) as sock:
        for byte in wire.encode({"kind": "list"}, request_id=7):
            sock.sendall(bytes([byte]))
        sock.shutdown(socket.SHUT_WR)
        assert [message.id for message in all_of(sock)] == [7]
