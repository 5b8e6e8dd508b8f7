from __future__ import annotations

import pytest

from mlipcluster.calculators.known import built_in, known
from mlipcluster.calculators.registry import resolve
from mlipcluster.errors import InputError

EMT = "def setup(model, device='cpu'):\n    from ase.calculators.emt import EMT\n\n    return EMT()\n"


@pytest.fixture
def table(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from ase.calculators.lj import LennardJones as L\n\nT = {'emt': L, 'metal': L, 'new': L}\n"
    )
    return f"{tmp_path}/mine.py:T"


@pytest.fixture
def store(make_root):
    return make_root("root", metal_env=EMT, chgnet=EMT)


def test_what_is_built_in_needs_nothing():
    found = known()
    assert {name: one.spec for name, one in found.items() if one.source == "built in"} == built_in()


def test_a_table_comes_first_then_the_root(table, store):
    found = known(root=store.root, tables=[table])
    root = f"root {store.root}"
    assert {name: one.source for name, one in found.items() if not one.source.startswith("entry point")} == {
        "emt": table,
        "metal": table,
        "new": table,
        "chgnet": root,
        "lj": "built in",
    }
    assert found["chgnet"].spec == resolve("chgnet", root=store.root)
    assert resolve("metal", root=store.root, tables=[table]) == found["metal"].spec
    assert resolve({"calculator": "new", "tables": [table]}) == found["new"].spec
    assert found.complaints == []


def test_model_strings_that_nobody_lists_can_be_asked_for(store):
    found = known(root=store.root, names=["metal-medium", "emt", "none"])
    assert found["metal-medium"].spec == resolve("metal-medium", root=store.root)
    assert found["emt"].source == "built in"
    assert "none" not in found


def test_what_the_root_means_but_has_not_built_is_told_and_nothing_else_takes_its_name(store, tmp_path):
    (tmp_path / "lj.py").write_text('# /// script\n# dependencies = ["ase"]\n# ///\n' + EMT)
    store.register(tmp_path / "lj.py")
    (store.layout.sources / "bad.py").write_text("def setup(\n")
    found = known(root=store.root)
    assert "lj" not in found
    assert {"metal", "chgnet", "emt"} <= found.keys()
    told = "\n".join(found.complaints)
    assert "environment 'lj' is not built" in told
    assert "mlipcluster env build lj" in told
    assert "bad" in told
    with pytest.raises(InputError, match="environment 'lj' is not built"):
        known(root=store.root, names=["lj"])


def test_a_root_that_is_not_there_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="does not exist"):
        known(root=tmp_path / "none")
    monkeypatch.setenv("MLIPCLUSTER_ROOT", str(tmp_path / "none"))
    with pytest.raises(InputError, match="MLIPCLUSTER_ROOT names it"):
        known()


def test_a_table_that_is_named_has_to_be_there(tmp_path):
    with pytest.raises(InputError, match="there is no Python file"):
        known(tables=[f"{tmp_path}/none.py:T"])
    with pytest.raises(InputError, match="give a list"):
        resolve("emt", tables="a.py:T")
