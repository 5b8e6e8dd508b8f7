from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from mlipcluster.protocols import md


class Wells(Calculator):
    """Each atom in a harmonic well of its own: every average is known."""

    implemented_properties = ("energy", "forces", "stress")
    stiffness = 5.0

    def __init__(self, centers):
        super().__init__()
        self.centers = centers

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        away = self.atoms.positions - self.centers
        self.results = {"energy": self.stiffness / 2 * (away**2).sum(), "forces": -self.stiffness * away}


class Explosion(Wells):
    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] = np.nan


class Gas(Calculator):
    """Nothing but volume: E = (V - V0)² K / 2 V0; pressure is known at each volume."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, volume, modulus):
        super().__init__()
        self.volume, self.modulus = volume, modulus

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        excess = self.atoms.get_volume() - self.volume
        slope = self.modulus * excess / self.volume
        self.results = {
            "energy": slope * excess / 2,
            "forces": np.zeros((len(self.atoms), 3)),
            "stress": np.array([slope] * 3 + [0.0] * 3),
        }


def rng(seed=7):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("ensemble", ["nve", "nvt", "npt"])
def test_same_seed_same_bits_another_seed_another_path(cu, ensemble):
    first, again = (md(cu.copy(), EMT(), rng(3), ensemble=ensemble, steps=30) for _ in range(2))
    other = md(cu.copy(), EMT(), rng(4), ensemble=ensemble, steps=30)
    assert np.array_equal(first.positions, again.positions)
    assert np.array_equal(first.get_momenta(), again.get_momenta())
    assert np.array_equal(first.cell, again.cell)
    assert first.info == again.info
    assert not np.array_equal(first.positions, other.positions)


def test_touches_no_other_random_numbers(cu):
    np.random.seed(0)  # noqa: NPY002 - the global generator is what must stay untouched
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    md(cu, EMT(), rng(), ensemble="npt", steps=5)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_nve_conserves_energy_and_the_centre_of_mass(cu):
    center = cu.get_center_of_mass()
    start = cu.copy()
    done = md(cu, EMT(), rng(), ensemble="nve", temperature=600, steps=300, timestep=2)
    assert done.info["energy_fluctuation"] < 1e-3
    assert abs(done.info["energy_drift"]) < 2e-3
    assert done.info["time"] == pytest.approx(600)
    assert done.get_center_of_mass() == pytest.approx(center, abs=1e-9)
    assert np.abs(done.positions - start.positions).max() > 0.01


@pytest.mark.parametrize("steps", [2003, 2004])
def test_time_is_that_of_the_structure_whatever_the_sampling(steps):
    atoms = Atoms("Cu", positions=[[0.1, 0, 0]])
    done = md(atoms, Wells(np.zeros((1, 3))), rng(), ensemble="nve", steps=steps, timestep=0.5)
    assert done.info["time"] == pytest.approx(steps / 2)


def test_a_last_step_between_two_samples_is_looked_at_too():
    class Late(Wells):
        calls = 0

        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            type(self).calls += 1
            if self.calls > 2003:
                self.results["energy"] = np.nan

    with pytest.raises(FloatingPointError, match="at step 2003"):
        md(Atoms("Cu", positions=[[0.1, 0, 0]]), Late(np.zeros((1, 3))), rng(), ensemble="nve", steps=2003)


def test_nve_error_falls_with_the_square_of_the_time_step():
    """Velocity Verlet is of second order: half the step, a quarter of the fluctuation."""
    fluctuations = [
        md(bulk("Cu", cubic=True), EMT(), rng(), ensemble="nve", temperature=600, steps=n, timestep=dt).info[
            "energy_fluctuation"
        ]
        for n, dt in ((100, 4.0), (200, 2.0))
    ]
    assert fluctuations[0] / fluctuations[1] == pytest.approx(4, rel=0.25)


def test_langevin_samples_the_canonical_ensemble():
    """Equipartition holds for the kinetic energy and, in harmonic wells, for the potential energy too."""
    atoms = bulk("Cu", cubic=True) * (3, 3, 3)
    done = md(atoms, Wells(atoms.positions.copy()), rng(), temperature=300, steps=4000, timestep=4, friction=0.02)
    assert done.info["mean_temperature"] == pytest.approx(300, rel=0.03)
    assert done.info["mean_energy"] == pytest.approx(1.5 * len(atoms) * units.kB * 300, rel=0.03)


@pytest.mark.parametrize(("hydrostatic", "target"), [(True, 5.0), (False, 0.0)])
def test_npt_keeps_temperature_and_pressure(hydrostatic, target):
    atoms = bulk("Cu", cubic=True) * (3, 3, 3)
    gas = Gas(atoms.get_volume(), 100 * units.GPa)
    shape = atoms.cell.array / atoms.cell.array[0, 0]
    done = md(
        atoms, gas, rng(), ensemble="npt", temperature=300, pressure=target, hydrostatic=hydrostatic,
        steps=3000, timestep=4, friction=0.02,
    )  # fmt: skip
    assert done.info["mean_temperature"] == pytest.approx(300, rel=0.05)
    assert done.info["mean_pressure"] == pytest.approx(target, abs=0.3)
    ideal = len(atoms) * units.kB * 300 / done.info["mean_volume"]
    volume = gas.volume * (1 - (target * units.GPa - ideal) / gas.modulus)
    assert done.info["mean_volume"] == pytest.approx(volume, rel=0.005)
    assert np.allclose(done.cell.array / done.cell.array[0, 0], shape) == hydrostatic


def test_goes_on_with_the_velocities_that_are_there(cu):
    cu.set_momenta(np.ones((4, 3)))
    done = md(cu, Wells(cu.positions.copy()), rng(), ensemble="nve", steps=1, timestep=1e-6, thermalize=False)
    assert done.get_momenta() == pytest.approx(np.ones((4, 3)), abs=1e-6)


def test_first_velocities_are_maxwell_boltzmann():
    atoms = bulk("Cu", cubic=True) * (6, 6, 6)
    done = md(atoms, Wells(atoms.positions.copy()), rng(), temperature=500, steps=1, timestep=1e-6)
    speeds = done.get_velocities().ravel() * np.sqrt(done.get_masses()[0] / (units.kB * 500))
    assert speeds.mean() == pytest.approx(0, abs=0.08)
    assert speeds.std() == pytest.approx(1, rel=0.05)
    assert (speeds**4).mean() == pytest.approx(3, rel=0.2)


@pytest.mark.parametrize("ensemble", ["nve", "nvt"])
def test_constraints_hold(cu, ensemble):
    cu.set_constraint(FixAtoms([0]))
    fixed = cu.positions[0].copy()
    assert np.array_equal(md(cu, EMT(), rng(), ensemble=ensemble, steps=20).positions[0], fixed)


@pytest.mark.parametrize("ensemble", ["nve", "nvt", "npt"])
def test_results_belong_to_the_last_structure_and_nothing_is_printed_or_written(
    cu, ensemble, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    done = md(cu, EMT(), rng(), ensemble=ensemble, steps=7)
    assert {"energy", "forces"} <= set(done.calc.results)
    assert not done.calc.check_state(done)
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_a_single_atom_moves():
    done = md(bulk("Cu"), EMT(), rng(), ensemble="nve", steps=5)
    assert done.info["mean_temperature"] > 0


def test_an_explosion_is_an_error(cu):
    with pytest.raises(FloatingPointError, match="shorter timestep"):
        md(cu, Explosion(cu.positions), rng(), steps=5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ensemble": "NVT"}, "known: nve, nvt, npt"),
        ({"timestep": 0.0}, "timestep=0.0"),
        ({"steps": 0}, "steps=0"),
        ({"friction": -1.0}, "friction=-1.0"),
        ({"temperature": -1.0}, "temperature=-1.0"),
    ],
)
def test_senseless_options_are_refused(cu, options, said):
    with pytest.raises(ValueError, match=said):
        md(cu, EMT(), rng(), **options)


def test_a_molecule_has_no_pressure():
    with pytest.raises(ValueError, match="use ensemble='nvt'"):
        md(molecule("CO"), EMT(), rng(), ensemble="npt")
