"""Calculators that Dask workers host: how they come, die and go, and what is said when they cannot come."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from ase.calculators.emt import EMT

from mlipcluster.calculators.known import Known
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.deploy.local import Local
from mlipcluster.errors import CalculatorStartError, InputError, ServerGoneError, WorkerDiedError
from mlipcluster.serving.asking import ask
from mlipcluster.serving.nodes import MAX_VANISHED, Nodes
from mlipcluster.serving.offer import Offer
from mlipcluster.serving.remote_calculator import RemoteCalculator
from mlipcluster.serving.server import Options, Server


def expected(atoms):
    atoms = atoms.copy()
    atoms.calc = EMT()
    return atoms.get_potential_energy(), atoms.get_forces().tobytes()


def asked(atoms, calculator):
    atoms = atoms.copy()
    atoms.calc = calculator
    return atoms.get_potential_energy(), atoms.get_forces().tobytes()


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


@pytest.fixture
def killer(tmp_path):
    """A calculator that kills whoever starts it, as the kernel does with who takes too much memory; and its starts."""
    starts = tmp_path / "starts"
    (tmp_path / "killer.py").write_text(
        f"import os, signal\nopen({str(starts)!r}, 'a').write('x')\nos.kill(os.getppid(), signal.SIGKILL)\n"
        "import time; time.sleep(60)\n"
    )
    return CalculatorSpec("killer:f", paths=(str(tmp_path),)), starts


def test_the_first_call_starts_a_worker_and_idleness_ends_it(serve_on_nodes, cu, until, below):
    here = serve_on_nodes(Options(idle_timeout=1.0), Local(max_workers=1, min_workers=0))
    assert not below("deploy.worker")
    with here.calculator() as calculator:
        assert asked(cu(), calculator) == expected(cu())
        assert below("deploy.worker")
        until(lambda: not here.workers())
        until(lambda: not below("socket_worker"))
        until(lambda: not below("deploy.worker"))
        assert asked(cu(1), calculator) == expected(cu(1))  # and from none again


def test_answers_are_the_same_bits_and_nothing_is_left(serve_on_nodes, cu, tmp_path, until, below):
    here = serve_on_nodes(Options(max_workers=1))
    with here.calculator() as calculator:
        found = calculator.evaluate([cu(seed) for seed in range(40)], ("energy", "forces"))
    assert [(one["energy"], one["forces"].tobytes()) for one in found] == [expected(cu(seed)) for seed in range(40)]
    (worker,) = here.workers()
    assert worker["where"] == os.uname().nodename
    children = below()
    assert (tmp_path / "nodes" / "private").exists()
    here.server.__exit__()
    until(lambda: not any(child.is_running() for child in children))
    assert not (tmp_path / "nodes").exists()


def test_what_ends_in_a_call_is_replaced(serve_on_nodes, trial, cu, until, tmp_path, below):
    """The calculator's process, then the Dask worker that hosts it."""
    here = serve_on_nodes(waits=trial("WaitsFor", args=(str(tmp_path / "go"),)))
    begun = tmp_path / "go.begun"
    calculator = here.calculator("waits")
    thread, found = aside(calculator.get_property, "energy", cu())
    for find in (lambda: below("socket_worker"), lambda: [below("socket_worker")[0].parent()]):
        until(begun.exists)
        (process,) = find()
        process.send_signal(signal.SIGSTOP)  # so that it does not begin once more
        begun.unlink()
        process.kill()
    until(begun.exists)
    (tmp_path / "go").touch()
    thread.join()
    assert found == [pytest.approx(cu().positions.sum())]


def test_an_input_that_ends_its_workers_is_refused_with_their_last_words(serve_on_nodes, trial, cu):
    here = serve_on_nodes(bad=trial("HardExit"))
    with here.calculator("bad") as calculator, pytest.raises(WorkerDiedError, match=r"exit status 3(.|\n)*about to go"):
        calculator.get_property("energy", cu())


