"""What holds for every calculator with a short name: asked through a socket it is what it is in process.

In a process of its own, where it has a history that can be prepared, and served, where each structure is told whole.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import pickle
import subprocess
from dataclasses import dataclass

import ase.io
import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError, all_properties
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.constraints import FixAtoms, FixSymmetry
from ase.filters import FrechetCellFilter
from ase.md.langevin import Langevin
from ase.optimize import BFGS, FIRE

from mlipcluster.calculators.known import Known, built_in
from mlipcluster.calculators.registry import resolve
from mlipcluster.calculators.socket_calculator import SocketCalculator
from mlipcluster.calculators.wire_calculator import WireCalculator
from mlipcluster.serving.offer import Offer
from mlipcluster.serving.remote_calculator import RemoteCalculator
from mlipcluster.serving.server import Options, Server

TOLERANCE = {"emt": 1e-6, "lj": 1e-6, "chgnet": 2e-2}  # CHGNet computes in single precision


def structure(name):
    """A crystal that the calculator knows, off its equilibrium."""
    if name == "lj":
        atoms = bulk("Ar", "fcc", a=5.25, cubic=True) * (2, 1, 1)
    elif name == "chgnet":
        atoms = bulk("NaCl", "rocksalt", a=5.5, cubic=True)
    else:
        atoms = bulk("Cu", "fcc", a=3.5, cubic=True) * (2, 1, 1)
        atoms.symbols[0] = "Au"
    atoms.rattle(0.03, seed=4)
    return atoms


@dataclass
class Case:
    name: str
    remote: WireCalculator
    spec: object
    is_served: bool = False

    def prepare(self, seed=None):
        """Bring it to its defined state; one that is served has none that shows."""
        if not self.is_served:
            self.remote.prepare(seed=seed)

    def in_process(self, frames, tmp_path):
        """What the calculator answers, without mlipcluster, in a process of the Python that has it."""
        ase.io.write(tmp_path / "frames.traj", frames)
        told = json.dumps([self.spec.factory, dict(self.spec.kwargs), self.spec.device, self.is_served])
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([self.spec.interpreter, "-c", IN_PROCESS, told], cwd=tmp_path, env=environment, check=True)
        return pickle.loads((tmp_path / "answers").read_bytes())


IN_PROCESS = """
import importlib, json, pickle, sys
import ase.io
from ase.calculators.calculator import PropertyNotImplementedError
factory, arguments, device, is_served = json.loads(sys.argv[1])
module, _, name = factory.partition(":")
if device is not None:
    arguments["use_device"] = device
build = getattr(importlib.import_module(module), name)
calculator = build(**arguments)
answers = []
frames = ase.io.read("frames.traj", ":")
atoms = frames[0].copy()
for frame in frames:
    if is_served:  # its answers depend on the structure alone
        calculator, atoms = build(**arguments), frames[0].copy()
    atoms.positions = frame.positions
    atoms.calc = calculator
    atoms.get_potential_energy()
    answer = {}
    for name in calculator.implemented_properties:
        try:
            answer[name] = calculator.get_property(name, atoms)
        except PropertyNotImplementedError:
            answer[name] = None
    answers.append((answer, sorted(calculator.results)))
