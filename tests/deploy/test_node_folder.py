from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys

from mlipcluster.deploy.node_folder import node_folder

HOLD = """
import sys, time
from mlipcluster.deploy.node_folder import node_folder

with node_folder(sys.argv[1]) as folder:
    print(folder, flush=True)
    time.sleep(60)
"""


def test_it_is_there_for_as_long_as_the_job(tmp_path):
    with node_folder(str(tmp_path / "scratch of the node")) as folder:
        assert folder.parent == tmp_path / "scratch of the node"
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("")
    assert not list(folder.parent.iterdir())


def test_a_variable_is_the_nodes(tmp_path, monkeypatch):
    """As dask-jobqueue has it: ``local-directory: $TMPDIR``."""
    monkeypatch.setenv("SOME_FOLDER", str(tmp_path))
    with node_folder("$SOME_FOLDER/of mine") as folder:
        assert folder.parent == tmp_path / "of mine"


def test_another_job_that_starts_at_the_same_time_does_not_take_it_for_one_that_was_left(tmp_path, monkeypatch):
    lock = fcntl.flock

    def another_looks_first(file, how):
        monkeypatch.setattr(fcntl, "flock", lock)
        with node_folder(str(tmp_path)):
            pass
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", another_looks_first)
    with node_folder(str(tmp_path)) as folder:
        assert folder.is_dir()
    assert not list(tmp_path.iterdir())


def test_what_a_killed_job_left_is_removed_by_the_next_and_what_another_holds_is_not(tmp_path):
    command = [sys.executable, "-c", HOLD, tmp_path]
    holders = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        killed, alive = (holder.stdout.readline().strip() for holder in holders)
        holders[0].send_signal(signal.SIGKILL)
        holders[0].wait()
        assert os.path.isdir(killed)
        with node_folder(str(tmp_path)) as own:
            assert {str(path) for path in tmp_path.iterdir()} == {alive, str(own)}
        assert [str(path) for path in tmp_path.iterdir()] == [alive]
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()
