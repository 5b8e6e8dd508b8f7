from __future__ import annotations

import pytest

from mlipcluster.deploy.pbs import PBSQueue, mebibytes
from mlipcluster.deploy.queues import JobState

FULL = """Job Id: 7.server
    Job_Name = mlipcluster-0
    job_state = {state}
    {line}
    Variable_List = PBS_O_HOME=/home/ada,PBS_O_SHELL=/bin/bash,
\tPBS_O_PATH=/usr/bin:/bin,A=b = c
    comment = Not Running: Insufficient amount of resource: ngpus (R: 1 A: 0
\t T: 4)
"""


@pytest.mark.parametrize(
    ("state", "line", "told"),
    [
        ("Q", "", JobState("pending", "Not Running: Insufficient amount of resource: ngpus (R: 1 A: 0 T: 4)")),
        ("R", "exec_host = node7/0*8", JobState("running", "", "node7")),
        ("E", "exec_host = node7/0*8", JobState("running", "", "node7")),
        ("S", "exec_host = node7/0*8", JobState("running", "", "node7")),
        ("F", "Exit_status = 0", JobState("ended", "COMPLETED")),
        ("F", "Exit_status = 127", JobState("ended", "FAILED (exit code 127)")),
        ("F", "Exit_status = 265", JobState("ended", "FAILED (signal 9)")),
        ("F", "Exit_status = -29", JobState("ended", "TIMEOUT")),
        ("F", "Exit_status = -27", JobState("ended", "OUT_OF_MEMORY")),
        ("F", "Exit_status = -3", JobState("ended", "FAILED (PBS says -3)")),
        ("F", "queue = workq", JobState("ended", "CANCELLED")),
    ],
)
def test_what_qstat_says(say, state, line, told):
    say(qstat=FULL.format(state=state, line=line))
    assert PBSQueue().look(["7.server"]) == {"7.server": told}


def test_a_server_that_keeps_no_history_tells_of_those_that_it_has(say):
    (program,) = say(qstat="")
    full = FULL.format(state="R", line="exec_host = node7/0*8")
    program.write_text(
        "#!/bin/sh\n"
        '[ "$1" != -x ] || { echo "qstat: PBS is not configured to maintain job history" >&2; exit 1; }\n'
        f"cat <<'END'\n{full}END\necho 'qstat: Unknown Job Id 8.server' >&2\nexit 153\n"
    )
    assert PBSQueue().look(["7.server", "8.server"]) == {
        "7.server": JobState("running", "", "node7"),
        "8.server": JobState("ended"),
    }


def test_memory_is_rounded_up():
    assert mebibytes("1 GB") == 954
    assert mebibytes("1 GiB") == 1024
    assert mebibytes(1) == 1
