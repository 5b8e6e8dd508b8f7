"""What decides a calculator's answers beside its arguments: files opened at once or late, code, environments."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from mlipcluster import CalculatorSpec

CODE = '''
import numpy as np
from ase.calculators.calculator import Calculator, all_changes


class Late(Calculator):
    """Reads its weights only when it is asked for something."""

    implemented_properties = ["energy"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] = float(np.load(WEIGHTS))
'''


@pytest.fixture
def late(tmp_path):
    """A calculator whose weights are opened by its first calculation."""
    weights = tmp_path / "weights.npy"
    np.save(weights, np.array(3.0))
    (tmp_path / "lateweights.py").write_text(f"WEIGHTS = {str(weights)!r}\n{CODE}")
    return CalculatorSpec("lateweights:Late", paths=(str(tmp_path),)), weights


def energy(atoms, calc):
    """The calculator's energy."""
    atoms.calc = calc
    atoms.get_potential_energy()
    return atoms


def energies(results):
    return [output.scores["energy"] for output in results]


def test_weights_opened_late_are_recorded(run, late):
    spec, weights = late
    (output,) = run(bulk("Cu"), energy, calculator=spec)
    (recorded,) = output.record["metadata"]["calculators"][""]["provenance"]["weights"]
    assert recorded["path"] == str(weights)


def test_weights_opened_late_and_changed_make_finished_work_be_done_again_once(run, late):
    spec, weights = late
    assert energies(run(bulk("Cu"), energy, calculator=spec)) == [3.0]
    np.save(weights, np.array(4.0))
    changed = run(bulk("Cu"), energy, calculator=spec)
    assert energies(changed) == [4.0]
    again = run(bulk("Cu"), energy, calculator=spec)
    assert [o.name for o in again] == [o.name for o in changed]


def test_code_of_a_calculator_outside_environments_is_part_of_it(run, late, tmp_path):
    spec, _ = late
    assert energies(run(bulk("Cu"), energy, calculator=spec)) == [3.0]
    module = tmp_path / "lateweights.py"
    module.write_text(module.read_text().replace("float(np", "-float(np"))
    assert energies(run(bulk("Cu"), energy, calculator=spec)) == [-3.0]


def test_calculators_that_give_the_same_child_keep_their_own_outputs(run):
    def copy(atoms):
        return [atoms]

    def measure(atoms, calc, **kwargs):
        return energy(atoms, calc)

    results = run(bulk("Cu", cubic=True), copy, measure, calculators={"emt": "emt", "lj": "lj"})
    alone = {name: energies(run(bulk("Cu", cubic=True), copy, measure, calculator=name, output_path=results.root / name))
             for name in ("emt", "lj")}  # fmt: skip
    assert len({output.path for output in results}) == 2
    assert {o.record["instance"]["calculator"]: [o.atoms.get_potential_energy()] for o in results} == alone


def test_only_the_protocol_counts_for_its_timeout(run, tmp_path):
    run(bulk("Cu"), energy, calculator="emt")
    # The processes that run protocols are cold again: starting them and measuring environments takes longer than this.
    results = run([bulk("Cu"), bulk("Ag")], energy, calculator="emt", timeout=0.4, client=None, max_workers=1)
    assert not results.failures


def test_a_failure_that_is_known_is_raised_again_when_errors_are_not_ignored(run):
    def fails(atoms):
        raise KeyError("always")

    for _ in range(2):
        with pytest.raises(KeyError, match="always"):
            run(bulk("Cu"), fails, ignore_errors=False)
