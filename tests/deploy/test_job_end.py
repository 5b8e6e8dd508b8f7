from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlipcluster.deploy import job_end


@pytest.fixture
def scontrol(tmp_path):
    """A SLURM that says what a test has it say: ``scontrol(text) -> environment of a job``."""

    def make(text, status=0):
        program = tmp_path / "scontrol"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {status}\n")
        program.chmod(0o755)
        return {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}

    return make


def test_without_a_batch_system_the_walltime_counts_from_the_start_of_the_process():
    left = job_end.seconds_left(1000.0, {})
    assert left == pytest.approx(1000.0 - job_end.age(os.getpid()), abs=60.0)
    assert job_end.seconds_left(None, {}) == math.inf


def test_the_age_of_a_process_is_told_by_no_clock_on_the_wall():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        young = job_end.age(process.pid)
        time.sleep(0.5)
        assert 0.4 < job_end.age(process.pid) - young < 60
        assert young < 60
    finally:
        process.kill()
        process.wait()
    assert job_end.age(process.pid) == 0.0


@pytest.mark.parametrize("year", ["1999", "2026", "2063"])
def test_slurm_s_times_are_compared_with_each_other_alone(scontrol, year):
    """Whether the controller's clock or the node's is wrong: between start and end lie 90 minutes."""
    environment = scontrol(f"JobId=17 StartTime={year}-03-01T12:00:00 EndTime={year}-03-01T13:30:00 Deadline=N/A")
    assert job_end.slurm_lasts(environment) == 5400.0
    just_now = {**environment, "SLURM_TASK_PID": "1999999999"}
    assert job_end.seconds_left(None, just_now) == 5400.0
    assert job_end.seconds_left(60.0, just_now) == 60.0


def test_clocks_that_are_changed_meanwhile_for_the_winter_do_not_matter(scontrol):
    """As scontrol does it: local time, of a job of an hour that began half an hour before."""
    environment = scontrol("")
    say = "date -d @$1 +%Y-%m-%dT%H:%M:%S"
    program = f'said() {{ {say}; }}\necho "StartTime=$(said 1792888200) EndTime=$(said 1792891800)"'
    Path(environment["PATH"].partition(":")[0], "scontrol").write_text(f"#!/bin/sh\n{program}\n")
    central_europe = {**environment, "TZ": "CET-1CEST,M3.5.0,M10.5.0/3", "SLURM_TIME_FORMAT": "relative"}
    assert job_end.slurm_lasts(central_europe) == 3600.0


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("JobId=17 StartTime=2026-03-01T12:00:00 EndTime=Unknown", 0),
        ("JobId=17 StartTime=N/A", 0),
        ("slurm_load_jobs error: Invalid job id specified", 1),
        ("", 0),
    ],
)
def test_where_slurm_does_not_say_nobody_knows(scontrol, text, status):
    assert job_end.slurm_lasts(scontrol(text, status)) == math.inf


def test_a_node_without_slurm_s_commands(tmp_path):
    assert job_end.slurm_lasts({"SLURM_JOB_ID": "17", "PATH": str(tmp_path)}) == math.inf


def test_a_slurm_that_does_not_answer(scontrol, tmp_path, monkeypatch):
    environment = scontrol("")
    (tmp_path / "scontrol").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(job_end, "TIMEOUT", 0.2)
    assert job_end.slurm_lasts(environment) == math.inf
