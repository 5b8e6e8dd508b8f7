from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ase.calculators import emt

from mlipcluster.calculators.smoke import (
    CELLS,
    TOLERANCE,
    Answer,
    Smoke,
    _keep,
    ask,
    compare,
    known_answers,
    reference_cell,
    smoke,
)
from mlipcluster.calculators.socket_calculator import SocketCalculator
from mlipcluster.calculators.stored import model_of
from mlipcluster.errors import InputError, RecordError, RemoteCalculatorError

METAL = """
import os


def setup(model, device="cuda"):
    from ase.calculators.emt import EMT

    class Scaled(EMT):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            with open("SHIFT") as file:
                shift = float(file.read())
            self.results["forces"] = self.results["forces"] + shift

    return Scaled()
"""


@pytest.fixture
def shift(tmp_path):
    """A file whose number is added to all forces: what another version of a library might do."""
    path = tmp_path / "shift.txt"
    path.write_text("0")
    return path


@pytest.fixture
def store(make_root, shift):
    return make_root(metal_env=METAL.replace("SHIFT", str(shift)))


def test_the_first_answer_is_kept_and_the_next_held_against_it(store, shift, build_by_hand):
    one = model_of(store, "metal_env", "medium")
    first = smoke(store, one)
    atoms = reference_cell("Cu")
    atoms.calc = emt.EMT()
    assert (first.verdict, first.passed) == ("first", True)
    assert first.answer.energy == atoms.get_potential_energy()
    np.testing.assert_array_equal(first.answer.forces, atoms.get_forces())
    assert abs(atoms.get_forces()).max() > 0.1  # a cell whose forces vanish would test nothing

    again = smoke(store, one)
    assert (again.verdict, again.energy, again.forces) == ("identical", 0.0, 0.0)
    shift.write_text("5e-4")
    close = smoke(store, one)
    assert (close.verdict, close.passed) == ("within tolerance", True)
    assert close.forces == pytest.approx(5e-4)
    shift.write_text("1e-2")
    off = smoke(store, one)
    assert (off.verdict, off.passed) == ("different", False)

    kept = known_answers(store.smoke_file("metal_env"))[one.build.digest]["metal-medium"]
    assert kept["energy"] == first.answer.energy
    assert kept["last"]["verdict"] == "different"
    build_by_hand(store, "metal_env", "b")
    assert smoke(store, model_of(store, "metal_env", "large")).verdict == "first"


@pytest.mark.parametrize("name", CELLS)
def test_reference_cells_are_off_their_minima(name):
    atoms = reference_cell(name)
    assert atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)].min() > 0.8
    assert abs(atoms.positions - CELLS[name]().positions).max() == pytest.approx(0.03, rel=0.1)


def test_a_cell_that_the_model_knows_is_found(make_root):
    with SocketCalculator("ase.calculators.emt:EMT") as calculator:
        assert ask(calculator, ["NaCl", "Si", "H2O"]).cell == "H2O"
        with pytest.raises(RemoteCalculatorError, match="Na"):
            ask(calculator, ["NaCl", "Si"])


def test_not_a_number_is_another_answer():
    known = {"cell": "Cu", "energy": 1.0, "forces": [[0.0, 0.0, 0.0]]}
    answer = Answer("Cu", 1.0, ((0.0, 0.0, 0.0),))
    assert compare(answer, known) == (0.0, 0.0, "identical")
    nan = float("nan")
    assert compare(Answer("Cu", nan, answer.forces), known)[2] == "different"
    assert compare(Answer("Cu", 1.0, ((nan, 0.0, 0.0),)), known)[2] == "different"
    assert compare(Answer("Cu", nan, answer.forces), None)[2] == "different"
    just = TOLERANCE["energy"] * 0.99
    assert compare(Answer("Cu", 1.0 + just, answer.forces), known)[2] == "within tolerance"


_DAMAGED = [
    ("{", "cannot be read"),
    ("[]", "no schema"),
    ('{"schema": 2}', "newer"),
    ('{"schema": 1, "answers": []}', "no table"),
    ('{"schema": 1, "answers": {"a": 1}}', "answers that are none"),
    ('{"schema": 1, "answers": {"a": {"m": {"cell": "Fe", "energy": 1.0, "forces": []}}}}', "answers that are none"),
    ('{"schema": 1, "answers": {"a": {"m": {"cell": "Cu", "energy": 1.0, "forces": [1]}}}}', "answers that are none"),
]


@pytest.mark.parametrize(("text", "told"), _DAMAGED)
def test_a_damaged_file_is_named_with_the_remedy(store, text, told):
    store.smoke_file("metal_env").write_text(text)
    with pytest.raises(RecordError, match=told):
        smoke(store, model_of(store, "metal_env", ""))


def test_the_file_says_its_schema_and_is_as_readable_as_the_root(store):
    store.root.chmod(0o2775)
    smoke(store, model_of(store, "metal_env", ""))
    path = store.smoke_file("metal_env")
    assert json.loads(path.read_text())["schema"] == 1
    assert path.stat().st_mode & 0o777 == 0o664


def test_in_a_root_that_cannot_be_written_answers_are_compared_alone(store, monkeypatch):
    metal = model_of(store, "metal_env", "")
    monkeypatch.setattr("mlipcluster.calculators.smoke.os.access", lambda *_: False)
    with pytest.raises(InputError, match=r"no known answer of 'metal' in this build yet.*ask its owner"):
        smoke(store, metal)
    monkeypatch.undo()
    smoke(store, metal)
    before = store.smoke_file("metal_env").read_text()
    monkeypatch.setattr("mlipcluster.calculators.smoke.os.access", lambda *_: False)
    assert smoke(store, metal).verdict == "identical"
    assert store.smoke_file("metal_env").read_text() == before


def test_answers_of_tests_at_once_are_all_kept(store):
    digest, answer = store.current("metal_env").digest, Answer("Si", 1.0, tuple([(0.0, 0.0, 0.0)] * 8))
    found = [Smoke(f"m{i}", "metal_env", digest, "first", answer, 0.0, 0.0, 1.0, ("cpu",)) for i in range(32)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: _keep(store, one), found))
    assert known_answers(store.smoke_file("metal_env"))[digest].keys() == {one.model for one in found}
