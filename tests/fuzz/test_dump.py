"""Fuzzed records and files through ``dump_env_file.py``: never a path outside the folder, never a traceback."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import json
import lzma
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

TARGET = Path(__file__).with_name("dump_target.py")


def _load():
    spec = importlib.util.spec_from_file_location("dump_target", TARGET)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


target = _load()
TEXT = st.text(st.characters(), max_size=20)
VALUES = st.one_of(
    st.sampled_from(target.HOSTILE),
    TEXT,
    st.recursive(
        st.none() | st.booleans() | st.floats() | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)
    ),
)
WAYS = st.sampled_from(target.places(target.whole()))


@pytest.fixture(autouse=True)
def _unflushed(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def test_the_whole_record_is_dumped():
    """Otherwise nothing here would try anything."""
    assert target.trial(target.as_json(target.whole())) == 0
    assert target.trial(target.as_extxyz(target.whole())) == 0


def test_the_watch_sees_what_is_written_outside(tmp_path, monkeypatch):
    from mlipcluster.recreation import command_line

    monkeypatch.setattr(command_line, "dump_main", lambda arguments: (tmp_path / "x").write_text("") or 0)
    with pytest.raises(AssertionError, match="open"):
        target.trial(b"")
    target._watched.clear()


@settings(max_examples=400)
@given(st.lists(st.tuples(WAYS, VALUES, st.booleans()), min_size=1, max_size=3), st.booleans())
def test_records_with_hostile_values(changes, in_json):
    record = target.whole()
    for way, value, key in changes:
        if way in target.places(record):
            record = target.changed(record, way, value, key=key)
    target.trial(target.as_json(record) if in_json else target.as_extxyz(record))


@settings(max_examples=100)
@given(
    st.lists(st.dictionaries(st.sampled_from(["name", "status", "file", "error", "more_files", "record"]), VALUES)),
    TEXT,
)
def test_ledgers_with_hostile_lines(lines, name):
    text = "".join(json.dumps({"status": "output", "name": name, **line}) + "\n" for line in lines)
    target.trial(text.encode("ascii"), f"--output_name={name or 'x'}", "--scorefile")


@settings(max_examples=100)
@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\x80\x04", b"{", b'{"mlipcluster":', b'1\n mlipcluster="_JSON '])
)
def test_any_bytes(data, head):
    target.trial(head + data)
    target.trial(head + data, "--output_name=x", "--pandas_secure", "--scorefile")


@settings(max_examples=100)
@given(st.sampled_from([gzip.compress, bz2.compress, lzma.compress]), st.data())
def test_damaged_containers(compress, data):
    raw = bytearray(compress(target.as_json(target.whole())))
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=3)):
        raw[place] = data.draw(st.integers(0, 255))
    target.trial(bytes(raw[: data.draw(st.integers(0, len(raw)))]))


@settings(max_examples=100)
@given(st.sampled_from(["python", "platform", "manager", "lock", "lock_name", "packages", "toml"]), VALUES)
def test_an_environment_alone(key, value):
    measured = {**target.whole()["metadata"]["environment"], "lock": "version = 1\n", key: value}
    target.trial(json.dumps(measured).encode("ascii"))


@pytest.mark.slow
def test_atheris_finds_nothing(tmp_path):
    pytest.importorskip("atheris")
    done = subprocess.run(
        [sys.executable, TARGET, "-runs=20000", "-max_total_time=20", "-seed=1", f"-artifact_prefix={tmp_path}/"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done " in done.stderr
