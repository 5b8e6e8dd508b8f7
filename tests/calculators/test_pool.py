from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlipcluster.calculators.pool import CalculatorPool
from mlipcluster.calculators.registry import resolve
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.errors import CalculatorError, WorkerDiedError


@pytest.fixture(scope="module")
def pool():
    with CalculatorPool() as pool:
        yield pool


def trajectory(calculator, seed):
    """Energies and forces along a random walk: EMT's last bits depend on the walk."""
    rng = np.random.default_rng(seed)
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.calc = calculator
    answers = []
    for _ in range(6):
        atoms.positions += rng.normal(0, 0.03, atoms.positions.shape)
        answers.append((atoms.get_potential_energy(), atoms.get_forces().tobytes(), atoms.get_stress().tobytes()))
    return answers


def test_history_matters_within_one_calculator():
    """Else the tests below could not fail."""
    calculator = EMT()
    first, again = trajectory(calculator, 3), trajectory(calculator, 3)
    assert first == trajectory(EMT(), 3)
    assert first[0][0] == pytest.approx(again[0][0])
    assert any(trajectory(calculator, seed) != trajectory(EMT(), seed) for seed in range(8))


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=st.lists(st.integers(0, 99), max_size=3), seed=st.integers(0, 99))
def test_a_warm_worker_answers_as_a_cold_one_bit_for_bit(pool, history, seed):
    for other in history:
        with pool.lease(resolve("emt")) as calculator:
            trajectory(calculator, other)
    with pool.lease(resolve("emt")) as calculator:
        assert trajectory(calculator, seed) == trajectory(EMT(), seed)


def test_a_lease_starts_in_the_defined_state(pool, trial):
    for spec in (trial("Counts"), trial("Counts", state="start_over")):
        for _ in range(2):
            with pool.lease(spec) as calculator:
                assert [calculator.get_property("energy", bulk("Cu", a=a)) for a in (3.5, 3.6, 3.7)] == [1, 2, 3]


def test_the_seed_decides_the_random_numbers_and_nothing_else_does(pool, trial):
    def draw(seed):
        with pool.lease(trial("Draws"), seed=seed) as calculator:
            atoms = bulk("Cu")
            atoms.calc = calculator
            return atoms.get_potential_energy(), atoms.get_forces().tolist()

    first, other, again = draw(1), draw(2), draw(1)
    assert first == again
    assert first != other
    with CalculatorPool() as cold, cold.lease(trial("Draws"), seed=1) as calculator:
        assert calculator.get_property("energy", bulk("Cu")) == first[0]


def test_a_factory_that_is_the_first_to_load_torch_draws_as_it_does_later(tmp_path):
    (tmp_path / "torch.py").write_text(
        "import random\ngenerator = random.Random(67280421310721)\n"
        "manual_seed, rand = generator.seed, generator.random\n"
    )
    (tmp_path / "lazy.py").write_text(
        "from ase.calculators.lj import LennardJones\n"
        "def build():\n    import torch\n    return LennardJones(sigma=3.0, epsilon=torch.rand())\n"
    )
    spec = CalculatorSpec("lazy:build", paths=(str(tmp_path),))
    energies = []
    with CalculatorPool() as pool:
        for _ in range(3):
            with pool.lease(spec, seed=7) as calculator:
                energies.append(calculator.get_property("energy", bulk("Ar", cubic=True)))
    assert energies[0] == energies[1] == energies[2]


def test_leases_one_after_another_share_a_worker(pool, emt):
    pids = set()
    for _ in range(3):
        with pool.lease(emt) as calculator:
            calculator.get_property("energy", bulk("Cu"))
            pids.add(calculator.host.pid)
    assert len(pids) == 1


def test_leases_at_the_same_time_do_not(pool, emt):
    with pool.lease(emt) as one, pool.lease(emt) as two:
        assert one.host.pid != two.host.pid


