from __future__ import annotations

import pytest

from mlipcluster.deploy.moab import MoabQueue
from mlipcluster.deploy.queues import JobState
from mlipcluster.errors import RunError

NONE = "<Data><Object>queue</Object></Data>"
JOB = '<Data><Object>queue</Object><queue option="{option}"><job JobID="7" JobName="x" {facts}></job></queue></Data>'


@pytest.mark.parametrize(
    ("option", "facts", "told"),
    [
        ("eligible", 'State="Idle"', JobState("pending", "Idle")),
        ("blocked", 'State="BatchHold"', JobState("pending", "blocked: BatchHold")),
        ("blocked", 'State="Idle" BlockReason="ActivePolicy"', JobState("pending", "blocked: ActivePolicy")),
        ("active", 'State="Running" MasterHost="n7"', JobState("running", "", "n7")),
        ("active", 'State="Starting" MasterHost="n7"', JobState("running", "", "n7")),
        ("completed", 'State="Completed" CompletionCode="0" MasterHost="n7"', JobState("ended", "COMPLETED", "n7")),
        ("completed", 'State="Completed" CompletionCode="3"', JobState("ended", "FAILED (exit code 3)")),
        ("completed", 'State="Completed" CompletionCode="271"', JobState("ended", "FAILED (signal 15)")),
        ("completed", 'State="Completed" CompletionCode="-11"', JobState("ended", "TIMEOUT")),
        ("completed", 'State="Completed" CompletionCode="CNCLD(271)"', JobState("ended", "CANCELLED")),
        ("completed", 'State="Removed" CompletionCode="CNCLD"', JobState("ended", "CANCELLED")),
        ("completed", 'State="Vacated"', JobState("ended", "PREEMPTED")),
        ("completed", 'State="Completed"', JobState("ended")),
    ],
)
def test_what_showq_says(say, option, facts, told):
    (program,) = say(showq="")
    body = JOB.format(option=option, facts=facts)
    first, second = (NONE, body) if option == "completed" else (body, NONE)
    program.write_text(f"#!/bin/sh\nif [ \"$1\" = -c ]; then echo '{second}'; else echo '{first}'; fi\n")
    assert MoabQueue().look(["7"]) == {"7": told}


def test_what_is_no_xml_is_an_error(say):
    say(showq="ERROR: something else")
    with pytest.raises(RunError, match=r"showq --xml.*no XML"):
        MoabQueue().find("x")
