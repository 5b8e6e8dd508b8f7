"""Interrupted at any save, gone on with elsewhere: the same bits, with real socket workers and EMT's memory."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import replace

import cloudpickle
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from mlipcluster.attempt import Watcher
from mlipcluster.calculators.pool import CalculatorPool
from mlipcluster.calls import Call, Job, TaskInfo
from mlipcluster.execute import Executor
from mlipcluster.protocols import md, relax
from mlipcluster.protocols.relax import OPTIMIZERS
from mlipcluster.records.packing import decode


@pytest.fixture(scope="module")
def pools():
    """Two kinds of workers: one that stays warm, and a new one for each call."""
    with CalculatorPool() as warm:
        yield {"warm": lambda: warm, "cold": CalculatorPool}


@pytest.fixture
def interrupted_everywhere(pools, emt):
    """``interrupted_everywhere(protocol, atoms, **kwargs) -> number of saves``, after all were gone on from."""

    def check(protocol, atoms, least=3, **kwargs):
        blob = cloudpickle.dumps((protocol, None))
        job = Job("run", blob, hashlib.sha256(blob).hexdigest(), {"": emt}, 7, formats=("extxyz",))
        info = TaskInfo("k" * 32, "task 0", 0, 0, (), "protocol")
        call = Call(info, pickle.dumps(atoms), kwargs)

        def run(checkpoint, keep=lambda _: None, pool="warm"):
            result = Executor(pools[pool]()).run(job, replace(call, checkpoint=checkpoint), Watcher(keep=keep))
            assert result.failure is None, result.failure.traceback
            return result

        saves = []
        whole = run(None, saves.append)
        assert [saved.number for saved in saves] == list(range(1, len(saves) + 1))
        assert len(saves) >= least
        for saved in saves:
            later = []
            again = run(saved, later.append, "cold" if saved is saves[len(saves) // 2] else "warm")
            assert [same(a, b) for a, b in zip(again.products, whole.products, strict=True)] == [None] * len(
                whole.products
            ), saved.number
            assert [other.body for other in later] == [other.body for other in saves[saved.number :]]
        return saves

    return check


def same(a, b):
    """The first thing in which two outputs differ; None if they do not."""
    if a.digest == b.digest and a.scores == b.scores:
        return None
    left, right = decode(a.packed), decode(b.packed)
    for name in ("positions", "cell", "arrays", "info"):
        if not np.array_equal(getattr(left, name), getattr(right, name)):
            return name
    return a.scores, b.scores


def far_from_its_lattice():
    atoms = bulk("Cu", cubic=True) * (2, 2, 1)
    atoms.rattle(0.1, seed=3)
    return atoms


@pytest.mark.parametrize(
    "options",
    [
        {"ensemble": "nve", "temperature": 900},
        {"ensemble": "nvt", "temperature": 1500},  # hot enough for EMT's neighbour list to be made anew on the way
        {"ensemble": "npt", "temperature": 600},
        {"ensemble": "npt", "temperature": 600, "hydrostatic": False, "pressure": 1.0},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_md(interrupted_everywhere, options):
    interrupted_everywhere(md, far_from_its_lattice(), steps=47, save_every=10, timestep=4, **options)


def test_md_with_constraints(interrupted_everywhere):
    atoms = far_from_its_lattice()
    atoms.set_constraint(FixAtoms([0, 5]))
    interrupted_everywhere(md, atoms, steps=25, save_every=6)


@pytest.mark.parametrize("cell", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_relax(interrupted_everywhere, optimizer, cell):
    atoms = far_from_its_lattice()
    interrupted_everywhere(relax, atoms, optimizer=optimizer, cell=cell, fmax=1e-5, steps=20, save_every=4)


def walk(atoms, calc, rng, checkpoint, steps):
    """A user's own protocol: random numbers of all kinds, a state, a calculator with a memory."""
    import random

    from ase.build import molecule

    atoms.calc = calc
    done, energies, others = 0, [], [molecule("CO")]
    if (found := checkpoint.load()) is not None:
        atoms, (done, energies, others) = found
        atoms.calc = calc
    while done < steps:
        atoms.positions += 0.05 * atoms.get_forces() + rng.normal(0, 0.05, atoms.positions.shape)
        atoms.positions[0] += random.gauss(0, 0.01) + np.random.normal(0, 0.01)  # noqa: NPY002 - what users write
        atoms.rattle(0.01, rng=rng.spawn(1)[0])
        energies.append(atoms.get_potential_energy())
        others[0].positions += random.random()
        done += 1
        if done % 4 == 0:
            checkpoint.save(atoms, (done, energies, others))
    atoms.info["energies"] = energies
    yield atoms
    atoms.get_potential_energy()
    yield from others


def test_a_users_own_protocol(interrupted_everywhere):
    saves = interrupted_everywhere(walk, far_from_its_lattice(), steps=18)
    assert len(saves) == 4


def test_relax_gets_where_it_gets_without_checkpoints(emt):
    """Saving changes the last bits alone: the optimizer keeps what it has learned."""

    class Kept:
        def save(self, atoms, state):
            self.saved = atoms, state

        def load(self):
            return getattr(self, "saved", None)

    for optimizer in OPTIMIZERS:
        plain = relax(far_from_its_lattice(), EMT(), optimizer=optimizer, cell=True, fmax=0.01)
        saving = relax(
            far_from_its_lattice(), EMT(), optimizer=optimizer, cell=True, fmax=0.01, checkpoint=Kept(), save_every=3
        )
        assert saving.info["converged"]
        assert abs(saving.info["steps"] - plain.info["steps"]) <= 2
        assert saving.get_potential_energy() == pytest.approx(plain.get_potential_energy(), abs=1e-5)


@pytest.mark.parametrize("protocol", [md, relax])
def test_senseless_intervals_are_refused(protocol, cu):
    more = {"rng": np.random.default_rng(1)} if protocol is md else {}
    with pytest.raises(ValueError, match="save_every=0"):
        protocol(cu, EMT(), save_every=0, **more)
