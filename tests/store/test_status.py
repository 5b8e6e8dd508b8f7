from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from mlipcluster.errors import InputError
from mlipcluster.store.layout import read_json
from mlipcluster.store.parts import RETIRED_FILE, new_part
from mlipcluster.store.prune import prune
from mlipcluster.store.status import status
from mlipcluster.store.store import ENVIRONMENT_FILE
from mlipcluster.store.turn import turn

EMT = "def setup(model, device='cpu'):\n    pass\n"
DAY = 86400


@pytest.fixture
def store(make_root):
    return make_root('it\'s "the"\nroot', a_env=EMT)


def one(store, **options):
    (found,) = status(store, **options).environments
    return found


def age(folder, days):
    path = folder / RETIRED_FILE
    path.write_text(json.dumps({"since": time.time() - days * DAY}))


def test_what_is_built(store):
    build, found = store.current("a_env"), one(store)
    assert (found.name, found.kind, found.state, found.drift) == ("a_env", "python", "built", ())
    assert (found.digest, found.source_digest, found.folder) == (build.digest, build.source.digest, str(build.folder))
    assert json.loads(json.dumps(status(store).to_json()))["environments"][0]["digest"] == build.digest


def test_models_and_smoke_tests(store):
    digest = store.current("a_env").digest
    store.weights_file("a_env").write_text(json.dumps({"schema": 1, "models": {"a-b": {}, "a-a": {}}}))
    last = {"verdict": "identical", "when": "2026-11-28T09:00:00+00:00", "energy": 0.0}
    answers = {digest: {"a-a": {"last": last}, "a-b": {}}, "0" * 64: {"a-c": {"last": last}}}
    store.smoke_file("a_env").write_text(json.dumps({"schema": 1, "answers": answers}))
    found = one(store)
    assert found.models == ("a-a", "a-b")
    assert found.smoke == {"a-a": {"verdict": "identical", "when": "2026-11-28T09:00:00+00:00"}}


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"models": 3, "answers": [1]}', '{"answers": {"D": {"m": 3, "n": {"last": 1}}}}']
)
def test_files_that_are_damaged_are_taken_for_none(store, text):
    for path in (store.weights_file("a_env"), store.smoke_file("a_env")):
        path.write_text(text.replace("D", store.current("a_env").digest))
    assert (one(store).models, one(store).smoke) == ((), {})


def test_a_source_that_has_changed(store, write_source):
    store.register(write_source("a_env", "ase", "tiny"))
    (line,) = one(store).drift
    assert "its source has changed since it was built; run `mlipcluster env build a_env --root" in line


def test_a_build_that_is_gone(store):
    shutil.rmtree(store.current("a_env").folder)
    found = one(store)
    assert found.state == "not built"
    assert "that build is gone; run `mlipcluster env build a_env" in found.drift[0]


def test_a_source_that_cannot_be_read(store):
    (store.layout.sources / "a_env.py").write_text("def (\n")
    found = one(store)
    assert found.state == "cannot be read"
    assert "line 1" in found.drift[0]


def test_an_environment_that_is_not_as_it_was_built(store):
    from mlipcluster.environments.measure import measure

    build = store.current("a_env")
    packed = measure(build.python).to_json()
    (build.folder / ENVIRONMENT_FILE).write_text(json.dumps(packed))
    assert one(store, check=True).drift == ()
    packed["packages"].append({"name": "gone", "version": "1", "source": "index"})
    (build.folder / ENVIRONMENT_FILE).write_text(json.dumps(packed))
    (line,) = one(store, check=True).drift
    assert "it is not as it was built (only recorded: gone 1); run `mlipcluster env build a_env --force" in line
    assert one(store).drift == ()  # looking costs


def test_a_python_that_others_may_not_run(store, monkeypatch):
    python, real = store.current("a_env").python, os.stat

    def refuse(path, *more, **options):
        if path == python:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *more, **options)

    monkeypatch.setattr(os, "stat", refuse)
    monkeypatch.setattr(os, "access", lambda path, mode: path != python)
    (line,) = one(store, check=True).drift
    assert "cannot be run by you; whoever keeps this root has to build it with a --python that all can reach" in line


