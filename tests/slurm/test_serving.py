"""Calculators served by jobs of a real SLURM, from none and back to none."""

from __future__ import annotations

import os
import signal
import threading
import time
import types

import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from mlipcluster import RemoteCalculator
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.deploy.certificates import issue
from mlipcluster.deploy.tls import from_credentials
from mlipcluster.errors import InputError
from mlipcluster.serving.asking import ask
from mlipcluster.serving.nodes import Nodes
from mlipcluster.serving.offer import Offer
from mlipcluster.serving.server import Options, Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def serve(slurm_jobs, tmp_path):
    """A server whose workers are jobs."""

    def make(options=None, security=None, **fields):
        spec = CalculatorSpec("ase.calculators.emt:EMT", name="emt")
        known = {"emt": types.SimpleNamespace(name="emt", source="test", spec=spec, command=None)}
        nodes = Nodes(slurm_jobs(idle_timeout=2, **fields), tmp_path / "folder", security)
        return Server(Offer(known), tmp_path / "own" / "s", options or Options(idle_timeout=3), nodes)

    return make


def copper(seed=0):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=seed)
    return atoms


def expected(atoms):
    atoms = atoms.copy()
    atoms.calc = EMT()
    return atoms.get_potential_energy(), atoms.get_forces().tobytes()


def asked(atoms, calculator):
    atoms = atoms.copy()
    atoms.calc = calculator
    return atoms.get_potential_energy(), atoms.get_forces().tobytes()


def test_the_first_call_starts_a_job_and_idleness_ends_it(slurm, serve, until, tmp_path):
    security = from_credentials(issue())
    with serve(security=security) as server:
        assert not slurm.queue()
        begun = time.monotonic()
        with RemoteCalculator("emt", server.address) as calculator:
            assert asked(copper(), calculator) == expected(copper())
            print(f"first answer after {time.monotonic() - begun:.1f} s")
        assert len(slurm.queue()) == 1
        (worker,) = ask("status", server.address)["workers"]
        assert worker["where"] == os.uname().nodename
        with RemoteCalculator("emt", server.listeners.tls_addresses[0], security=security) as elsewhere:
            assert asked(copper(1), elsewhere) == expected(copper(1))
        with (
            RemoteCalculator("emt", server.listeners.tls_addresses[0]) as stranger,
            pytest.raises(InputError, match="credentials"),
        ):
            asked(copper(), stranger)
        until(lambda: not slurm.queue())  # the server is still there
        with RemoteCalculator("emt", server.address) as calculator:
            assert asked(copper(2), calculator) == expected(copper(2))
    assert not slurm.queue()
    assert not (tmp_path / "folder").exists()


def test_a_job_that_is_killed_is_replaced_in_mid_calculation(slurm, serve, until):
    with serve(workers=(0, 2)) as server, RemoteCalculator("emt", server.address) as calculator:
        assert asked(copper(), calculator) == expected(copper())
        answers, structures = [], [copper(seed) for seed in range(300)]
        thread = threading.Thread(target=lambda: answers.extend(calculator.evaluate(structures)))
        thread.start()
        for process in slurm.processes():
            process.send_signal(signal.SIGKILL)
        thread.join(120)
        assert len(answers) == 300
        for atoms, answer in zip(structures, answers, strict=True):
            assert (answer["energy"], answer["forces"].tobytes()) == expected(atoms)


def test_a_job_that_cannot_be_had_is_an_error_that_says_why(slurm, serve):
    with (
        serve(queue="nowhere") as server,
        RemoteCalculator("emt", server.address) as calculator,
        pytest.raises(Exception, match=r"nowhere|partition"),
    ):
        asked(copper(), calculator)
