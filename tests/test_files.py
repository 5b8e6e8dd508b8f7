from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys

import pytest

from mlipcluster.files import remove_parts, sha256_file, write_atomic

DYING = """
import os, signal, sys
from pathlib import Path
from mlipcluster.files import write_atomic
Path.replace = lambda self, target: os.kill(os.getpid(), signal.SIGKILL)
write_atomic(Path(sys.argv[1]), "half of it")
"""


def test_a_writer_that_is_killed_leaves_the_old_file_and_a_part_that_can_be_removed(tmp_path):
    path = tmp_path / "folder" / "kept.txt"
    write_atomic(path, "old")
    done = subprocess.run([sys.executable, "-c", DYING, path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(os.listdir(path.parent)) == 2
    remove_parts(tmp_path)
    assert os.listdir(path.parent) == ["kept.txt"]


def test_only_parts_are_removed(tmp_path):
    others = ["a.part", ".hidden", ".a.part", ".b.0123456.part", "c.01234567.part"]
    for name in others:
        (tmp_path / name).touch()
    remove_parts(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(others)


def test_a_failed_write_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomic(tmp_path / "folder", b"bytes")
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize("sync", [True, False])
def test_the_file_is_flushed_before_it_is_renamed_and_its_folder_after(tmp_path, monkeypatch, sync):
    flushed = []

    def fsync(descriptor):
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        flushed.append(("folder" if folder else "file", (tmp_path / "kept.txt").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomic(tmp_path / "kept.txt", "text", sync=sync)
    assert flushed == ([("file", False), ("folder", True)] if sync else [])


def test_a_folder_that_cannot_be_flushed_is_no_stop(tmp_path, monkeypatch):
    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fsync)
    assert write_atomic(tmp_path / "kept.txt", "text").read_text() == "text"


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "empty").touch()
    assert sha256_file(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
