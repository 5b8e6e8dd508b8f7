from __future__ import annotations

import pytest

from mlipcluster.deploy.lsf import LSFQueue
from mlipcluster.deploy.queues import JobState
from mlipcluster.errors import RunError


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("7|PEND|-|-|-|Job slot limit reached: 2 hosts;", JobState("pending", "Job slot limit reached: 2 hosts;")),
        ("7|PSUSP|-|-|-|held | by ada", JobState("pending", "held | by ada")),
        ("7|RUN|n7|-|-|-", JobState("running", "", "n7")),
        ("7|UNKWN|n7|-|-|-", JobState("running", "", "n7")),
        ("7|SSUSP|n7|-|-|-", JobState("running", "", "n7")),
        ("7|DONE|n7|-|-|-", JobState("ended", "COMPLETED", "n7")),
        ("7|EXIT|n7|127|-|-", JobState("ended", "FAILED (exit code 127)", "n7")),
        ("7|EXIT|n7|137|-|-", JobState("ended", "FAILED (signal 9)", "n7")),
        (
            "7|EXIT|n7|140|TERM_RUNLIMIT: job killed after reaching LSF run time limit|-",
            JobState("ended", "TIMEOUT", "n7"),
        ),
        ("7|EXIT|n7|137|TERM_PREEMPT: job killed after preemption|-", JobState("ended", "PREEMPTED", "n7")),
        ("7|EXIT|n7|130|TERM_OWNER: job killed by owner|-", JobState("ended", "CANCELLED", "n7")),
        ("7|EXIT|n7|137|TERM_MEMLIMIT: job killed after reaching it|-", JobState("ended", "OUT_OF_MEMORY", "n7")),
        ("7|ZOMBI|n7|-|TERM_REMOVE_HUNG_JOB: job removed|-", JobState("ended", "NODE_FAIL", "n7")),
    ],
)
def test_what_bjobs_says(say, line, told):
    say(bjobs=line)
    assert LSFQueue().look(["7"]) == {"7": told}


def test_variables_that_stand_for_options_are_not_passed_on(say, tmp_path, monkeypatch):
    """BSUB_QUIET: nothing is said of the job; BSUB_BLOCK: the command waits for its end."""
    monkeypatch.setenv("BSUB_QUIET", "1")
    (program,) = say(bsub="")
    program.write_text('#!/bin/sh\n[ -n "$BSUB_QUIET" ] || echo "Job <7> is submitted to default queue <normal>."\n')
    assert LSFQueue().submit("#BSUB", tmp_path) == "7"


def test_an_answer_without_a_job_is_an_error(say, tmp_path):
    say(bsub="all is well")
    with pytest.raises(RunError, match="bsub` names no job: 'all is well'"):
        LSFQueue().submit("#BSUB", tmp_path)