def test_what_nobody_needs_is_counted_and_cleared(store, build_by_hand, write_source):
    first = store.current("a_env")
    store.register(write_source("a_env", "ase", "tiny"))
    second = build_by_hand(store, "a_env", "b")
    half = store.layout.parts / "a_env-half"
    half.mkdir()
    (half / "x").write_text("x")
    found = status(store)
    assert [old.folder for old in found.old] == [first.folder]
    assert found.abandoned == (half,)
    assert [waste.path for waste in prune(store, dry_run=True)] == [half]
    assert half.exists()
    assert [(waste.path, waste.gone) for waste in prune(store)] == [(half, True)]
    age(first.folder, 29)
    assert prune(store) == []
    age(first.folder, 31)
    assert [waste.path for waste in prune(store, dry_run=True)] == [first.folder]
    assert [(waste.path, waste.gone) for waste in prune(store)] == [(first.folder, True)]
    assert not store.layout.link(first.digest).is_symlink()
    assert store.current("a_env") == second
    assert prune(store) == []


def test_a_build_that_was_made_again_goes_and_the_new_one_stays(store, build_by_hand):
    first = store.current("a_env")
    store.retire(first.folder)
    second = build_by_hand(store, "a_env", "b")
    assert second.digest == first.digest
    assert [old.folder for old in status(store).old] == [first.folder]
    assert [waste.path for waste in prune(store, keep_days=0)] == [first.folder]
    assert store.current("a_env") == second
    assert second.folder.is_dir()


def test_a_link_that_was_not_switched_in_goes_when_its_builder_has_ended(store):
    with new_part(store.layout, "emt_env", 60.0) as (folder, _):
        link = folder.with_name(f"{folder.name}.link")
        link.symlink_to(os.path.join(".parts", folder.name))
        assert prune(store, keep_days=0) == []
        assert link.is_symlink()
    assert [(one.path, one.gone) for one in prune(store, keep_days=0)] == [(link, True)]
    assert not link.is_symlink()


def test_days_count_from_when_it_is_noticed(store):
    build = store.current("a_env")
    store.layout.current_file("a_env").unlink()
    assert prune(store) == []
    assert read_json(build.folder / RETIRED_FILE)["since"] > time.time() - DAY
    assert build.folder.exists()


def test_all_who_may_read_the_root_can_read_since_when_a_build_is_old(store):
    folder, before = store.current("a_env").folder, os.umask(0o077)
    try:
        store.retire(folder)
    finally:
        os.umask(before)
    assert (folder / RETIRED_FILE).stat().st_mode & 0o044 == store.layout.mode & 0o044


def test_builds_of_a_removed_name_go_with_their_days(store):
    build = store.current("a_env")
    store.remove("a_env")
    assert prune(store) == []
    assert [waste.path for waste in prune(store, keep_days=0)] == [build.folder]
    assert [path.name for path in store.layout.builds.iterdir()] == [".parts"]


def test_a_name_that_was_removed_while_it_was_built_keeps_nothing(store):
    build = store.current("a_env")
    store.remove("a_env")
    store.switch(build)  # as a builder does that had begun before
    assert [old.folder for old in status(store).old] == [build.folder]
    assert [waste.path for waste in prune(store, keep_days=0)] == [build.folder]


def test_what_is_being_built_stays(store):
    build = store.current("a_env")
    store.remove("a_env")
    with turn(store.layout, "a_env", 0, print), new_part(store.layout, "a_env", 60) as (folder, _):
        (waste,) = prune(store, keep_days=0)
        assert (waste.path, waste.gone) == (build.folder, False)
        assert folder.is_dir()
        assert [owner.pid for owner in status(store).building] == [os.getpid()]
    assert build.folder.is_dir()


def test_half_written_files_go(store):
    layout = store.layout
    ours = [layout.current / ".a_env.json.01234567.part", layout.builds / ".lock-gone_env"]
    theirs = layout.sources / ".b_env.py.01234567.part"
    for path in (*ours, theirs):
        path.write_text("x")
    assert {waste.path for waste in prune(store) if waste.gone} == set(ours)
    assert theirs.exists()  # somebody may be writing it
    os.utime(theirs, (time.time() - DAY,) * 2)
    assert [waste.path for waste in prune(store)] == [theirs]
    assert not theirs.exists()
    assert prune(store) == []
    assert sorted(path.name for path in layout.builds.iterdir() if path.name.startswith(".lock")) in (
        [],
        [".lock-a_env"],
    )


def test_a_root_that_cannot_be_written_is_not_pruned(store, monkeypatch):
    monkeypatch.setattr("mlipcluster.store.layout.os.access", lambda path, mode: False)
    with pytest.raises(InputError, match="cannot be written by you"):
        prune(store)
    assert prune(store, dry_run=True) == []
    assert Path(store.root).is_dir()
