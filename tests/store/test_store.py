from __future__ import annotations

import json

import pytest

from mlipcluster.errors import InputError
from mlipcluster.store.layout import make_root
from mlipcluster.store.parts import RETIRED_FILE
from mlipcluster.store.store import BUILD_FILE, Build, Store, measured_as_built

HOSTILE = 'it\'s "the"\nroot'
EMT = "def setup(model, device='cpu'):\n    pass\n"


@pytest.fixture
def empty(tmp_path):
    return Store(make_root(tmp_path / HOSTILE)[0].root)


def test_a_source_is_registered_once_and_replaced(empty, write_source):
    path = write_source("mace_env", "ase")
    source, what = empty.register(path)
    assert what == "new"
    assert empty.sources() == {"mace_env": source}
    assert empty.source("mace_env").digest == source.digest
    assert empty.register(path)[1] == "same"
    assert empty.register(write_source("mace_env", "ase", "tiny"))[1] == "replaced"
    assert empty.source("mace_env").dependencies == ("ase", "tiny")


def test_a_file_that_cannot_be_used_leaves_what_is_registered(empty, write_source):
    good = empty.register(write_source("mace_env", "ase"))[0]
    with pytest.raises(InputError, match="no function 'setup'"):
        empty.register(write_source("mace_env", "ase", body="x = 1\n"))
    assert empty.source("mace_env") == good


def test_manifests_take_the_place_of_one_another(empty, tmp_path):
    (tmp_path / "a_env.py").write_text(EMT)
    for name, text, kind in (
        ("pixi.toml", "[workspace]\n", "pixi"),
        ("environment.yml", "dependencies:\n  - ase\n", "conda"),
    ):
        (tmp_path / name).write_text(text)
        empty.register(tmp_path / name, "a_env")
        found = empty.source("a_env")
        assert (found.kind, found.text, found.script) == (kind, text, EMT)
    (tmp_path / "a_env.py").write_text("# /// script\n# dependencies = []\n# ///\n" + EMT)
    empty.register(tmp_path / "a_env.py")
    assert empty.source("a_env").kind == "python"
    assert [path.name for path in empty.layout.sources.iterdir()] == ["a_env.py"]


def test_a_registered_file_that_was_damaged_does_not_hide_the_others(empty, write_source):
    for name in ("good_env", "bad_env"):
        empty.register(write_source(name, "ase"))
    (empty.layout.sources / "bad_env.py").write_text("def (\n")
    assert list(empty.sources()) == ["good_env"]
    assert list(empty.broken()) == ["bad_env"]
    assert empty.names() == {"good_env", "bad_env"}
    with pytest.raises(InputError, match="line 1"):
        empty.source("bad_env")
    assert empty.register(write_source("bad_env", "ase"))[1] == "replaced"


def test_what_is_not_there_is_told_with_what_is(make_root):
    store = make_root(HOSTILE, built_env=EMT, other_env=EMT)
    store.layout.current_file("other_env").unlink()
    with pytest.raises(
        InputError, match=r"no environment 'x' is registered .*\(registered: built_env, other_env\); run"
    ):
        store.source("x")
    with pytest.raises(
        InputError, match=r"'other_env' is not built .*\(built: built_env\); run `mlipcluster env build"
    ):
        store.built("other_env")
    assert store.built("built_env").name == "built_env"


@pytest.mark.parametrize("damage", ["current", "build", "interpreter", "link", "schema"])
def test_a_build_that_is_damaged_is_none(make_root, damage):
    store = make_root(a_env=EMT)
    build = store.current("a_env")
    if damage == "current":
        store.layout.current_file("a_env").write_text('{"digest": "../../etc"}')
    elif damage == "build":
        (build.folder / BUILD_FILE).write_text("{")
    elif damage == "interpreter":
        build.python.unlink()
    elif damage == "schema":
        facts = json.loads((build.folder / BUILD_FILE).read_text())
        (build.folder / BUILD_FILE).write_text(json.dumps({**facts, "schema": 2}))
    else:
        store.layout.link(build.digest).unlink()
    assert store.current("a_env") is None


def test_switching_leaves_what_was_there_before(make_root, build_by_hand, write_source):
    store = make_root(a_env=EMT)
    before = store.current("a_env")
    store.register(write_source("a_env", "ase", "tiny"))
    after = build_by_hand(store, "a_env", "b")
    assert store.current("a_env").folder == after.folder != before.folder
    assert (before.folder / RETIRED_FILE).is_file()
    assert not (after.folder / RETIRED_FILE).exists()
    assert {build.digest for build in store.builds()} == {before.digest, after.digest}
    store.switch(before)
    assert store.current("a_env") == before
    assert not (before.folder / RETIRED_FILE).exists()


@pytest.mark.parametrize("builds", [False, True])
def test_remove(make_root, builds):
    store = make_root(HOSTILE, a_env=EMT, b_env=EMT)
    build = store.current("a_env")
    store.weights_file("a_env").write_text("{}")
    assert store.remove("a_env", builds=builds) == ([build] if builds else [])
    assert store.names() == {"b_env"}
    assert store.current("a_env") is None
    assert not store.weights_file("a_env").exists()
    assert build.folder.exists() is not builds
    assert store.layout.link(build.digest).is_symlink() is not builds
    assert store.current("b_env") is not None


@pytest.mark.parametrize("name", ["none_env", "../sources/a_env", ""])
def test_what_cannot_be_removed(make_root, name):
    store = make_root(a_env=EMT)
    with pytest.raises(InputError, match=r"no environment 'none_env' is registered|cannot be the name"):
        store.remove(name)
    assert store.current("a_env") is not None


def test_what_was_changed_since_it_was_built(make_root):
    store = make_root(a_env=EMT)
    build = store.current("a_env")
    assert measured_as_built(build)  # nothing was measured when it was made by hand
    assert Build.read(build.folder.parent / "none", "0") is None
