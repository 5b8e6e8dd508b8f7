"""A served calculator in the hands of ASE's users: what it remembers, and what it does with many structures."""

from __future__ import annotations

import copy
import pickle

import pytest


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda calculator: pickle.loads(pickle.dumps(calculator))])
def test_a_copy_knows_which_entries_of_info_count(serve, trial, cu, copied):
    here = serve(tells=trial("Tells", info_keys=("field",)))
    atoms = cu()
    atoms.info["field"] = 1.0
    with here.calculator("tells") as calculator:
        assert calculator.get_property("told", atoms)["info"] == {"field": 1.0}
        other = copied(calculator)
    assert not other.check_state(atoms)
    atoms.info["field"] = 5.0
    with other:
        assert other.get_property("told", atoms)["info"] == {"field": 5.0}
