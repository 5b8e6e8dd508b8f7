"""Workers that join by hand or by a command: how they come, leave, die and come back, and what a liar may do."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import types

import pytest

from mlipcluster.calculators.provenance import Provenance
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.errors import CalculatorError, CallTimeoutError, InputError, ServerGoneError, WorkerDiedError
from mlipcluster.serving import address
from mlipcluster.serving.join import Joiner, spec_of
from mlipcluster.serving.server import Options
from mlipcluster.serving.spawned import WORKER_VARIABLE
from mlipcluster.socket_worker import wire

TOLD = Provenance("3.11", sys.executable, sys.prefix, implemented_properties=("energy",)).to_json()


@pytest.fixture
def joined():
    """Join a worker in a process of its own, which the test may kill: ``joined(here, spec)``."""
    started = []

    def join(here, spec, name="slow"):
        code = (
            "import json, signal, sys\nfrom mlipcluster.calculators.spec import CalculatorSpec\n"
            "from mlipcluster.serving.join import Joiner\n"
            "joiner = Joiner(CalculatorSpec.from_json(json.loads(sys.argv[1])), *sys.argv[2:4])\n"
            "signal.signal(signal.SIGTERM, lambda *_: joiner.leave())\njoiner.run()"
        )
        told = json.dumps(spec.to_json())
        started.append(subprocess.Popen([sys.executable, "-c", code, told, name, here.address]))
        return started[-1]

    yield join
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def liar(tmp_path, until):
    """Somebody who joins as a worker and then says what the test says: ``liar(here)``; its sockets."""
    with contextlib.ExitStack() as stack:
        numbers = iter(range(100))

        def join(here, **header):
            path = str(tmp_path / f"liar{next(numbers)}")
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(path)
            listener.listen(1)
            control = stack.enter_context(address.connect(here.address))
            asked = {"kind": "join", "calculator": "lies", "address": path, "provenance": TOLD, **header}
            control.sendall(wire.encode(asked, request_id=1))
            answer = received(control)
            sock = stack.enter_context(listener.accept()[0]) if answer.header["kind"] == "joined" else None
            return control, sock, answer

        yield join


@pytest.fixture
def pretended(tmp_path):
    """A server of sorts that answers each ``join`` and hangs up: ``pretended(answer)``; its path, and what joined."""
    with contextlib.ExitStack() as stack:

        def start(answer):
            path, joins = str(tmp_path / "pretended"), []
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(path)
            listener.listen(10)

            def play():
                with contextlib.suppress(OSError):  # it was shut down
                    while True:
                        with listener.accept()[0] as sock:
                            for message in wire.Decoder().feed(sock.recv(1 << 16)):
                                joins.append(message.header)
                                sock.sendall(wire.encode(answer, request_id=message.id))

            thread = threading.Thread(target=play)
            thread.start()
            stack.callback(thread.join)
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            return path, joins

        yield start


def received(sock):
    decoder = wire.Decoder()
    sock.settimeout(30)
    while True:
        data = sock.recv(1 << 16)
        assert data, "the server ended the connection"
        if found := decoder.feed(data):
            return found[0]


def aside(function, *arguments):
    found = []

    def run():
        try:
            found.append(function(*arguments))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


def energy(here, atoms, name="slow"):
    with here.calculator(name) as calculator:
        return calculator.get_property("energy", atoms)


def total(atoms):
    return pytest.approx(atoms.positions.sum())


def test_requests_wait_for_a_worker_that_only_joins(serve, trial, joined, until, cu):
    """Nobody here can start another one, so that nothing is started however long they wait."""
    here = serve()
    joined(here, trial("Sleeps", args=(0.5,)))
    until(lambda: "slow" in here.status()["served"])
    done = [aside(energy, here, cu(seed)) for seed in range(4)]
    for thread, _ in done:
        thread.join()
    assert [found for _, found in done] == [[total(cu(seed))] for seed in range(4)]
    assert len(here.workers()) == 1


def test_killed_in_a_calculation_it_comes_back_and_does_it(serve, trial, joined, until, cu):
    here = serve()
    joined(here, trial("Sleeps", args=(1.0,)))
    until(lambda: "slow" in here.status()["served"])
    thread, found = aside(energy, here, cu())
    (busy,) = until(lambda: here.workers("busy"))
    os.kill(busy["pid"], signal.SIGKILL)
    until(lambda: not os.path.exists(f"/proc/{busy['pid']}"))
    assert "slow" in here.status()["served"]  # it will be back
    assert energy(here, cu(1)) == total(cu(1))
    thread.join()
    assert found == [total(cu())]


def test_killed_with_whoever_looks_after_it_nobody_waits_for_its_return(serve, trial, joined, until, cu):
    here = serve()
    process = joined(here, trial("Sleeps", args=(60.0,)))
    until(lambda: "slow" in here.status()["served"])
    thread, found = aside(energy, here, cu())
    until(lambda: here.workers("busy"))
    process.kill()
    thread.join(20)
    assert isinstance(found[0], CalculatorError)
    assert "mlipcluster worker" in str(found[0])
    with pytest.raises(InputError, match="no calculator 'slow' is served here; served: emt"):
        energy(here, cu())


def test_told_to_leave_it_finishes_what_it_does(serve, trial, joined, until, cu):
    here = serve()
    process = joined(here, trial("Sleeps", args=(1.0,)))
    until(lambda: "slow" in here.status()["served"])
    thread, found = aside(energy, here, cu())
    until(lambda: here.workers("busy"))
    process.terminate()
    thread.join()
    assert found == [total(cu())]
    assert process.wait(30) == 0
    assert here.status()["served"] == ["emt"]


def test_told_to_leave_when_the_server_has_gone_it_does_so(serve, trial, joined, until):
    here = serve()
    process = joined(here, trial("Sleeps"))
    until(lambda: "slow" in here.status()["served"])
    pids = here.pids()
    here.server.__exit__()
    process.terminate()
    assert process.wait(30) == 0
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))


def test_told_to_leave_while_it_loads_it_does_so_at_once(serve, joined, until, tmp_path):
    begun = tmp_path / "begun"
    (tmp_path / "slow_module.py").write_text(f"open({str(begun)!r}, 'w'); import time; time.sleep(600)")
    process = joined(serve(), CalculatorSpec("slow_module:f", paths=(str(tmp_path),), startup_timeout=600.0))
    until(begun.exists)
    process.terminate()
    assert process.wait(60) == 0


def test_a_server_that_hangs_up_is_one_that_ended_and_the_next_is_joined(pretended, joined, trial, until):
    path, joins = pretended({"kind": "joined", "worker": 1})
    process = joined(types.SimpleNamespace(address=path), trial("Sleeps", info_keys=("field",)))
    until(lambda: len(joins) > 2)
    assert len({one["pid"] for one in joins}) == 1  # its calculator stays
    assert joins[0]["info_keys"] == ["field"]
    process.terminate()
    assert process.wait(60) == 0


def test_a_server_that_is_about_to_end_is_not_joined_and_the_next_waited_for_only_so_long(pretended, trial):
    path, joins = pretended({"kind": "refused", "error": "ServerGoneError", "message": "about to end"})
    joiner = Joiner(trial("Sleeps"), "slow", path, idle_timeout=1.0)
    thread, found = aside(joiner.run)
    thread.join(60)
    joiner.leave()
    thread.join()
    assert isinstance(found[0], ServerGoneError)
    assert "did not come back" in str(found[0])
    assert len(joins) > 1


def test_the_settings_tables_count_where_none_is_told(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "ONE = {'one': 'ase.calculators.emt:EMT'}\nTWO = {'two': 'ase.calculators.lj:LJ'}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLIPCLUSTER_SERVE_CALCULATORS", "mine.py:ONE")
    assert spec_of("one", (), None, {}).factory == "ase.calculators.emt:EMT"
    assert spec_of("two", ("mine.py:TWO",), None, {}).factory == "ase.calculators.lj:LJ"
    with pytest.raises(InputError, match="no calculator is called 'one'"):
        spec_of("one", ("mine.py:TWO",), None, {})


def test_a_worker_by_hand_joins_no_server_of_another_machine(trial):
    with pytest.raises(InputError, match=r"^tls://node7:7777: .*--address\. .*serve --cluster NAME`$"):
        Joiner(trial("Sleeps"), "slow", "tls://node7:7777")


def test_without_a_server_nothing_is_started(tmp_path, trial):
    begun = time.monotonic()
    with pytest.raises(ServerGoneError, match="no server answers"):
        Joiner(trial("BuildsSlowly", args=(60,)), "slow", str(tmp_path / "s")).run()
    assert time.monotonic() - begun < 30


def test_an_input_that_ends_its_workers_is_refused_and_they_stay(serve, trial, joined, until, cu):
    here = serve()
    process = joined(here, trial("Segfault"))
    until(lambda: "slow" in here.status()["served"])
    with pytest.raises(WorkerDiedError, match=r"3 processes.*signal SIGSEGV"):
        energy(here, cu())
    until(lambda: here.workers("idle"))
    assert process.poll() is None


def test_an_input_kills_a_spawned_worker_and_another_is_started(serve, spawned, until, cu, trial):
    (folder,) = trial("Sleeps").paths
    code = (
        "import os\nfrom mlipcluster.calculators.spec import CalculatorSpec\n"
        "from mlipcluster.serving.join import Joiner\n"
        f"spec = CalculatorSpec('trial:Sleeps', args=(1.0,), paths=({folder!r},))\n"
        "Joiner(spec, 'slow', os.environ['MLIPCLUSTER_SERVE_ADDRESS']).run()"
    )
    here = serve(Options(max_workers=1), slow=spawned(sys.executable, "-c", code))
    thread, found = aside(energy, here, cu())
    (busy,) = until(lambda: here.workers("busy"))
    os.kill(busy["pid"], signal.SIGKILL)
    thread.join()
    assert found == [total(cu())]
    assert len(here.workers()) == 1


# Liars


def test_stale_answers_are_dropped(serve, liar, cu, until, caplog):
    here = serve()
    _, sock, _ = liar(here)
    thread, found = aside(energy, here, cu(), "lies")
    asked = received(sock)
    while asked.header["kind"] != "calculate":
        sock.sendall(wire.encode({"kind": "provenance", "provenance": TOLD}, request_id=asked.id))
        asked = received(sock)

    def answer(value, number):
        return wire.encode({"kind": "results", "values": {"energy": value}}, request_id=number)

    with caplog.at_level(logging.WARNING, "mlipcluster"):
        sock.sendall(
            answer(1.0, asked.id - 1) + answer(2.0, asked.id + 1) + answer(3.0, asked.id) + answer(4.0, asked.id)
        )
        thread.join()
        until(lambda: caplog.text.count("a stale answer was dropped") == 3)
    assert found == [3.0]


def test_a_late_answer_of_a_worker_that_was_given_up_is_nobodys(serve, liar, cu, until):
    here = serve()
    _, sock, _ = liar(here, call_timeout=0.3)
    thread, found = aside(energy, here, cu(), "lies")
    asked = received(sock)
    thread.join()
    assert isinstance(found[0], CallTimeoutError)
    with contextlib.suppress(OSError):  # the server may have closed it
        sock.sendall(wire.encode({"kind": "results", "values": {"energy": 1.0}}, request_id=asked.id))
    until(lambda: not here.workers())
    assert energy(here, cu(), "emt")


def test_a_worker_that_is_lost_does_not_join_again_under_its_number(serve, liar, spawned, until):
    """Not even before it is told how it ended: until then the request is with it."""
    here = serve(Options(max_workers=1), spawned=spawned("sleep", "100"))
    with address.connect(here.address) as client:
        client.sendall(wire.encode({"kind": "provenance", "calculator": "spawned"}, request_id=5))
        (worker,) = until(here.workers)
        _, sock, _ = liar(here, calculator="spawned", worker=worker["number"])
        assert received(sock).header["kind"] == "provenance"
        sock.close()
        _, _, answer = liar(here, calculator="spawned", worker=worker["number"])
        assert "too late" in answer.header["message"]
        (worker,) = until(lambda: here.workers("starting"))
        _, sock, _ = liar(here, calculator="spawned", worker=worker["number"])
        sock.sendall(wire.encode({"kind": "provenance", "provenance": TOLD}, request_id=received(sock).id))
        assert received(client).id == 5


def test_what_a_worker_reads_of_info_is_told_with_its_join(serve, liar):
    here = serve()
    liar(here, info_keys=["field", "charge"])
    with address.connect(here.address) as sock:
        sock.sendall(wire.encode({"kind": "open", "calculator": "lies"}, request_id=1))
        assert received(sock).header["info_keys"] == ["field", "charge"]


def test_a_process_that_is_none_leaves_the_state_to_be_told(serve, liar):
    here = serve()
    liar(here, pid=-1)
    liar(here, pid=1 << 30)
    assert {worker["memory"] for worker in here.workers()} == {None}


@pytest.mark.parametrize("garbage", [b"x" * 64, wire.encode({"kind": "results"}, request_id=1)[:40]])
def test_a_worker_that_answers_garbage_is_let_go(serve, liar, cu, garbage, until):
    here = serve()
    control, sock, _ = liar(here)
    thread, found = aside(energy, here, cu(), "lies")
    received(sock)
    sock.sendall(garbage)
    sock.shutdown(socket.SHUT_WR)
    control.settimeout(30)
    assert control.recv(10) == b""  # whoever looks after it is to join anew
    thread.join()
    assert isinstance(found[0], CalculatorError)
    assert not here.workers()
    assert "lies" not in here.status()["served"]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"provenance": None}, "'provenance' is not what"),
        ({"provenance": {"devices": 5}}, "'provenance' is not what"),
        ({"provenance": {**TOLD, "more": 1}}, "'provenance' is not what"),
        ({"provenance": {**TOLD, "weights": [5]}}, "'provenance' is not what"),
        ({"address": None}, "give the path"),
        ({"address": "relative"}, "give the path"),
        ({"address": "/no/such/socket"}, "cannot be reached"),
        ({"address": "/" + 200 * "x"}, "cannot be reached"),
        ({"address": "/with\0zero"}, "cannot be reached"),
        ({"worker": 1}, "no such worker was to join"),
        ({"worker": True}, "no such worker was to join"),
        ({"worker": "1"}, "no such worker was to join"),
        ({"token": "guess", "worker": 1}, "no such worker was to join"),
        ({"calculator": ""}, "give the name"),
        ({"calculator": None}, "give the name"),
    ],
)
def test_who_cannot_join_is_told_why(serve, liar, cu, header, words):
    here = serve()
    _, _, answer = liar(here, **header)
    assert answer.header["error"] == "InputError"
    assert words in answer.header["message"]
    assert energy(here, cu(), "emt")
    assert [worker["name"] for worker in here.workers()] == ["emt"]


def test_odd_numbers_and_texts_are_no_fault(serve, liar, cu):
    here = serve()
    for odd in (float("nan"), "soon", [], True, -1):
        liar(here, idle_timeout=odd, call_timeout=odd, pid=odd, where=odd)
    assert energy(here, cu(), "emt")
    assert {"emt", "lies"} >= {worker["name"] for worker in here.workers()}


def test_a_socket_where_nobody_takes_connections_holds_nobody_up(serve, liar, cu, tmp_path):
    here = serve()
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as stack:
        listener.bind(str(tmp_path / "full"))
        listener.listen(0)
        with contextlib.suppress(BlockingIOError):
            for _ in range(10):
                sock = stack.enter_context(socket.socket(socket.AF_UNIX))
                sock.setblocking(False)
                sock.connect(str(tmp_path / "full"))
        _, _, answer = liar(here, address=str(tmp_path / "full"))
    assert "cannot be reached" in answer.header["message"]
    assert energy(here, cu(), "emt")


def test_one_connection_looks_after_one_worker(serve, liar):
    here = serve()
    control, _, first = liar(here)
    assert first.header["kind"] == "joined"
    asked = {"kind": "join", "calculator": "lies", "address": "/anything", "provenance": TOLD}
    control.sendall(wire.encode(asked, request_id=2))
    assert "already" in received(control).header["message"]
    assert len(here.workers()) == 1


def test_a_command_whose_worker_has_another_name(serve, spawned, cu):
    code = (
        "import os\nfrom mlipcluster.calculators.spec import CalculatorSpec\n"
        "from mlipcluster.serving.join import Joiner\n"
        "Joiner(CalculatorSpec('ase.calculators.emt:EMT'), 'other', os.environ['MLIPCLUSTER_SERVE_ADDRESS']).run()"
    )
    here = serve(slow=spawned(sys.executable, "-c", code))
    with pytest.raises(CalculatorError, match="a worker of 'slow' was to join, not of 'other'"):
        energy(here, cu())
    assert here.status()["served"] == ["slow"]


def test_what_a_name_means(monkeypatch):
    monkeypatch.delenv(WORKER_VARIABLE, raising=False)
    assert spec_of("emt", (), None, {"device": "cpu"}).device == "cpu"
    assert spec_of("ase.calculators.lj:LennardJones", (), None, {"kwargs": {"rc": 5.0}}).kwargs["rc"] == 5.0
    with pytest.raises(InputError, match="no-such-model"):
        spec_of("no-such-model", (), None, {})
