from __future__ import annotations

import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.optimize import BFGS

from mlipcluster.protocols import relax
from mlipcluster.protocols.relax import OPTIMIZERS


def largest_force(atoms):
    return np.linalg.norm(atoms.get_forces(), axis=1).max()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_reaches_fmax_and_prints_nothing(optimizer, cu, capsys):
    cell = cu.cell.copy()
    done = relax(cu, EMT(), fmax=0.01, optimizer=optimizer)
    assert done.info["converged"] is True
    assert done.info["steps"] > 0
    assert largest_force(done) <= 0.01
    assert np.array_equal(done.cell, cell)
    assert capsys.readouterr() == ("", "")


def test_results_belong_to_the_final_structure(cu):
    done = relax(cu, EMT())
    assert not done.calc.check_state(done)
    fresh = done.copy()
    fresh.calc = EMT()
    assert done.calc.results["energy"] == pytest.approx(fresh.get_potential_energy(), abs=1e-10)


def test_is_what_bfgs_of_ase_does(cu):
    by_hand = cu.copy()
    by_hand.calc = EMT()
    BFGS(by_hand, logfile=None).run(fmax=0.02)
    assert np.array_equal(relax(cu, EMT()).positions, by_hand.positions)


def test_out_of_steps_is_no_error_but_is_said(cu):
    done = relax(cu, EMT(), fmax=1e-6, steps=2)
    assert done.info["converged"] is False
    assert done.info["steps"] == 2
    assert largest_force(done) > 1e-6


def test_nothing_to_do_takes_no_steps():
    done = relax(bulk("Cu", cubic=True), EMT())
    assert done.info["converged"] is True
    assert done.info["steps"] == 0


def test_cell_relaxes_to_zero_stress(cu):
    cu.set_cell(cu.cell @ np.array([[1.03, 0.02, 0], [0, 0.98, 0], [0, 0, 1.01]]), scale_atoms=True)
    done = relax(cu, EMT(), fmax=1e-4, cell=True)
    assert done.info["converged"] is True
    assert np.abs(done.get_stress()).max() < 1e-4
    # EMT copper: see test_eos.py for where the number comes from.
    assert (done.get_volume() / len(done) * 4) ** (1 / 3) == pytest.approx(3.590, abs=2e-3)


def test_pressure_is_in_gpa_and_positive_compresses(cu):
    done = relax(cu.copy(), EMT(), fmax=1e-4, cell=True, pressure=5)
    assert done.get_stress()[:3] / units.GPa == pytest.approx([-5, -5, -5], abs=0.02)
    assert done.get_volume() < relax(cu, EMT(), fmax=1e-4, cell=True).get_volume()


def test_hydrostatic_keeps_the_shape_of_the_cell(cu):
    cu.set_cell(cu.cell.array * [1.0, 1.0, 1.1], scale_atoms=True)
    before = cu.cell.cellpar()
    after = relax(cu, EMT(), cell=True, hydrostatic=True).cell.cellpar()
    assert after[2] / after[0] == pytest.approx(before[2] / before[0], rel=1e-9)
    assert after[0] != before[0]


def test_constraints_hold(cu):
    cu.set_constraint(FixAtoms([0]))
    fixed = cu.positions[0].copy()
    assert np.array_equal(relax(cu, EMT()).positions[0], fixed)


def test_relaxes_a_molecule():
    co = molecule("CO")
    co.rattle(0.1, seed=2)
    assert relax(co, EMT(), fmax=0.005).info["converged"] is True


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"optimizer": "bfgs"}, "known: BFGS"),
        ({"pressure": 1.0}, "set cell=True"),
        ({"hydrostatic": True}, "set cell=True"),
    ],
)
def test_senseless_options_are_refused(cu, options, said):
    with pytest.raises(ValueError, match=said):
        relax(cu, EMT(), **options)


def test_a_molecule_has_no_cell_to_relax():
    with pytest.raises(ValueError, match=r"periodic in three directions.*set cell=False"):
        relax(molecule("CO"), EMT(), cell=True)
