from __future__ import annotations

import shutil

import pytest

from mlipcluster import reproduce
from mlipcluster.calculators.stored import stored
from mlipcluster.errors import InputError
from mlipcluster.protocols import single_point
from mlipcluster.reproduction.roots import Roots

EMT = """
def setup(model, device="cuda", **kwargs):
    from ase.calculators.emt import EMT

    return EMT(**kwargs)
"""


@pytest.fixture
def store(make_root):
    return make_root(metal_env=EMT)


@pytest.fixture
def output(store, run, run_folder):
    """An output of a run whose calculator is a root's."""
    (output,) = run(single_point, calculator=stored("metal-medium", store.root))
    return output


def test_an_output_of_a_root_is_made_again_without_trust(output, store, client, monkeypatch):
    audit = reproduce(output.path)
    assert (audit.verdict, audit.differences) == ("identical", ())
    assert output.record["instance"]["calculators"][""]["name"] == "metal-medium"


def test_a_root_that_was_moved_is_named(output, store, tmp_path, client):
    moved = tmp_path / "moved"
    store.root.rename(moved)
    with pytest.raises(InputError, match=r"'metal-medium' of the root .* which is not here now.*'root': ….*--root"):
        reproduce(output.path, client=client)
    audit = reproduce(output.path, client=client, instance_kwargs={"root": moved})
    assert (audit.verdict, audit.differences) == ("identical", ())


def test_the_variable_names_a_root_too(output, store, tmp_path, client, monkeypatch):
    store.root.rename(tmp_path / "moved")
    monkeypatch.setenv("MLIPCLUSTER_ROOT", str(tmp_path / "moved"))
    assert reproduce(output.path, client=client).verdict == "identical"


def test_the_recorded_build_is_taken_where_it_is_still_there(store, build_by_hand):
    spec = stored("metal", store.root, None).replace(threads=2, call_timeout=7.0)
    assert spec.build is not None
    (store.layout.sources / "metal_env.py").write_text(store.source("metal_env").text + "STATE = 'reset'\n")
    build_by_hand(store, "metal_env", "b")
    assert stored("metal", store.root).build != spec.build
    assert Roots().located("", spec, trust=False) == spec
    shutil.rmtree(store.build(spec.build[1]).folder)
    now = Roots().located("", spec, trust=False)
    assert now == stored("metal", store.root).replace(threads=2, call_timeout=7.0)


def test_nothing_but_the_name_of_the_model_is_believed(store):
    honest = stored("metal", store.root)
    for change in ({"kwargs": {"x": 1}}, {"args": ["other"]}, {"state": "reset"}, {"environment": {"LD_PRELOAD": "x"}}):
        assert Roots().located("", honest.replace(**change), trust=False) == honest
    assert Roots().located("", honest.replace(kwargs={"x": 1}), trust=True) == honest.replace(kwargs={"x": 1})


def test_weights_that_only_the_record_names_need_trust(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pt").touch()
    (tmp_path / "word").touch()
    for model in (f"metal-{tmp_path}/evil.pt", "metal-https://example.org/evil.pt", "metal-org/model", "metal-word"):
        spec = stored(model, store.root)
        with pytest.raises(InputError, match=r"calculator 'x' of the record reads its weights from .*--trust"):
            Roots().located("x", spec, trust=False)
        assert Roots().located("x", spec, trust=True) == spec
    store.weights_file("metal_env").write_text('{"schema": 1, "models": {"metal-org/model": {}}}')
    assert Roots().located("x", stored("metal-org/model", store.root), trust=False)


def test_a_root_of_somebody_else_counts_only_if_it_is_named_here(store, monkeypatch, tmp_path):
    spec = stored("metal", store.root)
    monkeypatch.setattr("mlipcluster.reproduction.roots._owner", lambda path: 12345)
    with pytest.raises(InputError, match="no root that counts"):
        Roots().located("", spec, trust=False)
    assert Roots(root=store.root).located("", spec, trust=False) == spec
    assert Roots().located("", spec, trust=True) == spec


@pytest.mark.parametrize("before", ["", "/proc/self/cwd/", "//proc/./self/cwd/", "/etc/../proc/self/cwd/"])
def test_a_root_that_came_along_with_the_record_does_not_count(store, monkeypatch, before):
    monkeypatch.chdir(store.root.parent)
    spec = stored("metal", store.root)
    root, there = str(store.root), f"{before}{store.root.name}"
    moved = spec.replace(paths=[spec.paths[0].replace(root, there)], python=spec.python.replace(root, there))
    with pytest.raises(InputError, match="no root that counts"):
        Roots().located("", moved, trust=False)


def test_the_root_that_is_named_must_have_it(store, make_root):
    other = make_root("other", chgnet_env=EMT)
    with pytest.raises(InputError, match=r"nothing in .*other.* serves it"):
        Roots(root=other.root).located("", stored("metal", store.root), trust=False)


def test_calculators_that_are_given_are_looked_up_in_the_named_root(output, store, client):
    again = {"calculator": "metal-medium", "root": store.root}
    assert reproduce(output.path, client=client, instance_kwargs=again).verdict == "identical"
