from __future__ import annotations

import pytest

from mlipcluster.deploy.queues import JobState
from mlipcluster.deploy.sge import SGE, SGEQueue
from mlipcluster.errors import InputError, RunError

XML = (
    "<?xml version='1.0'?><job_info><queue_info></queue_info><job_info><job_list><JB_job_number>7</JB_job_number>"
    "<JB_name>x</JB_name><state>{state}</state><queue_name>{queue}</queue_name></job_list></job_info></job_info>"
)
NONE = "<job_info><queue_info></queue_info><job_info></job_info></job_info>"


@pytest.mark.parametrize(
    ("state", "queue", "told"),
    [
        ("qw", "", JobState("pending", "qw")),
        ("hqw", "", JobState("pending", "held (hqw)")),
        ("Eqw", "", JobState("pending", "error (Eqw); `qstat -j 7` says why")),
        ("r", "all.q@n7", JobState("running", "", "n7")),
        ("t", "all.q@n7", JobState("running", "", "n7")),
        ("dr", "all.q@n7", JobState("running", "", "n7")),
        ("S", "all.q@n7", JobState("running", "", "n7")),
    ],
)
def test_what_qstat_says(say, state, queue, told):
    say(qstat=XML.format(state=state, queue=queue))
    assert SGEQueue().look(["7"]) == {"7": told}


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("failed       0\nexit_status  0", "COMPLETED"),
        ("failed       0\nexit_status  3", "FAILED (exit code 3)"),
        ("failed       100 : assumedly after job\nexit_status  137  (Killed)", "FAILED (signal 9)"),
        ("failed       37  : qmaster enforced h_rt, h_cpu, or h_vmem limit\nexit_status  137", "TIMEOUT"),
        ("failed       100 : assumedly after job\nexit_status  137\ndeleted_by   ada@login", "CANCELLED"),
        ("nothing of use", ""),
    ],
)
def test_what_qacct_says(say, lines, told):
    say(qstat=NONE, qacct=f"=====\nhostname     n7\n{lines}\n")
    assert SGEQueue().look(["7"])["7"].reason == told


def test_a_job_that_the_accounting_does_not_have_yet_has_ended(say):
    say(qstat=NONE, qacct=("error: job id 7 not found", 1))
    assert SGEQueue().look(["7"]) == {"7": JobState("ended")}


def test_what_is_no_xml_is_an_error(say):
    say(qstat="error: something else")
    with pytest.raises(RunError, match=r"qstat -xml.*no XML"):
        SGEQueue().find("x")


def test_its_own_fields_are_looked_at():
    with pytest.raises(InputError, match="parallel_environment='a"):
        SGE(parallel_environment="a\nb")
