from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest

from mlipcluster.environments.measure import measure
from mlipcluster.environments.uv_cache import cached_hashes, narrowed

A, B, C = ("sha256:" + letter * 64 for letter in "abc")


@pytest.fixture
def wheels(tmp_path, monkeypatch, make_wheel):
    """A folder with tiny-thing 1.5, the only thing that uv knows of; and the hash of its wheel."""
    folder = tmp_path / "wheel house"
    folder.mkdir()
    wheel = make_wheel(folder, "tiny_thing", "1.5", {"tiny_thing.py": ""})
    monkeypatch.setenv("UV_CACHE_DIR", os.fspath(tmp_path / "cache"))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", os.fspath(folder))
    return folder, "sha256:" + hashlib.sha256(wheel.read_bytes()).hexdigest()


@pytest.mark.parametrize("maker", ["uv", "venv"])
def test_what_uv_installed_has_hashes(uv, tmp_path, wheels, maker):
    python = tmp_path / "env" / "bin" / "python"
    make = [uv, "venv", "--quiet", "--python", sys.executable] if maker == "uv" else [sys.executable, "-m", "venv"]
    subprocess.run([*make, *([] if maker == "uv" else ["--without-pip"]), str(tmp_path / "env")], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), "tiny-thing"], check=True)
    found = measure(python)
    assert found.manager == ("uv" if maker == "uv" else "pip")
    assert found.lock.splitlines()[1:] == ["tiny-thing==1.5 \\", f"    --hash={wheels[1]}"]


def test_a_version_that_the_cache_lacks_leaves_all_without(uv, tmp_path, wheels):
    known = cached_hashes(uv, sys.executable, {"tiny-thing": "1.5"}, tmp_path)
    assert known == {("tiny-thing", "1.5"): {wheels[1]}}
    assert cached_hashes(uv, sys.executable, {"tiny-thing": "1.5", "other": "1"}, tmp_path) == {}
    assert cached_hashes(uv, sys.executable, {"tiny-thing": "1.6"}, tmp_path) == {}
    assert cached_hashes(str(tmp_path / "no uv"), sys.executable, {"tiny-thing": "1.5"}, tmp_path) == {}


def test_hashes_of_this_platform_alone():
    text = (
        f"one==1 \\\n    --hash={A} \\\n    --hash={B}\ntwo==2 ; x > '1' \\\n    --hash={A}\nthree @ https://h/3.whl\n"
    )
    assert narrowed(text, {("one", "1"): frozenset({B}), ("two", "2"): frozenset({C, B})}) == (
        f"one==1 \\\n    --hash={B}\ntwo==2 ; x > '1' \\\n    --hash={B} \\\n    --hash={C}\nthree @ https://h/3.whl\n"
    )
    assert narrowed(text, {("one", "2"): frozenset({B})}) == text
