from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from mlipcluster.protocols import single_point


class NoStress(Calculator):
    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": -1.0, "forces": np.zeros((len(self.atoms), 3))}


def test_gives_energy_forces_and_stress_of_the_structure_as_it_is(cu):
    before = cu.copy()
    done = single_point(cu, EMT())
    assert done == before
    reference = before.copy()
    reference.calc = EMT()
    assert done.calc.results["energy"] == reference.get_potential_energy()
    assert np.array_equal(done.calc.results["forces"], reference.get_forces())
    assert np.array_equal(done.calc.results["stress"], reference.get_stress())


def test_leaves_out_the_stress_that_a_calculator_lacks(cu):
    done = single_point(cu, NoStress())
    assert set(done.calc.results) == {"energy", "forces"}


def test_takes_a_molecule_without_a_cell():
    done = single_point(molecule("CO"), EMT())
    assert "stress" not in done.calc.results
    assert np.linalg.norm(done.get_forces()) > 0


def test_an_element_the_calculator_does_not_know_is_an_error(cu):
    cu.symbols[0] = "Fe"
    with pytest.raises(NotImplementedError, match="Fe"):
        single_point(cu, EMT())
