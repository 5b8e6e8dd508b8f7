from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule
from hypothesis import given
from hypothesis import strategies as st

from mlipcluster.calculators.snapshot import Snapshot
from mlipcluster.socket_worker.structure import Structure

STEPS = st.lists(
    st.sampled_from(
        [
            "positions",
            "numbers",
            "cell",
            "pbc",
            "magmoms",
            "no magmoms",
            "charges",
            "tags",
            "info",
            "no info",
            "nothing",
        ]
    ),
    max_size=12,
)


def step(atoms, what, rng):
    count = len(atoms)
    {
        "positions": lambda: atoms.translate(rng.normal(size=(count, 3))),
        "numbers": lambda: atoms.set_atomic_numbers(rng.integers(1, 90, count)),
        "cell": lambda: atoms.set_cell(rng.normal(size=(3, 3)) + 9 * np.eye(3)),
        "pbc": lambda: atoms.set_pbc(rng.random(3) < 0.5 if atoms.cell.rank == 3 else False),
        "magmoms": lambda: atoms.set_initial_magnetic_moments(rng.normal(size=count)),
        "no magmoms": lambda: atoms.set_initial_magnetic_moments(None),
        "charges": lambda: atoms.set_initial_charges(rng.normal(size=count)),
        "tags": lambda: atoms.set_tags(rng.integers(0, 9, count)),
        "info": lambda: atoms.info.update(charge=int(rng.integers(-3, 3))),
        "no info": lambda: atoms.info.pop("charge", None),
        "nothing": lambda: None,
    }[what]()


@given(STEPS, st.integers(0, 2**32))
def test_what_is_sent_when_it_changes_adds_up_to_the_structure(steps, seed):
    rng = np.random.default_rng(seed)
    atoms, snapshot, structure = molecule("CH3CHO"), Snapshot(("charge", "spin")), Structure()
    for number, what in enumerate(["nothing", *steps]):
        step(atoms, what, rng)
        changed = snapshot.changes(atoms)
        snapshot.take(atoms, changed)
        assert snapshot.changes(atoms) == []
        header = {"whole": True, "info": snapshot.info} if number == 0 else {}
        sent = snapshot.arrays if number == 0 else {n: snapshot.arrays[n] for n in changed if n in snapshot.arrays}
        header["removed"] = [name for name in changed if name not in ("info", *snapshot.arrays)]
        if "info" in changed:
            header["info"] = snapshot.info
        there, changes = structure.update(header, sent)
        assert there.info == {key: value for key, value in atoms.info.items() if key in ("charge", "spin")}
        assert there.arrays.keys() == atoms.arrays.keys()
        assert all((there.arrays[name] == atoms.arrays[name]).all() for name in atoms.arrays)
        assert (there.cell.array == atoms.cell.array).all()
        assert (there.pbc == atoms.pbc).all()
        if number and not {"info", "tags"} & set(changed):
            assert sorted(changes) == sorted(changed)


@pytest.fixture
def whole():
    """Arrays of water, and the header that brings them."""
    snapshot = Snapshot(())
    atoms = molecule("H2O")
    snapshot.take(atoms, snapshot.changes(atoms))
    return {"whole": True}, snapshot.arrays


@pytest.mark.parametrize("removed", [["positions"], ["tags", "numbers"], ["cell"], [5], [["tags"]], "tags"])
def test_what_a_structure_cannot_be_without_stays(whole, removed):
    structure = Structure()
    structure.update(*whole)
    moved = {"positions": whole[1]["positions"] + 1}
    with pytest.raises(ValueError, match="'removed' is"):
        structure.update({"removed": removed}, moved)
    there, _ = structure.update({}, {})
    assert (there.positions == whole[1]["positions"]).all()
    there, _ = structure.update(*whole)
    assert len(there) == 3


@pytest.mark.parametrize(
    "wrong", [{"tags": np.zeros(7)}, {"momenta": np.zeros((3, 3))}, {"numbers": np.zeros(5, int)}, {"pbc": np.ones(2)}]
)
def test_what_was_taken_over_by_half_is_forgotten(whole, wrong):
    header, arrays = whole
    structure = Structure()
    structure.update(header, arrays)
    with pytest.raises(ValueError, match=r"can take|broadcast"):
        structure.update(header, {**arrays, "positions": arrays["positions"] + 1, **wrong})
    with pytest.raises(ValueError, match="must bring the whole structure"):
        structure.update({}, {})
    there, _ = structure.update(header, arrays)
    assert (there.positions == arrays["positions"]).all()
