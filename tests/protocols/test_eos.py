from __future__ import annotations

import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from scipy.optimize import brentq

from mlipcluster.protocols import eos


class Springs(Calculator):
    """A crystal whose energy is the Birch–Murnaghan equation of state itself."""

    implemented_properties = ("energy", "forces", "stress")
    volume, energy, modulus, derivative = 20.0, -3.0, 0.7, 5.5

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        eta = (self.volume * len(self.atoms) / self.atoms.get_volume()) ** (2 / 3)
        each = 9 / 16 * self.volume * self.modulus * ((eta - 1) ** 3 * self.derivative + (eta - 1) ** 2 * (6 - 4 * eta))
        self.results = {
            "energy": len(self.atoms) * (self.energy + each),
            "forces": np.zeros((len(self.atoms), 3)),
            "stress": np.zeros(6),
        }


class Flat(Springs):
    """The larger the better: never bound."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] = -self.atoms.get_volume()


def pressure(atoms, scale):
    """Pressure in eV/Å³ from EMT's stress, with each cell vector scaled."""
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell * scale, scale_atoms=True)
    atoms.calc = EMT()
    return -atoms.get_stress()[:3].mean()


@pytest.mark.parametrize("symbol", ["Cu", "Al", "Ag", "Au", "Ni", "Pd", "Pt"])
def test_agrees_with_the_stress_which_the_fit_never_sees(symbol):
    """Volume where the stress vanishes, and K = -V dP/dV there, by finite differences."""
    atoms = bulk(symbol, cubic=True)
    scale = brentq(lambda s: pressure(atoms, s), 0.95, 1.05, xtol=1e-10)
    volume, h = atoms.get_volume() * scale**3, 1e-4
    slope = pressure(atoms, scale * (1 + h)) - pressure(atoms, scale * (1 - h))
    modulus = -slope / (6 * h) / units.GPa

    info = eos(atoms, EMT()).info
    assert info["equilibrium_volume"] == pytest.approx(volume, rel=1e-3)
    assert info["bulk_modulus"] == pytest.approx(modulus, rel=0.02)


def test_recovers_the_equation_of_state_that_it_fits():
    start = bulk("Cu", a=3.9)
    done = eos(start, Springs())
    assert done.info["equilibrium_volume"] == pytest.approx(Springs.volume, rel=1e-7)
    assert done.info["equilibrium_energy"] == pytest.approx(Springs.energy, abs=1e-7)
    assert done.info["bulk_modulus"] == pytest.approx(Springs.modulus / units.GPa, rel=1e-5)
    assert done.info["bulk_modulus_derivative"] == pytest.approx(Springs.derivative, rel=1e-3)
    assert done.info["fit_rms"] < 1e-8
    assert done.get_volume() == pytest.approx(Springs.volume, rel=1e-7)


@pytest.mark.parametrize("lattice", [3.0, 3.3, 4.1, 5.0])
def test_the_start_need_not_be_close(lattice):
    info = eos(bulk("Cu", a=lattice), EMT()).info
    assert (4 * info["equilibrium_volume"]) ** (1 / 3) == pytest.approx(3.590, abs=2e-3)


def test_keeps_the_points_and_the_results(cu):
    done = eos(cu, EMT(), points=9)
    assert len(done.info["eos_volumes"]) == len(done.info["eos_energies"]) == 9
    assert done.info["eos_volumes"] == sorted(done.info["eos_volumes"])
    assert {"energy", "forces", "stress"} <= set(done.calc.results)
    assert not done.calc.check_state(done)


def test_a_molecule_has_no_equation_of_state():
    with pytest.raises(ValueError, match=r"periodic in three directions.*give a crystal"):
        eos(molecule("H2O"), EMT())


@pytest.mark.parametrize("options", [{"points": 4}, {"strain": 0.0}, {"strain": 0.7}])
def test_senseless_ranges_are_refused(cu, options):
    with pytest.raises(ValueError, match="at least 5 points"):
        eos(cu, EMT(), **options)


def test_what_is_not_bound_is_an_error(cu):
    with pytest.raises(RuntimeError, match="the energy still falls"):
        eos(cu, Flat())
