from __future__ import annotations

import json
import subprocess

import pytest

from mlipcluster.deploy.oar import OAR, OARQueue
from mlipcluster.deploy.queues import JobState
from mlipcluster.errors import RunError


def events(*types):
    return [{"type": one, "description": "…"} for one in types]


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"state": "Waiting", "message": "R=1,W=2:0:0 (Karma=0.1)"}, JobState("pending", "R=1,W=2:0:0 (Karma=0.1)")),
        ({"state": "Hold", "message": ""}, JobState("pending", "Hold")),
        ({"state": "Running", "assigned_network_address": ["n7", "n8"]}, JobState("running", "", "n7")),
        ({"state": "Terminated", "exit_code": 0}, JobState("ended", "COMPLETED")),
        ({"state": "Terminated", "exit_code": "32512 (127,0,0)"}, JobState("ended", "FAILED (exit code 127)")),
        ({"state": "Terminated", "exit_code": 9}, JobState("ended", "FAILED (signal 9)")),
        ({"state": "Error", "exit_code": None}, JobState("ended", "FAILED")),
        ({"state": "Error", "events": events("FRAG_JOB_REQUEST")}, JobState("ended", "CANCELLED")),
        ({"state": "Error", "events": events("FRAG_JOB_REQUEST", "WALLTIME")}, JobState("ended", "TIMEOUT")),
        ({"state": "Error", "events": events("BESTEFFORT_KILL", "FRAG_JOB_REQUEST")}, JobState("ended", "PREEMPTED")),
    ],
)
def test_what_oarstat_says(say, facts, told):
    say(oarstat=json.dumps({"7": {"Job_Id": 7, "name": "x", **facts}}))
    assert OARQueue().look(["7"]) == {"7": told}


def test_no_job_is_no_text(say):
    say(oarstat="")
    assert OARQueue().find("x") == []
    assert OARQueue().look(["7"]) == {"7": JobState("ended")}


def test_what_is_no_json_is_an_error(say):
    say(oarstat="something else")
    with pytest.raises(RunError, match=r"oarstat -J.*no JSON"):
        OARQueue().find("x")


def test_the_command_is_the_whole_script_but_its_head(say, tmp_path):
    (program,) = say(oarsub="")
    program.write_text('#!/bin/sh\nfor last; do :; done\nprintf %s "$last" >command\necho OAR_JOB_ID=7 $#\n')
    told = "one\n#OAR -q other\n\n# three\x0cfour"
    one = OAR(environment={"TOLD": told}, prologue=["# first"], grace=0)
    assert OARQueue().submit(one.script(["printenv", "TOLD"], name="n", logs=tmp_path), tmp_path) == "7"
    done = subprocess.run(["bash", tmp_path / "command"], capture_output=True, text=True, check=True)
    assert done.stdout == told + "\n"


def test_an_answer_without_a_job_is_an_error(say, tmp_path):
    say(oarsub="all is well")
    with pytest.raises(RunError, match="oarsub` names no job: 'all is well'"):
        OARQueue().submit("#OAR -n x\nexec x\n", tmp_path)
