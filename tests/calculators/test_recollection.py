from __future__ import annotations

import pytest

from mlipcluster.calculators.recollection import Recollection
from mlipcluster.calculators.snapshot import Snapshot


@pytest.fixture
def kept():
    """Keep results of a structure, as it is."""
    recollection = Recollection()

    def keep(atoms, energy):
        snapshot = Snapshot(("charge",))
        snapshot.take(atoms, snapshot.changes(atoms))
        recollection.keep(atoms, snapshot, {"energy": energy})
        snapshot.arrays["positions"][:] = 7.0  # it goes on to the next structure
        return recollection

    return keep


def test_each_object_has_its_own_results(cu, kept):
    other = cu.copy()
    kept(cu, 1.0)
    assert kept(other, 2.0).recall(cu) == {"energy": 1.0}
    assert kept(other, 3.0).recall(other) == {"energy": 3.0}
    assert kept(other, 3.0).recall(cu.copy()) is None


@pytest.mark.parametrize(
    "change",
    [lambda atoms: atoms.rattle(0.1), lambda atoms: atoms.info.update(charge=1), lambda atoms: atoms.pop()],
)
def test_a_structure_that_has_changed_has_none(cu, kept, change):
    recollection = kept(cu, 1.0)
    cu.set_tags(3)  # these are no change
    assert recollection.recall(cu) == {"energy": 1.0}
    change(cu)
    assert recollection.recall(cu) is None


def test_what_nobody_has_any_more_is_forgotten(cu, kept):
    other = cu.copy()
    kept(cu, 1.0)
    recollection = kept(other, 2.0)
    del other
    assert len(recollection._kept) == 1
    recollection.clear()
    assert recollection.recall(cu) is None