open("answers", "wb").write(pickle.dumps(answers))
"""


@pytest.fixture(scope="module", params=itertools.product(sorted(built_in()), ("own", "served")), ids="-".join)
def case(request, tmp_path_factory):
    name, how = request.param
    spec = resolve(name)
    if name == "chgnet":
        spec = spec.replace(python=request.getfixturevalue("chgnet_python"), device="cpu")
    if name == "lj":  # argon, but stiffer, and without a step at the cutoff
        spec = spec.replace(kwargs={"sigma": 3.4, "epsilon": 0.5, "rc": 6.5, "smooth": True})
    if how == "own":
        with SocketCalculator(spec) as calculator:
            yield Case(name, calculator, spec)
        return
    offer = Offer({name: Known(name, "a test", spec)})
    options = Options(start_timeout=600.0)
    with (
        Server(offer, tmp_path_factory.mktemp("served") / "own" / "s", options) as server,
        RemoteCalculator(name, server.address) as calculator,
    ):
        yield Case(name, calculator, spec, is_served=True)


@pytest.fixture
def atoms(case):
    case.prepare(seed=0)
    atoms = structure(case.name)
    atoms.calc = case.remote
    return atoms


def test_results_are_those_of_the_calculator_in_process_bit_for_bit(case, atoms, tmp_path):
    rng = np.random.default_rng(1)
    frames = [atoms.copy() for _ in range(5)]
    for before, frame in itertools.pairwise(frames):
        frame.positions = before.positions + rng.normal(0, 0.02, frame.positions.shape)
    for frame, (expected, names_of_results) in zip(frames, case.in_process(frames, tmp_path), strict=True):
        atoms.positions = frame.positions
        atoms.get_potential_energy()
        for name, value in expected.items():
            if value is None:
                with pytest.raises(PropertyNotImplementedError):
                    case.remote.get_property(name, atoms)
                continue
            found = case.remote.get_property(name, atoms)
            assert type(found) is type(value)
            assert np.asarray(found).tobytes() == np.asarray(value).tobytes()
        assert sorted(case.remote.results) == names_of_results


def test_the_same_steps_from_the_defined_state_give_the_same_bits(case, atoms):
    def walk():
        case.prepare(seed=1)
        moving, rng, answers = structure(case.name), np.random.default_rng(2), []
        moving.calc = case.remote
        for _ in range(5):
            moving.positions += rng.normal(0, 0.02, moving.positions.shape)
            answers.append(
                (moving.get_potential_energy(), moving.get_forces().tobytes(), moving.get_stress().tobytes())
            )
        return answers

    first = walk()
    atoms.rattle(0.3, seed=9)
    atoms.get_forces()
    assert walk() == first


def test_forces_are_the_derivative_of_the_energy(case, atoms):
    step = 1e-2 if case.name == "chgnet" else 1e-5
    forces = atoms.get_forces()
    numerical = calculate_numerical_forces(atoms, eps=step, iatoms=[0, 1], force_consistent=False)
    assert np.allclose(forces[:2], numerical, atol=TOLERANCE[case.name], rtol=1e-3)


def test_stress_is_the_derivative_of_the_energy(case, atoms):
    step = 1e-3 if case.name == "chgnet" else 1e-6
    numerical = calculate_numerical_stress(atoms, eps=step, force_consistent=False)
    assert np.allclose(atoms.get_stress(), numerical, atol=TOLERANCE[case.name], rtol=1e-3)


@pytest.mark.parametrize("optimizer", [BFGS, FIRE])
def test_relaxes(case, atoms, optimizer):
    before = atoms.get_potential_energy()
    assert optimizer(atoms, logfile=None).run(fmax=0.05, steps=200)
    assert abs(atoms.get_forces()).max() <= 0.05
    assert atoms.get_potential_energy() < before


def test_relaxes_the_cell(case, atoms):
    assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.1, steps=300)
    assert abs(atoms.get_stress()).max() * atoms.get_volume() < 1.0


def test_constraints_hold(case, atoms):
    atoms.set_constraint([FixAtoms([0, 1])])
    fixed = atoms.positions[:2].copy()
    assert (atoms.get_forces()[:2] == 0).all()
    assert abs(atoms.get_forces(apply_constraint=False)[:2]).max() > 0
    BFGS(atoms, logfile=None).run(fmax=0.05, steps=3)
    assert (atoms.positions[:2] == fixed).all()


def test_symmetry_constraint(case):
    atoms = bulk("Cu", "fcc", a=3.5) if case.name == "emt" else bulk("NaCl", "rocksalt", a=5.5)
    if case.name == "lj":
        atoms = bulk("Ar", "fcc", a=5.25)
    case.prepare()
    atoms.calc = case.remote
    atoms.set_constraint(FixSymmetry(atoms))
    stress = atoms.get_stress()
    assert np.allclose(stress[:3], stress[0])


def test_molecular_dynamics_is_reproducible(case, atoms):
    def run():
        case.prepare(seed=3)
        moving, rng = structure(case.name), np.random.default_rng(5)
        moving.calc = case.remote
        moving.set_momenta(rng.normal(0, 1, moving.positions.shape))
        Langevin(moving, units.fs, temperature_K=300, friction=0.01 / units.fs, rng=rng, fixcm=False).run(10)
        return moving.positions.tobytes(), moving.get_momenta().tobytes(), moving.get_potential_energy()

    assert run() == run()


def test_what_it_says_it_can_do_it_can_or_refuses(case, atoms):
    for name in all_properties:
        if name not in case.remote.implemented_properties:
            with pytest.raises(PropertyNotImplementedError):
                case.remote.get_property(name, atoms)
    assert {"energy", "forces", "stress"} <= set(case.remote.implemented_properties)


def test_pickles_and_copies(case, atoms):
    energy = atoms.get_potential_energy()
    for other in (pickle.loads(pickle.dumps(atoms)), copy.deepcopy(atoms)):
        assert other.get_potential_energy() == energy
        assert (other.get_forces() == atoms.get_forces()).all()
        assert case.is_served or not other.calc.host.alive


def test_ase_cannot_tell_the_results_apart(case, atoms):
    """Keywords, names and shapes that ASE's own code goes by."""
    atoms.get_potential_energy()
    assert atoms.calc.results["forces"].shape == atoms.positions.shape
    assert atoms.get_stress().shape == (6,)
    assert atoms.get_stress(voigt=False).shape == (3, 3)
    if case.name != "chgnet":  # whose stress is a matrix, which ASE refuses to export in process, too
        assert atoms.calc.export_properties()["energy"] == atoms.get_potential_energy()
    assert isinstance(atoms.calc.name, str)


def test_provenance_names_the_weights(case):
    provenance = case.remote.provenance()
    if case.name == "chgnet":
        (weight,) = provenance.weights
        assert weight.path.endswith(".pth.tar")
        assert len(weight.sha256) == 64
        assert "torch" in provenance.versions
    else:
        assert provenance.weights == ()
