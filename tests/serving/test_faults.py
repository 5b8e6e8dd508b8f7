"""What goes wrong with workers, servers and clients, and what becomes of it; all of it for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT

from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.errors import (
    CalculatorStartError,
    CallTimeoutError,
    InputError,
    RemoteCalculatorError,
    ServerGoneError,
    StructureError,
    WorkerDiedError,
)
from mlipcluster.serving.server import Options

PYTHON = sys.executable


def expected(atoms):
    atoms = atoms.copy()
    atoms.calc = EMT()
    return atoms.get_potential_energy(), atoms.get_forces().tobytes()


def asked(atoms, calculator):
    atoms = atoms.copy()
    atoms.calc = calculator
    return atoms.get_potential_energy(), atoms.get_forces().tobytes()


def aside(function, *arguments):
    """Run it in a thread: what it gave or raised comes into the list."""
    found = []

    def run():
        try:
            found.append(function(*arguments))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


# Workers


def test_a_worker_killed_in_a_calculation_is_replaced_and_the_call_tried_again(serve, trial, until, cu):
    here = serve(slow=trial("Sleeps", args=(1.0,)))
    thread, found = aside(here.calculator("slow").get_property, "energy", cu())
    (busy,) = until(lambda: here.workers("busy"))
    os.kill(busy["pid"], signal.SIGKILL)
    (other,) = until(lambda: [one for one in here.workers("busy") if one["pid"] not in (None, busy["pid"])])
    assert other["number"] != busy["number"]
    thread.join()
    assert found == [pytest.approx(cu().positions.sum())]


@pytest.mark.parametrize(
    ("name", "how"), [("Segfault", "signal SIGSEGV"), ("HardExit", "exit status 3; it last said:\nabout to go")]
)
def test_an_input_that_ends_its_workers_is_refused_at_last(serve, trial, cu, name, how):
    here = serve(bad=trial(name), good=CalculatorSpec("ase.calculators.emt:EMT"))
    calculator = here.calculator("bad")
    calculator.implemented_properties  # noqa: B018
    with pytest.raises(WorkerDiedError, match=f"3 processes.*{how}"):
        calculator.get_property("energy", cu())
    begun = time.monotonic()
    with pytest.raises(WorkerDiedError, match=f"refused from now on.*{how.partition(';')[0]}"):
        calculator.get_property("energy", cu())
    assert time.monotonic() - begun < 0.5  # nothing was started for it
    assert asked(cu(), here.calculator("good")) == expected(cu())


def test_sys_exit_in_a_calculator_is_an_error_of_its_own(serve, trial, cu):
    here = serve(quits=trial("SysExit"))
    with pytest.raises(RemoteCalculatorError, match="SystemExit: enough"):
        here.calculator("quits").get_property("energy", cu())
    assert len(here.workers("idle")) == 1


def test_an_error_of_the_calculator_keeps_its_type_and_is_not_tried_again(serve, trial, cu):
    here = serve(fails=trial("Fails"))
    with pytest.raises(ValueError, match="asked 1 times") as caught:
        here.calculator("fails", retries=5).get_property("energy", cu())
    assert isinstance(caught.value, RemoteCalculatorError)
    assert "in work" in caught.value.remote_traceback


def test_a_calculator_that_holds_the_interpreter_lock_is_alive(serve, trial, until, cu):
    here = serve(Options(max_workers=1), stuck=trial("SleepsHoldingTheLock"))
    thread, found = aside(here.calculator("stuck").get_property, "energy", cu())
    (busy,) = until(lambda: here.workers("busy"))
    time.sleep(2)
    assert here.workers("busy")[0]["number"] == busy["number"]
    assert thread.is_alive()
    here.server.stop(now=True)
    thread.join()
    assert isinstance(found[0], ServerGoneError)


def test_what_a_worker_prints_stops_nobody(serve, trial, cu):
    here = serve(chatty=trial("Chatty"))
    assert here.calculator("chatty").get_property("energy", cu()) == pytest.approx(cu().positions.sum())


def test_an_idle_worker_that_is_killed_leaves_the_others_at_work(serve, cu, until):
    here = serve(Options(max_workers=2))
    here.calculator().evaluate([cu(seed) for seed in range(200)])
    first, second = until(lambda: len(here.workers("idle")) == 2 and here.workers())
    os.kill(first["pid"], signal.SIGKILL)
    assert asked(cu(), here.calculator()) == expected(cu())
    assert second["pid"] in here.pids()


def test_a_call_longer_than_the_idle_limit_is_no_idleness(serve, trial, until, cu):
    here = serve(Options(idle_timeout=0.4), slow=trial("Sleeps", args=(1.5,)))
    calculator = here.calculator("slow")
    calculator.get_property("energy", cu())
    (worker,) = here.workers()
    calculator.get_property("energy", cu(1))
    assert here.workers()[0]["number"] == worker["number"]
    until(lambda: not here.workers())


def test_a_call_over_its_own_limit_ends_its_worker_and_nobody_else(serve, trial, cu):
    here = serve(slow=trial("Sleeps", call_timeout=0.5), emt=CalculatorSpec("ase.calculators.emt:EMT"))
    with pytest.raises(CallTimeoutError, match=r"call_timeout=0.5"):
        here.calculator("slow").get_property("energy", cu())
    assert asked(cu(), here.calculator()) == expected(cu())


def test_a_first_call_that_fails_leaves_no_answer_for_the_second(serve, trial, cu):
    here = serve(slow=trial("Sleeps", args=(1.0,)))
    here.calculator("slow").get_property("energy", cu())
    calculator = here.calculator("slow", timeout=0.5)
    with pytest.raises(CallTimeoutError, match=r"timeout=0\.5"):
        calculator.get_property("energy", cu(1))
    patient = here.calculator("slow")
    other = cu(2)
    assert patient.get_property("energy", other) == pytest.approx(other.positions.sum())


# Starts


def test_a_command_that_ends_at_once_is_told_at_once_and_tried_at_the_next_request(serve, spawned, cu, tmp_path):
    script = tmp_path / "start.py"
    script.write_text("import sys; print('no such model'); sys.exit(4)")
    here = serve(spawned=spawned(PYTHON, str(script)))
    with pytest.raises(CalculatorStartError, match=r"exit status 4(.|\n)*no such model"):
        here.calculator("spawned").get_property("energy", cu())
    script.write_text(
        "from mlipcluster.calculators.spec import CalculatorSpec\nfrom mlipcluster.serving.join import Joiner\n"
        f"Joiner(CalculatorSpec('ase.calculators.emt:EMT'), 'spawned', {here.address!r}).run()"
    )
    assert asked(cu(), here.calculator("spawned")) == expected(cu())


def test_a_command_that_prints_a_lot_before_it_joins(serve, spawned, cu):
    code = (
        "import os, sys\nsys.stderr.write('x' * 5_000_000)\n"
        "from mlipcluster.calculators.spec import CalculatorSpec\nfrom mlipcluster.serving.join import Joiner\n"
        "address = os.environ['MLIPCLUSTER_SERVE_ADDRESS']\n"
        "Joiner(CalculatorSpec('ase.calculators.emt:EMT'), 'spawned', address).run()"
    )
    here = serve(spawned=spawned(PYTHON, "-c", code))
    assert asked(cu(), here.calculator("spawned")) == expected(cu())


def test_a_command_that_never_joins_is_ended(serve, spawned, cu):
    here = serve(Options(start_timeout=1.0), spawned=spawned("sleep", "1000"))
    with pytest.raises(CalculatorStartError, match="had not joined after start_timeout=1 s"):
        here.calculator("spawned").get_property("energy", cu())


def test_a_command_that_is_not_there(serve, spawned, cu):
    here = serve(spawned=spawned("/no/such/program"))
    with pytest.raises(CalculatorStartError, match=r"/no/such/program.*cannot be run"):
        here.calculator("spawned").get_property("energy", cu())


def test_a_factory_that_fails_is_told_with_its_traceback_and_tried_again(serve, trial, cu):
    here = serve(bad=trial("NoSuchCalculator"))
    for _ in range(2):
        with pytest.raises(CalculatorStartError, match="NoSuchCalculator"):
            here.calculator("bad").get_property("energy", cu())


def test_a_start_that_takes_too_long(serve, trial, cu):
    here = serve(Options(start_timeout=1.0), slow=trial("BuildsSlowly", args=(60,)))
    with pytest.raises(CalculatorStartError, match="was not ready after"):
        here.calculator("slow").get_property("energy", cu())


# Fairness


def test_no_worker_idles_while_a_request_waits(serve, trial, cu):
    """Four clients on two workers, each call of one length: two at a time, in turn."""
    here = serve(Options(max_workers=2), slow=trial("Sleeps", args=(0.3,)))
    here.calculator("slow").evaluate([cu(seed) for seed in range(6)])
    begun = time.monotonic()
    done = [aside(here.calculator("slow").evaluate, [cu(seed) for seed in range(3)]) for _ in range(4)]
    for thread, _ in done:
        thread.join()
    calls = [worker["calls"] for worker in here.workers()]
    assert sum(calls) == 6 + 12
    assert time.monotonic() - begun >= 6 * 0.3


def test_another_calculator_gets_the_place_of_an_idle_one(serve, trial, cu):
    here = serve(
        Options(max_workers=1), slow=trial("Sleeps", args=(0.1,)), emt=CalculatorSpec("ase.calculators.emt:EMT")
    )
    for _ in range(2):
        assert asked(cu(), here.calculator("emt")) == expected(cu())
        here.calculator("slow").get_property("energy", cu())
        assert [worker["name"] for worker in here.workers()] == ["slow"]


def test_a_client_that_goes_away_leaves_nothing_to_be_done(serve, trial, until, cu):
    here = serve(Options(max_workers=1), slow=trial("Sleeps", args=(0.5,)))
    calculator = here.calculator("slow", timeout=0.2)
    for seed in range(3):
        with pytest.raises(CallTimeoutError):
            calculator.evaluate([cu(seed), cu(seed + 10), cu(seed + 20)])
    until(lambda: here.workers("idle"))
    assert here.workers()[0]["calls"] <= 3
    assert here.status()["calculators"][0]["waiting"] == 0


# Servers


SERVER = """
import sys, types
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.serving.offer import Offer
from mlipcluster.serving.server import Options, Server
spec = CalculatorSpec("trial:Sleeps", args=(float(sys.argv[3]),), paths=(sys.argv[2],))
known = types.SimpleNamespace(name="slow", source="test", spec=spec, command=None)
Server(Offer({"slow": known}), sys.argv[1], Options()).run()
"""


@pytest.fixture
def server_process(tmp_path, trial, until):
    """Start a server in a process of its own."""
    started = []

    def start(seconds=1.0):
        path = str(tmp_path / "own" / "s")
        (folder,) = trial("Sleeps").paths
        started.append(subprocess.Popen([PYTHON, "-c", SERVER, path, folder, str(seconds)]))
        return started[-1], path

    yield start
    for process in started:
        process.kill()
        process.wait()


def listens(path):
    from mlipcluster.serving import address

    try:
        address.connect(path).close()
    except ServerGoneError:
        return False
    return True


def test_a_server_killed_in_a_calculation_is_missed_at_once_and_its_return_is_used(server_process, until, cu):
    from mlipcluster.serving.asking import ask
    from mlipcluster.serving.remote_calculator import RemoteCalculator

    process, path = server_process()
    until(lambda: listens(path))
    with RemoteCalculator("slow", path) as calculator:
        thread, found = aside(calculator.get_property, "energy", cu())
        (busy,) = until(lambda: [one for one in ask("status", path)["workers"] if one["state"] == "busy"])
        process.kill()
        process.wait()
        server_process()
        thread.join()
        assert found == [pytest.approx(cu().positions.sum())]
    until(lambda: not os.path.exists(f"/proc/{busy['pid']}"))  # its workers went with it


def test_a_server_that_does_not_come_back(server_process, until, cu, monkeypatch):
    from mlipcluster.serving import link
    from mlipcluster.serving.remote_calculator import RemoteCalculator

    monkeypatch.setattr(link, "PATIENCE", 0.5)
    process, path = server_process(60.0)
    until(lambda: listens(path))
    with RemoteCalculator("slow", path) as calculator:
        calculator.implemented_properties  # noqa: B018
        thread, found = aside(calculator.get_property, "energy", cu())
        time.sleep(0.3)
        process.kill()
        thread.join(20)
    assert isinstance(found[0], ServerGoneError)
    assert isinstance(found[0], ConnectionError)


def test_a_server_that_ends_finishes_what_runs_and_refuses_what_waits(serve, trial, until, cu):
    here = serve(Options(max_workers=1), slow=trial("Sleeps", args=(1.0,)))
    first, second = (here.calculator("slow", retries=0) for _ in range(2))
    for one in (first, second):
        one.implemented_properties  # noqa: B018 - so that there is nothing to be asked but the calculation
    running = aside(first.get_property, "energy", cu())
    until(lambda: here.workers("busy"))
    waiting = aside(second.evaluate, [cu(1)])
    until(lambda: here.status()["calculators"][0]["waiting"] == 1)
    pids = here.pids()
    here.server.stop()
    for thread, _ in (running, waiting):
        thread.join()
    assert running[1] == [pytest.approx(cu().positions.sum())]
    assert isinstance(waiting[1][0], ServerGoneError)
    assert "what waits is not begun" in str(waiting[1][0])
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))
    until(lambda: not os.path.exists(here.address))  # the last thing that goes


def test_a_worker_by_hand_joins_the_next_server_when_its_own_is_killed(server_process, until, cu, tmp_path):
    from mlipcluster.serving.asking import ask
    from mlipcluster.serving.remote_calculator import RemoteCalculator

    process, path = server_process()
    until(lambda: listens(path))
    code = (
        "from mlipcluster.calculators.spec import CalculatorSpec\nfrom mlipcluster.serving.join import Joiner\n"
        f"Joiner(CalculatorSpec('ase.calculators.emt:EMT'), 'emt', {path!r}).run()"
    )
    worker = subprocess.Popen([PYTHON, "-c", code])
    try:
        until(lambda: "emt" in ask("status", path)["served"])
        with RemoteCalculator("emt", path) as calculator:
            assert asked(cu(), calculator) == expected(cu())
            (first,) = ask("status", path)["workers"]
            process.kill()
            process.wait()
            server_process()
            until(lambda: listens(path))
            until(lambda: "emt" in ask("status", path)["served"])
            assert asked(cu(1), calculator) == expected(cu(1))
            (second,) = ask("status", path)["workers"]
            assert second["pid"] == first["pid"]
            os.kill(second["pid"], signal.SIGKILL)  # looked after: it comes again
            until(lambda: [one for one in ask("status", path)["workers"] if one["pid"] not in (None, first["pid"])])
            assert asked(cu(2), calculator) == expected(cu(2))
    finally:
        worker.terminate()
        worker.wait(30)


# Structures and names


def test_what_is_refused_by_name(serve, cu):
    here = serve()
    calculator = here.calculator()
    broken = cu()
    broken.positions[1, 2] = np.nan
    with pytest.raises(StructureError, match="position of atom 1"):
        asked(broken, calculator)
    with pytest.raises(StructureError, match="no atoms"):
        asked(Atoms(), calculator)
    with pytest.raises(NotImplementedError, match="No EMT-potential for Fe"):
        asked(Atoms("Fe", positions=[[0, 0, 0]]), calculator)
    with pytest.raises(InputError, match=r"no calculator 'emtt' is served here; served: emt. Did you mean 'emt'"):
        asked(cu(), here.calculator("emtt"))
    assert asked(cu(), calculator) == expected(cu())


def test_charges_spins_and_magnetic_moments_travel(serve, trial, cu):
    here = serve(tells=trial("Tells", info_keys=("charge", "spin", "field")))
    atoms = cu()
    atoms.info.update(charge=-1, spin=2, field=np.arange(3.0), other="not read")
    atoms.set_initial_magnetic_moments([1.5, 0, -1, 0])
    atoms.set_initial_charges([0.1, 0, 0, -0.1])
    atoms.set_tags([1, 2, 3, 4])
    calculator = here.calculator("tells")
    told = calculator.get_property("told", atoms)
    assert told["info"] == {"charge": -1, "spin": 2, "field": [0.0, 1.0, 2.0]}
    assert told["arrays"]["initial_magmoms"] == [1.5, 0, -1, 0]
    assert told["arrays"]["initial_charges"] == [0.1, 0, 0, -0.1]
    assert told["arrays"]["tags"] == [1, 2, 3, 4]
    assert told["arrays"]["numbers"] == [29] * 4
    atoms.info["charge"] = 1
    del atoms.arrays["initial_charges"]
    told = calculator.get_property("told", atoms)
    assert told["info"]["charge"] == 1
    assert "initial_charges" not in told["arrays"]
    atoms.info["charge"] = object()
    with pytest.raises(StructureError, match="cannot travel"):
        calculator.get_property("told", atoms)
