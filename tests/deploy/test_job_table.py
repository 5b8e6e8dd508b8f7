from __future__ import annotations

import math

import pytest

from mlipcluster.deploy.job_table import NEW_SECONDS, RESTART_SECONDS, JobTable, SubmittedJob, WorkerView
from mlipcluster.deploy.queues import ENDED, GONE, PENDING, RUNNING, JobState
from mlipcluster.deploy.scaling import LEAVING, STARTING, WORKING


@pytest.fixture
def table():
    table = JobTable()
    table.add(SubmittedJob("job0-1", "17", 0.0))
    table.add(SubmittedJob("job0-2", "18", 0.0))
    return table


def states(table, now=0.0):
    return [view.state for view in table.views(now)]


def test_from_the_queue_to_the_end(table):
    assert states(table) == [PENDING, PENDING]
    assert table.see_queue({"17": JobState(RUNNING), "18": JobState(PENDING, "Resources")}, 1.0) == []
    assert states(table) == [STARTING, PENDING]
    assert [job.job for job in table.see_workers({"a": WorkerView("job0-1-0", 1, 50.0)}, 5.0)] == ["17"]
    assert states(table, 5.0) == [WORKING, PENDING]
    assert table.see_workers({"a": WorkerView("job0-1-0", 0, 46.0)}, 9.0) == []
    assert table.views(9.0)[0].idle == 4.0
    assert table.views(9.0)[0].left == 46.0
    assert [job.job for job in table.see_queue({"17": JobState(ENDED, "TIMEOUT")}, 60.0)] == ["17"]
    assert states(table, 60.0) == [PENDING]


def test_a_new_job_that_the_system_does_not_know_yet_has_not_ended(table):
    assert table.see_queue({"17": GONE, "18": JobState(ENDED, "FAILED")}, 1.0) == [table["job0-2"]]
    assert states(table) == [PENDING]
    assert table.see_queue({"17": GONE}, NEW_SECONDS) == [table["job0-1"]]


def test_a_worker_of_a_job_that_the_queue_still_takes_for_pending_is_a_worker(table):
    table.see_workers({"a": WorkerView("job0-1-0")}, 5.0)
    assert states(table, 5.0) == [WORKING, PENDING]


def test_numbers_of_jobs_are_not_mixed_up(table):
    table.add(SubmittedJob("job0-12", "19", 0.0))
    table.see_workers({"a": WorkerView("job0-12-0"), "b": WorkerView("job1-1-0")}, 5.0)
    assert states(table, 5.0) == [PENDING, PENDING, WORKING]


def test_a_worker_that_is_started_again_does_not_make_the_job_be_replaced(table):
    table.see_workers({"a": WorkerView("job0-1-0")}, 5.0)
    table.see_workers({}, 6.0)
    assert states(table, 7.0)[0] != LEAVING
    assert states(table, 7.0 + RESTART_SECONDS)[0] == LEAVING
    table.see_workers({"b": WorkerView("job0-1-0")}, 8.0)
    assert states(table, 8.0)[0] == WORKING


def test_a_job_whose_workers_all_said_that_they_leave_is_leaving(table):
    both = {"a": WorkerView("job0-1-0"), "b": WorkerView("job0-1-1")}
    table.see_workers(both, 5.0)
    table.announced("a")
    table.see_workers(both, 6.0)
    assert states(table, 6.0)[0] == WORKING
    table.announced("b")
    table.see_workers({"b": both["b"]}, 7.0)
    assert states(table, 7.0)[0] == LEAVING


def test_one_that_left_between_two_looks_is_leaving(table):
    table.see_workers({"a": WorkerView("job0-1-0")}, 5.0)
    table.announced("a")
    table.see_workers({}, 6.0)
    assert states(table, 6.0)[0] == LEAVING


@pytest.mark.parametrize(
    ("reason", "blameless"),
    [
        ("TIMEOUT", True),
        ("PREEMPTED", True),
        ("NODE_FAIL", True),
        ("CANCELLED by 1000", True),
        ("FAILED (exit code 1)", False),
        ("FAILED (signal 9)", False),
        ("OUT_OF_MEMORY", False),
        ("", False),
    ],
)
def test_who_is_to_blame(table, reason, blameless):
    table.see_workers({"a": WorkerView("job0-1-0", seconds=1000.0)}, 5.0)
    table.see_queue({"17": JobState(ENDED, reason)}, 6.0)
    assert table.is_blameless("a") is blameless
    assert not table.is_blameless("unknown")


def test_a_worker_near_its_end_or_one_that_said_so_is_blameless(table):
    table.see_workers({"a": WorkerView("job0-1-0", seconds=2.0), "b": WorkerView("job0-2-0")}, 5.0)
    table.announced("b")
    assert table.is_blameless("a")
    assert table.is_blameless("b")


def test_use(table):
    table.see_workers({"a": WorkerView("job0-1-0", seconds=0.0), "b": WorkerView("job0-2-0", seconds=9.0)}, 5.0)
    assert [job.useful for job in table.all] == [False, True]


def test_what_is_waited_for(table):
    table.add(SubmittedJob("job0-3", "19", 0.0))
    waits = {job: JobState(PENDING, "Resources") for job in ("17", "18", "19")}
    table.see_queue(waits, 0.0)
    assert table.words(0.0) == "3 jobs wait: Resources"
    table.see_queue({"17": JobState(RUNNING), "18": JobState(PENDING, "Priority"), "19": JobState(PENDING, "")}, 0.0)
    assert table.words(0.0) == "2 jobs wait: Priority; 1 job starts"
    table.see_workers({str(n): WorkerView(f"job0-{n}-0") for n in (1, 2, 3)}, 5.0)
    assert table.words(5.0) == ""
    assert table.workers == 3
    assert math.isinf(table.views(5.0)[0].left)
