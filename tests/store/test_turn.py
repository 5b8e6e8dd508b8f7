from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest

from mlipcluster.store import turn as turn_module
from mlipcluster.store.layout import make_root
from mlipcluster.store.parts import _has_process, abandoned, linked, new_part, remove_abandoned, running
from mlipcluster.store.turn import Owner, turn

HOLD = """
import sys
from mlipcluster.store.layout import Layout
from mlipcluster.store.parts import new_part
from mlipcluster.store.turn import turn
layout = Layout(sys.argv[1])
with turn(layout, "a_env", 60, print), new_part(layout, "a_env", 60) as (folder, _):
    (folder / "half made").write_text("x")
    print(folder, flush=True)
    sys.stdin.read()
"""

INSTALL = """
import sys
from mlipcluster.store.layout import Layout
from mlipcluster.store.parts import new_part
from mlipcluster.process import run_logged
with new_part(Layout(sys.argv[1]), "a_env", 60) as (folder, descriptor):
    run_logged(["cat", sys.argv[2]], timeout=600, log=print, keep=(descriptor,))
"""


@pytest.fixture
def layout(tmp_path):
    return make_root(tmp_path / 'it\'s "the"\nroot')[0]


@pytest.fixture
def builder(layout):
    """A process that has its turn, and has begun to build."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(layout.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline()
        yield process
        process.kill()
        process.stdin.close()


@pytest.fixture
def no_locks(monkeypatch):
    """A file system that carries no locks."""

    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def forget(line):
    """Nobody reads it."""


def test_another_builder_is_waited_for(layout, builder):
    told = []

    def tell(line):
        told.append(line)
        builder.stdin.close()  # now it goes on, and ends

    with turn(layout, "a_env", 60, tell):
        who = f"process {builder.pid} of {Owner.here(0).user!r} on {socket.gethostname()!r}"
        assert told == [f"a_env is being built by {who}; waiting for that"]
    with turn(layout, "a_env", 60, forget), turn(layout, "b_env", 0, forget):
        pass  # others are others


def test_waiting_has_an_end(layout, builder):
    with pytest.raises(TimeoutError), turn(layout, "a_env", 0, forget):
        pass


def test_the_turn_of_a_builder_that_was_killed_is_free(layout, builder):
    builder.kill()
    builder.wait()
    with turn(layout, "a_env", 0, forget):
        pass


def test_a_lock_that_was_removed_while_somebody_waited_is_taken_anew(layout, monkeypatch):
    real, path, removed = turn_module.try_lock, layout.turn_file("a_env"), []

    def lock(descriptor):
        if not removed:
            removed.append(path.unlink())
        return real(descriptor)

    monkeypatch.setattr(turn_module, "try_lock", lock)
    with turn(layout, "a_env", 0, forget):
        assert path.exists()


def test_without_locks_nobody_waits(layout, builder, no_locks):
    with turn(layout, "a_env", 0, forget):
        pass


def test_a_part_goes_unless_a_link_leads_to_it(layout):
    with new_part(layout, "a_env", 60) as (folder, _):
        assert abandoned(layout) == []
        assert [owner.pid for owner in running(layout)] == [os.getpid()]
    assert list(layout.parts.iterdir()) == []
    with new_part(layout, "a_env", 60) as (folder, _):
        layout.link("d" * 64).symlink_to(f".parts/{folder.name}")
    assert list(layout.parts.iterdir()) == [folder]
    assert linked(layout) == {folder: "d" * 64}
    assert abandoned(layout) == []


def test_a_builder_is_told_from_one_that_was_killed(layout, builder):
    entries = sorted(layout.parts.iterdir())
    assert abandoned(layout) == []
    assert not any(remove_abandoned(layout, entry) for entry in entries)
    assert (entries[0] / "half made").exists()
    builder.kill()
    builder.wait()
    assert abandoned(layout) == entries
    assert running(layout) == []
    assert all(remove_abandoned(layout, entry) for entry in entries)
    assert list(layout.parts.iterdir()) == []


def test_what_a_killed_builder_started_keeps_the_folder(layout, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen([sys.executable, "-c", INSTALL, str(layout.root), str(fifo)]) as builder:
        with open(fifo, "w", encoding="utf-8"):  # opens when its child has
            builder.kill()
            builder.wait()
            assert abandoned(layout) == []
            assert len(running(layout)) == 1
        while len(left := abandoned(layout)) < 2:  # until the child has ended, which may be between looks at the two
            time.sleep(0.01)
    assert [entry.suffix for entry in left] == ["", ".lock"]


@pytest.mark.parametrize(
    ("change", "is_alive"),
    [
        ({}, True),
        ({"born": "1"}, False),
        ({"pid": 2**22 + 1}, False),
        ({"host": "elsewhere"}, True),
        ({"host": "elsewhere", "until": 0.0}, False),
    ],
)
def test_without_locks_the_owner_has_to_do(layout, no_locks, change, is_alive):
    folder, lock = layout.parts / "a_env-0", layout.parts / "a_env-0.lock"
    folder.mkdir()
    lock.write_text(json.dumps(asdict(replace(Owner.here(60), locked=False, **change))))
    assert (abandoned(layout) == []) is is_alive
    assert len(running(layout)) == is_alive
    assert remove_abandoned(layout, folder) is not is_alive
    assert folder.exists() is is_alive


def test_who_may_only_read_sees_the_same(layout, builder, monkeypatch):
    real = os.open

    def read_only(path, flags, *more, **options):
        if flags & (os.O_RDWR | os.O_WRONLY) and str(path).startswith(str(layout.root)):
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", read_only)
    assert [owner.pid for owner in running(layout)] == [builder.pid]
    assert abandoned(layout) == []
    builder.kill()
    builder.wait()
    assert running(layout) == []
    assert len(abandoned(layout)) == 2


def test_without_locks_a_lock_without_an_owner_is_left_for_a_while(layout, no_locks):
    lock = layout.parts / "a_env-0.lock"
    lock.write_text("")
    assert abandoned(layout) == []
    os.utime(lock, (time.time() - 3600,) * 2)
    assert abandoned(layout) == [lock]


def test_an_owner_survives_its_file(layout):
    owner = Owner.here(60)
    path = layout.parts / "x"
    path.write_text(json.dumps(asdict(owner)))
    assert Owner.read(path) == owner
    assert owner.alive
    for text in ("", "{}", '{"pid": "x"}', "[]"):
        path.write_text(text)
        assert Owner.read(path) is None


def test_a_program_at_work_is_seen_by_another_path_to_the_root(tmp_path):
    (tmp_path / "real" / "part").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    with subprocess.Popen([sys.executable, "-c", "input()"], cwd=tmp_path / "real" / "part", stdin=subprocess.PIPE):
        assert _has_process(tmp_path / "link" / "part")
    assert not _has_process(tmp_path / "link" / "part")
