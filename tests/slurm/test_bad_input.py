"""What goes wrong with jobs of a real SLURM is said, with its reason and a remedy, and does not go on for ever."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from mlipcluster.deploy import queues, scaling
from mlipcluster.errors import MismatchError, RunError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
ROOT = Path(__file__).parents[2]


def nothing(atoms):
    return atoms


@pytest.fixture
def refused(on_slurm, slurm_jobs, cu):
    """What a run ends with on jobs of these fields: ``refused(**fields) -> text``."""

    def make(error=RunError, **fields):
        with pytest.raises(error) as caught, on_slurm([cu], slurm_jobs(workers=(0, 1), **fields)) as run:
            run.distribute(nothing)
        return str(caught.value)

    return make


def test_an_unknown_partition(refused):
    said = refused(queue="nosuch")
    assert "invalid partition specified: nosuch" in said
    assert said.endswith("run the same again.")


def test_slurm_is_down(refused, slurm, monkeypatch):
    monkeypatch.setattr(queues, "ATTEMPTS", 1)
    slurm.kill_daemon("slurmctld")
    try:
        said = refused()
    finally:
        slurm.up()
    assert "Unable to contact slurm controller" in said
    assert "run the same again" in said


def test_an_interpreter_that_the_node_does_not_have(refused, tmp_path):
    said = refused(python="/no/such/env/bin/python")
    assert said.startswith("3 jobs in a row ended before a worker of theirs could work.")
    assert "FAILED (exit code 127)" in said
    assert "/no/such/env/bin/python: No such file" in said


def test_jobs_that_die_at_once(refused, slurm):
    said = refused(prologue=["echo the licence server is down", "exit 3"])
    assert "FAILED (exit code 3)" in said
    assert "the licence server is down" in said


def test_another_python(refused, tmp_path):
    other = os.environ.get("MLIPCLUSTER_TEST_PYTHON39") or ROOT / ".envs/python39/bin/python"
    if not Path(other).is_file():
        pytest.skip("needs a Python 3.9 beside this one: `bash scripts/test.sh` makes an environment of it")
    said = refused(MismatchError, python=str(other), environment={"PYTHONPATH": str(ROOT)})
    assert "runs Python 3.9" in said
    assert f"this process {sys.version_info.major}.{sys.version_info.minor}" in said


def wrapper(folder: Path, command: str) -> str:
    """An interpreter that is this one, started in another way."""
    path = folder / "python3"
    path.write_text(f"#!/bin/bash\n{command.format(python=sys.executable)}\n")
    path.chmod(0o755)
    return str(path)


def test_a_folder_that_the_nodes_do_not_see(refused, tmp_path):
    hide = f'mount -t tmpfs none {tmp_path}/run && exec "$@"'
    said = refused(python=wrapper(tmp_path, f"exec unshare --mount bash -c '{hide}' - {{python}} \"$@\""))
    assert "does not see the run folder as the driver does" in said
    assert "choose an output_path on a file system that both share" in said


def test_no_worker_in_time(refused):
    said = refused(start_timeout=6, directives=["--begin=now+1hour"])
    assert "no worker came within start_timeout=6 s; 1 job waits: BeginTime" in said


def test_a_walltime_that_is_shorter_than_a_start(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "DEATHS", 1)
    said = refused(walltime=16, python=wrapper(tmp_path, 'sleep 14.5; exec {python} "$@"'))
    assert "the walltime of 16 s is shorter than a start-up" in said
    assert "give a longer walltime" in said
