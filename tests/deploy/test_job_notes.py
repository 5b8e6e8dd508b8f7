from __future__ import annotations

from dataclasses import replace

import pytest

from mlipcluster.deploy.job_notes import JobNotes, Note, cancel_left


class Queue:
    """What a batch system has, by name."""

    def __init__(self, **jobs):
        self.jobs = {name.replace("_", "-"): numbers for name, numbers in jobs.items()}
        self.cancelled = []

    def find(self, name):
        return self.jobs.get(name, [])

    def cancel(self, jobs):
        self.cancelled += jobs


@pytest.fixture
def notes(tmp_path):
    return JobNotes(tmp_path / "run" / "jobs.jsonl")


def of_another_driver(job, name="mlip-0", system="slurm"):
    return Note(job, name, system, "another")


def test_notes_are_kept_until_the_jobs_have_ended(notes, tmp_path):
    notes.add(Note("1", "mlip-0", "slurm"))
    notes.add(Note("2", "mlip-0", "slurm"))
    assert [note.job for note in notes.read()] == ["1", "2"]
    notes.forget({"1"})
    assert [note.job for note in notes.read()] == ["2"]
    notes.forget({"2"})
    assert not (tmp_path / "run" / "jobs.jsonl").exists()
    assert notes.read() == []


def test_a_line_that_a_crash_cut_off_is_passed_over(notes, tmp_path):
    notes.add(Note("1", "mlip-0", "slurm"))
    with open(tmp_path / "run" / "jobs.jsonl", "a") as file:
        file.write('{"job": "2", "na')
    assert [note.job for note in notes.read()] == ["1"]


def test_what_a_lost_driver_left_is_cancelled(notes):
    notes.add(of_another_driver("1"))
    queue = Queue(mlip_0=["1", "2"])  # the second was submitted, and the driver died before it could note that
    assert cancel_left(notes, queue, "mlip-0", "slurm") == ["1", "2"]
    assert queue.cancelled == ["1", "2"]
    assert notes.read() == []


def test_also_those_of_a_deployment_that_the_run_does_not_have_any_more(notes):
    notes.add(of_another_driver("1", "mlip-1"))
    assert cancel_left(notes, Queue(mlip_1=["1"]), "mlip-0", "slurm") == ["1"]


def test_a_number_that_was_given_to_somebody_else_since_is_left_alone(notes):
    notes.add(of_another_driver("1"))
    queue = Queue(somebody_s=["1"])
    assert cancel_left(notes, queue, "mlip-0", "slurm") == []
    assert queue.cancelled == []


def test_this_process_s_own_jobs_are_left_alone(notes):
    own = Note("5", "mlip-0", "slurm")
    notes.add(own)
    notes.add(replace(of_another_driver("1", "mlip-1")))
    queue = Queue(mlip_0=["5"], mlip_1=["1"])
    assert cancel_left(notes, queue, "mlip-1", "slurm") == ["1"]
    assert notes.read() == [own]


def test_another_system_s_jobs_are_kept_in_mind(notes):
    kept = of_another_driver("1", system="pbs")
    notes.add(kept)
    assert cancel_left(notes, Queue(mlip_0=[]), "mlip-0", "slurm") == []
    assert notes.read() == [kept]
