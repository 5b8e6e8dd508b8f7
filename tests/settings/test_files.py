from __future__ import annotations

import os
import sys

import pytest

from mlipcluster.errors import InputError
from mlipcluster.settings.files import told
from mlipcluster.settings.values import setting, settings


@pytest.mark.parametrize(
    "text",
    [
        "[tool.mlipcluster]\nuse_serve = true",
        "[ tool . mlipcluster ]\nuse_serve = true",
        '["tool"."mlipcluster"]\nuse_serve = true',
        "[tool]\nmlipcluster = {use_serve = true}",
        "tool.mlipcluster.use_serve = true",
        "tool = {mlipcluster = {use_serve = true}}",
    ],
)
def test_a_project_says_it_in_any_of_tomls_ways(write, text):
    path = write("project", text)
    assert setting("use_serve").value is True
    assert setting("use_serve").origin == str(path)


@pytest.mark.parametrize("text", ["", '[project]\nname = "mlipcluster"', "[tool.other]\nx = 1", "[tool.mlipcluster]\n"])
def test_a_project_without_a_word_says_nothing(write, text):
    write("project", text)
    assert list(told()) == []


def test_a_project_that_says_nothing_to_us_may_be_broken_and_needs_no_reader(write, monkeypatch):
    write("project", '[project\ndependencies = ["mlipcluster"]')
    monkeypatch.setitem(sys.modules, "tomllib", None)
    monkeypatch.setitem(sys.modules, "tomli", None)
    assert settings()["use_serve"].value is None


def test_a_broken_one_that_does_is_named(write):
    path = write("project", "[tool.mlipcluster]\nuse_serve = ")
    with pytest.raises(InputError, match="cannot be read") as error:
        settings()
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[tool]\nmlipcluster = 3", "'mlipcluster' is 3"),
        ("tool = 3", "'tool' is 3"),
        ("[[tool.mlipcluster]]\nuse_serve = true", r"'mlipcluster' is \[\{"),
    ],
)
def test_what_is_no_table_is_named(write, text, what):
    write("project", text)
    with pytest.raises(InputError, match=rf"pyproject\.toml: {what}.*make it a table"):
        settings()


def test_the_nearest_project_counts_alone(write):
    outer = write("project", "[tool.mlipcluster]\nuse_serve = true")
    (outer.parent / "deep" / "pyproject.toml").write_text("[project]\nname = 'inner'\n")
    assert setting("use_serve").value is None


def test_another_project_can_be_named(write, monkeypatch, tmp_path):
    write("project", "[tool.mlipcluster]\nuse_serve = true")
    other = tmp_path / "other.toml"
    monkeypatch.setenv("MLIPCLUSTER_PROJECT", str(other))
    with pytest.raises(InputError, match=r"MLIPCLUSTER_PROJECT names .*other\.toml"):
        settings()
    other.write_text("[tool.mlipcluster]\nuse_serve = false")
    assert setting("use_serve").value is False


def test_a_stranger_does_not_say_which_code_runs(write, monkeypatch):
    path = write("project", "[tool.mlipcluster.serve]\ncalculators = ['evil.py:T']")
    me = os.getuid()
    if me == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: me + 1)
    with pytest.raises(InputError, match=r"(?s)belongs to another user.*set MLIPCLUSTER_PROJECT to its path"):
        settings()
    monkeypatch.setenv("MLIPCLUSTER_PROJECT", str(path))
    assert len(setting("serve.calculators").value) == 1


def test_a_strangers_project_without_a_word_is_nothing(write, monkeypatch):
    path = write("project", "[project]\nname = 'x'")
    if os.getuid() == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: -1)
    assert settings()["use_serve"].value is None


def test_without_a_working_folder_there_is_no_project(write, monkeypatch, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert settings()["use_serve"].value is None
    monkeypatch.chdir(tmp_path)
