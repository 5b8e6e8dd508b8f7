from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from mlipcluster.deploy.handshake import facts_here
from mlipcluster.deploy.job_spec import JobSpec, Refusal


@pytest.fixture
def node(tmp_path):
    """Run a job's first process: ``node(**fields of the spec) -> what it said``, once it has ended by itself."""
    spec = JobSpec(
        "tcp://127.0.0.1:1", scratch=str(tmp_path / "scratch"), driver=facts_here(environment=False).to_json()
    )

    def run(**fields):
        replace(spec, **fields).write(tmp_path / "job.json")
        done = subprocess.run(
            [sys.executable, "-m", "mlipcluster.deploy.node", tmp_path / "job.json", "job0-1"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 1
        assert not list(tmp_path.glob("scratch/*"))
        return done.stderr

    return run


def test_a_driver_of_another_python_is_refused_through_a_file(node, tmp_path):
    driver = {**facts_here(environment=False).to_json(), "python": "3.99.1"}
    said = node(driver=driver)
    refusal = Refusal.read(tmp_path / "job.json", "job0-1")
    assert "this process 3.99.1; functions cannot be sent between the two" in refusal.text
    assert os.uname().nodename in refusal.text
    assert refusal.differences[0].startswith("python: 3.99.1 -> ")
    assert refusal.text in said


def test_other_versions_are_refused_where_that_was_asked_for(node, tmp_path):
    facts = facts_here(environment=False).to_json()
    driver = {**facts, "packages": {**facts["packages"], "numpy": "0.1"}}
    assert "numpy: 0.1 -> " in node(driver=driver, same_versions=True)
    assert Refusal.read(tmp_path / "job.json", "job0-1") is not None


def test_a_walltime_that_leaves_no_time(node, tmp_path):
    said = node(walltime=5.0, margin=6.0)
    assert "the walltime of 5 s is shorter than a start-up" in said
    assert said.strip().endswith("give a longer walltime.")
    assert Refusal.read(tmp_path / "job.json", "job0-1") is None


def test_a_job_that_is_told_to_end_before_it_has_workers_leaves_nothing(tmp_path):
    """While it asks SLURM when it ends."""
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\ntouch '{tmp_path}/asked'\nexec sleep 60\n")
    (tmp_path / "scontrol").chmod(0o755)
    facts = facts_here(environment=False).to_json()
    JobSpec("tcp://127.0.0.1:1", scratch=str(tmp_path / "scratch"), driver=facts).write(tmp_path / "job.json")
    job = subprocess.Popen(
        [sys.executable, "-m", "mlipcluster.deploy.node", tmp_path / "job.json", "job0-1"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "asked").exists():
        assert job.poll() is None
        time.sleep(0.05)
    assert list(tmp_path.glob("scratch/*"))
    job.terminate()
    assert "told to end before a worker was started" in job.communicate(timeout=60)[1]
    assert job.returncode == 1
    assert not list(tmp_path.glob("scratch/*"))


def test_a_scheduler_that_cannot_be_reached(node):
    said = node(variables={"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1s"}, patience=3.0, processes=2)
    assert "no worker of job job0-1 on " in said
    assert "could join the scheduler at tcp://127.0.0.1:1" in said
    assert "interface= or host= choose it" in said