def test_after_the_lease_results_can_be_read_and_nothing_calculated(pool, emt, cu):
    with pool.lease(emt) as calculator:
        cu.calc = calculator
        energy, forces = cu.get_potential_energy(), cu.get_forces()
    assert cu.get_potential_energy() == energy
    assert (cu.get_forces() == forces).all()
    assert calculator.atoms == cu
    cu.positions[0, 0] += 0.1
    with pytest.raises(CalculatorError, match="was lent for one protocol call"):
        cu.get_potential_energy()


def test_what_was_lent_cannot_be_closed_by_the_borrower(pool, emt):
    with pool.lease(emt) as calculator:
        pid = calculator.host.pid
        calculator.close()
        assert calculator.host.pid == pid


def test_provenance_starts_the_worker(pool):
    assert pool.provenance(resolve("lj")).implemented_properties[:2] == ("energy", "energies")


def test_only_so_many_are_kept():
    with CalculatorPool(keep=1) as pool:
        hosts = []
        for name in ("emt", "lj"):
            with pool.lease(resolve(name)) as calculator:
                hosts.append(calculator.host)
        assert [host.alive for host in hosts] == [False, True]
    assert not hosts[1].alive


def test_a_worker_on_loan_when_the_pool_closes_ends_afterwards(emt):
    pool = CalculatorPool()
    with pool.lease(emt) as calculator:
        host = calculator.host
        pool.close()
        assert calculator.get_property("energy", bulk("Cu"))
    assert not host.alive


def test_a_failing_protocol_gives_its_calculator_back(pool, emt):
    hosts = []

    def protocol():
        with pool.lease(emt) as calculator:
            hosts.append(calculator.host)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        protocol()
    with pool.lease(emt) as calculator:
        assert calculator.host is hosts[0]


def test_threads_get_calculators_of_their_own(pool, emt):
    answers = []

    def work(seed):
        with pool.lease(emt) as calculator:
            answers.append(trajectory(calculator, seed) == trajectory(EMT(), seed))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 3


def kill(calculator):
    os.kill(calculator.host.pid, signal.SIGKILL)
    calculator.host._process.wait(10)


def test_a_worker_that_ends_before_it_calculated_is_replaced_unseen(pool):
    with pool.lease(resolve("emt")) as calculator:
        kill(calculator)
        assert trajectory(calculator, 3) == trajectory(EMT(), 3)
        assert not calculator.interrupted


@pytest.mark.parametrize("how", ["between two calculations", "within one"])
def test_a_worker_that_ends_after_it_calculated_interrupts_the_call_once(pool, trial, tmp_path, how):
    dying = trial("DiesOnce", kwargs={"marker": str(tmp_path / "marker"), "calls": 3})
    spec = resolve("emt") if how == "between two calculations" else dying
    atoms = bulk("Cu", cubic=True)
    with pool.lease(spec) as calculator:
        atoms.calc = calculator
        for _ in range(2):
            atoms.positions += 0.01
            atoms.get_potential_energy()
        assert not calculator.interrupted
        if how == "between two calculations":
            kill(calculator)
        atoms.positions += 0.01
        with pytest.raises(WorkerDiedError, match="ended"):
            atoms.get_potential_energy()
        assert calculator.interrupted
        atoms.get_potential_energy()  # a protocol that catches the error can go on
        calculator.prepare()
        assert not calculator.interrupted


def test_a_worker_that_ends_after_it_raised_interrupts_the_call_too(pool, trial, tmp_path, cu):
    spec = trial("RaisesThenDiesOnce", kwargs={"marker": str(tmp_path / "marker"), "calls": 2})
    with pool.lease(spec) as calculator:
        cu.calc = calculator
        with pytest.raises(ValueError, match="once"):
            cu.get_potential_energy()
        cu.positions += 0.01
        with pytest.raises(WorkerDiedError, match="ended"):
            cu.get_potential_energy()
        assert calculator.interrupted
