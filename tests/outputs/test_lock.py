from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys

import pytest

from mlipcluster.errors import RunFolderError
from mlipcluster.outputs.lock import ExclusiveLock

HOLD = (
    "import sys; from pathlib import Path; from mlipcluster.outputs.lock import ExclusiveLock\n"
    "ExclusiveLock(Path(sys.argv[1])).acquire(); print('held', flush=True); sys.stdin.read()\n"
)


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock until it is killed."""
    path = tmp_path / "ledger.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, os.fspath(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process, path
        process.kill()


def test_a_second_process_is_refused_and_told_who_holds_it(holder):
    process, path = holder
    with pytest.raises(RunFolderError, match=rf"process {process.pid} of user .* on {socket.gethostname()} \(since 20"):
        ExclusiveLock(path).acquire()


def test_the_lock_ends_with_its_holder(holder):
    process, path = holder
    process.kill()
    process.wait()
    lock = ExclusiveLock(path)
    lock.acquire()
    assert lock.held
    lock.release()


def test_one_process_cannot_hold_it_twice(tmp_path):
    first, second = ExclusiveLock(tmp_path / "a"), ExclusiveLock(tmp_path / "a")
    first.acquire()
    first.acquire()
    with pytest.raises(RunFolderError, match="this very process"):
        second.acquire()
    first.release()
    first.release()
    second.acquire()
    second.release()


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without locks."""

    def lockf(fd, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", lockf)


def test_without_locks_an_owner_file_keeps_others_out(tmp_path, no_locks):
    lock = ExclusiveLock(tmp_path / "a")
    lock.acquire()
    assert json.loads(lock.owner_path.read_text())["pid"] == os.getpid()
    lock.release()
    assert not lock.owner_path.exists()


@pytest.mark.parametrize("host", [socket.gethostname(), "elsewhere"])
def test_an_owner_that_lives_or_is_elsewhere_is_respected(tmp_path, no_locks, host):
    lock = ExclusiveLock(tmp_path / "a")
    lock.owner_path.write_text(json.dumps({"pid": os.getppid(), "host": host, "user": "u", "since": "s"}))
    with pytest.raises(RunFolderError, match=r"if that process has ended, delete .*\.owner"):
        lock.acquire()
    assert not lock.held


def test_an_owner_that_is_gone_is_replaced(tmp_path, no_locks):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    lock = ExclusiveLock(tmp_path / "a")
    lock.owner_path.write_text(json.dumps({"pid": process.pid, "host": socket.gethostname()}))
    lock.acquire()
    assert lock.held
    lock.release()


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(RunFolderError, match="choose another output_path"):
        ExclusiveLock(tmp_path / "no" / "a").acquire()
