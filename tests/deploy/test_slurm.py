"""What SLURM says of jobs; against the real one: tests/contracts/test_batch.py."""

from __future__ import annotations

import pytest

from mlipcluster.deploy.queues import JobState
from mlipcluster.deploy.slurm import Slurm, SlurmQueue


@pytest.mark.parametrize(
    ("line", "state"),
    [
        ("7|PENDING|Resources|", JobState("pending", "Resources")),
        (
            "7|PENDING|ReqNodeNotAvail, UnavailableNodes:n1|",
            JobState("pending", "ReqNodeNotAvail, UnavailableNodes:n1"),
        ),
        ("7|CONFIGURING|None|n1", JobState("pending", "None", "n1")),
        ("7|RUNNING|None|n1", JobState("running", "", "n1")),
        ("7|COMPLETING|None|n1", JobState("running", "", "n1")),
        ("7|TIMEOUT|TimeLimit|n1", JobState("ended", "TIMEOUT", "n1")),
        ("7|PREEMPTED|None|n1", JobState("ended", "PREEMPTED", "n1")),
        ("7|NODE_FAIL|NodeDown|n1", JobState("ended", "NODE_FAIL", "n1")),
        ("7|OUT_OF_MEMORY|OutOfMemory|n1", JobState("ended", "OUT_OF_MEMORY", "n1")),
        ("7|FAILED|RaisedSignal:9|n1", JobState("ended", "FAILED (signal 9)", "n1")),
    ],
)
def test_what_squeue_says(say, line, state):
    say(squeue=line, scontrol="JobId=7 JobName=x ExitCode=0:9 Comment=none")
    assert SlurmQueue().look(["7"]) == {"7": state}


def test_what_squeue_has_forgotten_the_accounting_may_know(say):
    say(squeue="9|RUNNING|None|n1", sacct="7|CANCELLED by 1000|0:15|n1\n8|FAILED|127:0|n2\n6|RUNNING|0:0|n2\n")
    assert SlurmQueue().look(["6", "7", "8", "9", "5"]) == {
        "5": JobState("ended"),
        "6": JobState("ended"),  # of a job that squeue does not have, the accounting has not heard yet
        "7": JobState("ended", "CANCELLED", "n1"),
        "8": JobState("ended", "FAILED (exit code 127)", "n2"),
        "9": JobState("running", "", "n1"),
    }


def test_without_accounting_the_reason_is_unknown(say):
    say(squeue="", sacct=("Slurm accounting storage is disabled", 1))
    assert SlurmQueue().look(["7"]) == {"7": JobState("ended")}


def test_a_single_job_that_it_does_not_know_has_ended(say):
    say(squeue=("slurm_load_jobs error: Invalid job id specified", 1), sacct="")
    assert SlurmQueue().look(["7"]) == {"7": JobState("ended")}


def test_the_cluster_of_a_federation_is_no_part_of_the_number(say, tmp_path):
    say(sbatch="1234;second\n")
    assert SlurmQueue().submit("#!/bin/sh\n", tmp_path) == "1234"


def test_variables_that_would_override_a_directive_are_left_out(say, tmp_path, monkeypatch):
    """sbatch: "environment variables will override any options set in a batch script"."""
    for name, text in {"PARTITION": "wrong", "SIGNAL": "KILL@1", "ACCOUNT": "mine", "QOS": "high"}.items():
        monkeypatch.setenv(f"SBATCH_{name}", text)
    (program,) = say(sbatch="1")
    program.write_text("#!/bin/sh\nenv | grep ^SBATCH_ | sort >seen; echo 1\n")
    logs = tmp_path / "logs"
    SlurmQueue().submit(Slurm(queue="gpu").script(["x"], name="n", logs=logs), tmp_path)
    assert (tmp_path / "seen").read_text().splitlines() == ["SBATCH_ACCOUNT=mine", "SBATCH_QOS=high"]
    SlurmQueue().submit(Slurm(account="other").script(["x"], name="n", logs=logs), tmp_path)
    assert (tmp_path / "seen").read_text().splitlines() == ["SBATCH_PARTITION=wrong", "SBATCH_QOS=high"]
