from __future__ import annotations

import json
import os
import stat

import pytest

from mlipcluster.errors import InputError
from mlipcluster.store import layout as layout_module
from mlipcluster.store.layout import FOLDERS, MARKER, make_root, open_root, read_json

HOSTILE = 'it\'s "the"\nroot'


def test_a_root_is_made_once(tmp_path):
    layout, new = make_root(tmp_path / "deep" / HOSTILE)
    assert new
    assert all((layout.root / name).is_dir() for name in FOLDERS)
    assert read_json(layout.marker)["schema"] == layout_module.SCHEMA
    (layout.sources / "a_env.py").write_text("kept")
    assert make_root(layout.root)[1] is False
    assert (layout.sources / "a_env.py").read_text() == "kept"
    assert open_root(layout.root).root == layout.root


def test_a_root_whose_making_was_ended_half_way_is_made_again(tmp_path):
    (tmp_path / "sources").mkdir()
    (tmp_path / f".{MARKER}.01234567.part").write_text("{")
    assert make_root(tmp_path)[1]


def test_folders_follow_the_permissions_of_the_root(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(0o2775)
    before = os.umask(0o077)
    try:
        layout, _ = make_root(root)
    finally:
        os.umask(before)
    assert {stat.S_IMODE((root / name).stat().st_mode) for name in FOLDERS} == {0o2775}
    assert stat.S_IMODE(layout.marker.stat().st_mode) == 0o664


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["thesis.tex"], r"is not empty \(it holds 'thesis.tex'\) and is no root; choose an empty folder"),
        (["environments/mace_env.py", "envs/mace_env/x"], r"a root of Rootstock.*`mlipcluster env register .*/\*\.py"),
    ],
)
def test_other_folders_stay_as_they_are(tmp_path, names, says):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=says):
        make_root(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"kind": "mlipcluster root of environments", "schema": 99}', "schema 99, made by a newer .* knows 1: update"),
        ("{", "is damaged; write"),
        ('{"schema": 1}', "is damaged; write"),
        ("[]", "is damaged; write"),
    ],
)
def test_markers_that_are_not_read(tmp_path, text, says):
    (tmp_path / MARKER).write_text(text)
    for opened in (open_root, make_root):
        with pytest.raises(InputError, match=says):
            opened(tmp_path)
    assert (tmp_path / MARKER).read_text() == text


def test_what_is_no_root(tmp_path):
    with pytest.raises(InputError, match="does not exist; make one with `mlipcluster env init"):
        open_root(tmp_path / "none")
    with pytest.raises(InputError, match="is no root of environments; make one"):
        open_root(tmp_path)
    (tmp_path / "environments").mkdir()
    (tmp_path / "envs").mkdir()
    with pytest.raises(InputError, match="is a root of Rootstock"):
        open_root(tmp_path)


def test_a_file_cannot_be_made_a_root(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "root"):
        with pytest.raises(InputError, match=r"cannot be made a root.*choose a folder"):
            make_root(path)


def test_a_root_that_cannot_be_written_names_its_owner(tmp_path, monkeypatch):
    layout, _ = make_root(tmp_path / "root")
    layout.check_writable()
    monkeypatch.setattr(layout_module.os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match=r"cannot be written by you; it belongs to '.+' \(group '.+'\): ask them, or"):
        layout.check_writable()


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000])
def test_json_that_is_damaged_is_empty(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    assert read_json(tmp_path / "x.json") == {}
    assert read_json(tmp_path / "none") == {}
    (tmp_path / "x.json").write_text(json.dumps({"a": 1}))
    assert read_json(tmp_path / "x.json") == {"a": 1}


@pytest.mark.parametrize("closed", ["", "sources", "current"])
def test_a_root_that_may_not_be_looked_into_is_not_taken_for_an_empty_one(tmp_path, monkeypatch, closed):
    make_root(tmp_path / "root")
    monkeypatch.setattr("mlipcluster.store.layout.os.access", lambda path, _: path != tmp_path / "root" / closed)
    with pytest.raises(InputError, match=r"cannot be read by you; it belongs to .*ask them"):
        open_root(tmp_path / "root")
