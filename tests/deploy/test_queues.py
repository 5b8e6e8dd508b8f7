"""What batch systems share: patience, and words passed on. Each system's commands: tests/contracts/test_batch.py."""

from __future__ import annotations

import os
import time

import pytest

from mlipcluster.deploy import queues
from mlipcluster.deploy.queues import JobState, Queue, failure, user_name
from mlipcluster.errors import RunError


class Some(Queue):
    """A system of one command, ``jobs``."""

    system = "Some"
    busy = ("try again",)
    uncertain = ("timed out",)
    unknown = ("no such job",)

    def submit(self, script, folder):
        return self._submit(["jobs", "submit"], script, folder).strip()

    def look(self, jobs):
        return {job: JobState(self._ask(["jobs", "look", job]).strip()) for job in jobs}

    def cancel(self, jobs):
        self._ask(["jobs", "cancel", *jobs])

    def find(self, name):
        return self._ask(["jobs", "find", name]).split()


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Write the command; ``$FOLDER/calls`` gets a line each time."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(queues, "PAUSE", 0.01)

    def write(body):
        path = tmp_path / "jobs"
        path.write_text(f"#!/bin/sh\necho called >>'{tmp_path}/calls'\ncount=$(wc -l <'{tmp_path}/calls')\n{body}\n")
        path.chmod(0o755)
        return lambda: len((tmp_path / "calls").read_text().splitlines())

    return write


def test_a_busy_system_is_asked_again(program, tmp_path):
    calls = program('[ "$count" -gt 2 ] || { echo "Try again later" >&2; exit 1; }\necho 7')
    assert Some().submit("script", tmp_path) == "7"
    assert calls() == 3


def test_in_the_end_it_is_told(program):
    calls = program('echo "timed out: try again" >&2; exit 1')
    with pytest.raises(RunError, match=r"Some does not answer: `jobs` says: timed out: try again\. See whether"):
        Some().find("x")
    assert calls() == queues.ATTEMPTS


def test_what_may_have_been_submitted_is_not_submitted_twice(program, tmp_path):
    calls = program('echo "Socket timed out" >&2; exit 1')
    with pytest.raises(RunError, match="Some refuses the job: `jobs` says: Socket timed out"):
        Some().submit("script", tmp_path)
    assert calls() == 1


def test_the_script_is_read_in_its_folder(program, tmp_path):
    program("pwd; cat")
    (tmp_path / "here").mkdir()
    assert Some().submit("the script", tmp_path / "here") == f"{tmp_path}/here\nthe script"


def test_jobs_that_it_does_not_know_are_no_error(program):
    program('echo "No such job 3" >&2; exit 1')
    Some().cancel(["3"])
    program('echo "No right to" >&2; exit 1')
    with pytest.raises(RunError, match="No right to"):
        Some().cancel(["3"])


def test_one_that_hangs_is_ended(program, monkeypatch):
    monkeypatch.setattr(queues, "TIMEOUT", 0.2)
    program("exec sleep 60")
    start = time.monotonic()
    with pytest.raises(RunError, match="took longer than 0 s"):
        Some().find("x")
    assert time.monotonic() - start < 30


def test_one_that_cannot_be_started_is_told(program, tmp_path):
    program("")
    (tmp_path / "jobs").write_text("#!/no/such/shell\n")
    with pytest.raises(RunError, match=r"Some does not answer: `jobs` cannot be started \(.*No such file"):
        Some().find("x")


def test_a_refusal_without_words_tells_the_status(program, tmp_path):
    program("exit 3")
    with pytest.raises(RunError, match=r"nothing \(status 3\)"):
        Some().submit("script", tmp_path)


def test_how_a_job_failed():
    assert failure(0) == "COMPLETED"
    assert failure(127) == "FAILED (exit code 127)"
    assert failure(137, 9) == "FAILED (signal 9)"


def test_who_we_are(monkeypatch):
    assert user_name()
    monkeypatch.setattr(os, "getuid", lambda: 987654321)
    assert user_name() == "987654321"
