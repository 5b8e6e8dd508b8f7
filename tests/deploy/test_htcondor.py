from __future__ import annotations

import json

import pytest

from mlipcluster.deploy.htcondor import HTCondor, HTCondorQueue
from mlipcluster.deploy.queues import JobState
from mlipcluster.errors import InputError, RunError


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"JobStatus": 1}, JobState("pending")),
        ({"JobStatus": 5, "HoldReason": "no such folder"}, JobState("pending", "held: no such folder")),
        ({"JobStatus": 2, "RemoteHost": "slot1@n7"}, JobState("running", "", "n7")),
        ({"JobStatus": 7, "RemoteHost": "slot1@n7"}, JobState("running", "", "n7")),
        ({"JobStatus": 4, "ExitCode": 0, "LastRemoteHost": "slot1@n7"}, JobState("ended", "COMPLETED", "n7")),
        ({"JobStatus": 4, "ExitCode": 3}, JobState("ended", "FAILED (exit code 3)")),
        ({"JobStatus": 4, "ExitBySignal": True, "ExitSignal": 9}, JobState("ended", "FAILED (signal 9)")),
        ({"JobStatus": 3, "RemoveReason": "via condor_rm (by user ada)"}, JobState("ended", "CANCELLED")),
        ({"JobStatus": 3, "RemoveReason": "TIMEOUT"}, JobState("ended", "TIMEOUT")),
        ({"JobStatus": 3, "RemoveReason": "PREEMPTED"}, JobState("ended", "PREEMPTED")),
    ],
)
def test_what_condor_q_says(say, facts, told):
    say(condor_q=json.dumps([{"ClusterId": 7, "ProcId": 0, **facts}]))
    assert HTCondorQueue().look(["7.0"]) == {"7.0": told}


def test_what_has_left_the_queue_is_in_the_history(say):
    say(condor_q="", condor_history=json.dumps([{"ClusterId": 7, "ProcId": 0, "JobStatus": 4, "ExitCode": 1}]))
    assert HTCondorQueue().look(["7.0", "8.0"]) == {
        "7.0": JobState("ended", "FAILED (exit code 1)"),
        "8.0": JobState("ended"),
    }


def test_what_is_no_json_is_an_error(say):
    say(condor_q="-- Schedd: something else")
    with pytest.raises(RunError, match=r"condor_q -json.*no JSON"):
        HTCondorQueue().find("x")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"queue": "gpu"}, "HTCondor has no queues"),
        ({"directives": ["--exclusive"]}, "key = value"),
        ({"directives": ["key ="]}, "key = value"),
        ({"environment": {"A": "b\nc"}}, "environment 'A' has several lines"),
        ({"disk": ""}, "disk=''"),
    ],
)
def test_what_it_cannot_take(fields, words):
    with pytest.raises(InputError, match=words):
        HTCondor(**fields)
