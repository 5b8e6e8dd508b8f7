from __future__ import annotations

import pytest

from mlipcluster.errors import InputError
from mlipcluster.serving.serve import Asked, offer

EMT = "def setup(model, device='cpu'):\n    from ase.calculators.emt import EMT\n\n    return EMT()\n"


@pytest.fixture
def clusters(tmp_path, monkeypatch, make_root):
    """Clusters of the settings: one without a root, one with, and a root beside them."""
    store = make_root("mlips", metal_env=EMT)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("MLIPCLUSTER_ROOT", raising=False)
    file = tmp_path / "config" / "mlipcluster" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text(
        f'[clusters.bare]\ntype = "slurm"\n[clusters.both]\ntype = "slurm"\nroot = "{store.root}"\n', encoding="utf-8"
    )
    return store


def test_a_cluster_needs_no_root(clusters):
    assert "emt" in offer(Asked(), "bare").names()
    assert "metal" not in offer(Asked(), "bare").names()


def test_the_root_of_a_cluster_counts_and_so_does_one_that_is_given(clusters):
    assert "metal" in offer(Asked(), "both").names()
    assert "metal" in offer(Asked(root=str(clusters.root)), "bare").names()
    assert offer(Asked(names=("metal-medium",)), "both").names() == ["metal-medium"]


def test_a_name_that_means_nothing_lists_what_is_known(clusters):
    with pytest.raises(InputError, match=r"no calculator is called 'mettal'.*emt"):
        offer(Asked(names=("mettal",)), None)