def test_an_input_that_ends_its_nodes_is_refused_with_what_was_seen_of_that(serve_on_nodes, cu, tmp_path):
    (tmp_path / "heavy.py").write_text(
        "import os, signal, time\nfrom ase.calculators.emt import EMT\nclass Heavy(EMT):\n"
        "    def calculate(self, *_):\n        os.kill(os.getppid(), signal.SIGKILL)\n        time.sleep(60)\n"
    )
    here = serve_on_nodes(heavy=CalculatorSpec("heavy:Heavy", paths=(str(tmp_path),)))
    with here.calculator("heavy") as calculator, pytest.raises(WorkerDiedError, match=r"3 processes.*connection lost"):
        calculator.get_property("energy", cu())


def test_a_calculator_that_cannot_be_built_says_why(serve_on_nodes, trial, cu):
    here = serve_on_nodes(bad=trial("NoSuchCalculator"), emt=CalculatorSpec("ase.calculators.emt:EMT"))
    with here.calculator("bad") as calculator, pytest.raises(CalculatorStartError, match="NoSuchCalculator"):
        calculator.get_property("energy", cu())
    with here.calculator() as calculator:
        assert asked(cu(), calculator) == expected(cu())  # its place is free


def test_dask_workers_that_end_over_a_start_are_given_up(serve_on_nodes, killer, cu, tmp_path):
    spec, starts = killer
    here = serve_on_nodes(killer=spec)
    words = f"{MAX_VANISHED} Dask workers in a row.*see the logs in {tmp_path / 'nodes' / 'logs'}"
    with here.calculator("killer") as calculator, pytest.raises(CalculatorStartError, match=words):
        calculator.get_property("energy", cu())
    assert starts.read_text() == MAX_VANISHED * "x"
    here.server.__exit__()
    assert (tmp_path / "nodes" / "logs").exists()  # to be seen
    assert not (tmp_path / "nodes" / "private").exists()


def test_a_deployment_without_any_workers_says_why(serve_on_nodes, cu, monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__NANNY__PRELOAD", "no_such_module")
    here = serve_on_nodes()
    with here.calculator() as calculator:
        for _ in range(2):
            with pytest.raises(CalculatorStartError, match=r"soon after each start(.|\n)*no_such_module"):
                calculator.get_property("energy", cu())
    assert not here.workers()


def test_the_end_in_the_middle_of_a_start_leaves_nothing(serve_on_nodes, trial, cu, until, tmp_path, below):
    here = serve_on_nodes(slow=trial("BuildsSlowly", args=(600,)))
    with here.calculator("slow", retries=0) as calculator:
        thread, found = aside(calculator.get_property, "energy", cu())
        until(lambda: below("socket_worker"))
        children = below()
        here.server.__exit__()
        thread.join()
    assert len(found) == 1
    assert isinstance(found[0], ServerGoneError)
    until(lambda: not any(child.is_running() for child in children))
    assert not (tmp_path / "nodes").exists()


def test_without_tls_nothing_is_served_to_others(tmp_path):
    with pytest.raises(InputError, match="over TLS alone"):
        Nodes(Local(), tmp_path, security=False)


def test_a_deployment_that_does_not_start_leaves_no_server(serve, tmp_path):
    (tmp_path / "nodes").write_text("in the way")
    with pytest.raises(OSError, match="nodes"):
        serve(nodes=Nodes(Local(max_workers=1), tmp_path / "nodes"))
    assert not (tmp_path / "own").exists()


def test_the_end_waits_for_no_start(tmp_path, trial, cu, until):
    offer = Offer({"slow": Known("slow", "a test", trial("BuildsSlowly", args=(3600.0,)), None)})
    nodes = Nodes(Local(max_workers=1), tmp_path / "folder")
    server = Server(offer, tmp_path / "own" / "s", Options(start_timeout=3600.0), nodes)
    running = threading.Thread(target=server.run)
    running.start()
    caught = []

    def call():
        with RemoteCalculator("slow", server.address, retries=0) as calculator:
            try:
                calculator.get_property("energy", cu())
            except Exception as error:
                caught.append(error)

    asking = threading.Thread(target=call)
    asking.start()
    until(lambda: ask("status", server.address)["workers"])
    server.stop()
    asking.join()
    running.join()
    assert "the server ends" in str(caught[0])
    assert not (tmp_path / "folder").exists()
