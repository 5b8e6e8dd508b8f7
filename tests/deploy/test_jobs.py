"""Jobs whose batch system is a stand-in: each script is a process of this machine, started at once."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import psutil
import pytest

from mlipcluster.deploy import ending
from mlipcluster.deploy.batch import Batch
from mlipcluster.deploy.deployment import Demand
from mlipcluster.deploy.job_notes import JobNotes, Note
from mlipcluster.deploy.queues import ENDED, PENDING, RUNNING, JobState, Queue
from mlipcluster.errors import RunError

pytestmark = pytest.mark.timeout(300)


@dataclass
class Processes(Queue):
    """A batch system of sorts."""

    system: ClassVar[str] = "the stand-in"
    room: int = 100
    refused: int = 0
    processes: dict[str, subprocess.Popen] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)
    left: dict[str, list[str]] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)

    def submit(self, script, folder):
        if len(self.processes) >= self.room:
            self.refused += 1
            raise RunError("the stand-in refuses the job: too many.")
        job = str(len(self.processes) + 100)
        log = script.rpartition("# ")[2].strip().replace("JOB", job)
        with open(log if Path(log).parent.is_dir() else os.devnull, "w") as out:
            self.processes[job] = subprocess.Popen(
                ["bash", "-c", script], cwd=folder, stdout=out, stderr=out, start_new_session=True
            )
        return job

    def look(self, jobs):
        return {job: self._state(job) for job in jobs}

    def _state(self, job):
        if job in self.pending:
            return JobState(PENDING, "Resources")
        status = self.processes[job].poll()
        if status is None:
            return JobState(RUNNING, node="here")
        return JobState(
            ENDED, "CANCELLED" if job in self.cancelled else f"FAILED ({status})" if status else "COMPLETED"
        )

    def cancel(self, jobs):
        for job in jobs:
            self.cancelled.append(job)
            if job in self.processes and self.processes[job].poll() is None:
                self.processes[job].terminate()

    def find(self, name):
        return self.left.get(name, [])


@dataclass(frozen=True, kw_only=True)
class Here(Batch):
    """Workers in its jobs."""

    kind: ClassVar[str] = "here"
    jobqueue_class: ClassVar[str] = ""
    queue_: Processes = field(default_factory=Processes, compare=False)

    @property
    def system(self):
        return self.queue_

    def script(self, command, *, name, logs):
        words = " ".join(f"'{word}'" for word in command)
        return f"{'; '.join([*self.prologue, f'exec {words}'])} # {self.log(logs, name, 'JOB')}"

    def _own_directives(self, name, logs):
        return []


@pytest.fixture
def crew(place, tmp_path, monkeypatch):
    """Start a crew: ``crew(demand, **fields) -> JobCrew``; at the end nothing of it is left."""
    crews = []
    monkeypatch.setattr("mlipcluster.deploy.jobs.HEARD_SECONDS", 600.0)  # a demand is told once here

    def make(calls=2, **fields):
        usual = {"host": "127.0.0.1", "workers": (0, 2), "grace": 30, "scratch": str(tmp_path / "scratch")}
        batch = Here(**{**usual, **fields})
        made = batch.start(place)
        made.batch = batch
        crews.append(made)
        made.want(Demand(calls))
        return made

    yield make
    for one in crews:
        one.close()
        assert all(process.poll() is not None for process in one.batch.queue_.processes.values())
        assert not place.jobs.exists()
        assert not place.private.exists()
        assert not list((tmp_path / "scratch").glob("*"))


def until(done, seconds=120.0):
    begun = time.monotonic()
    while not (found := done()):
        assert time.monotonic() - begun < seconds
        time.sleep(0.1)
    return found


def look_around():
    names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "TMPDIR")
    return {**{name: os.environ.get(name) for name in names}, "pid": os.getpid()}


def test_each_worker_of_a_job_has_its_own_device_and_its_share_of_cores(crew, tmp_path):
    one = crew(2, gpus=2, cores=6)
    assert one.resources() == [{"GPU": 1.0}]
    until(lambda: one.slots() == 2)
    told = list(one.client.run(look_around).values())
    assert sorted(worker["CUDA_VISIBLE_DEVICES"] for worker in told) == ["0", "1"]
    assert {worker["OMP_NUM_THREADS"] for worker in told} == {"3"}
    assert all(Path(worker["TMPDIR"]).is_relative_to(tmp_path / "scratch") for worker in told)
    assert len({worker["pid"] for worker in told}) == 2
    assert len(one.batch.queue_.processes) == 1
    for resources in one.resources():
        assert resources["GPU"] == 1
        assert 1000 < resources["seconds"] < 1800


def slow_call(path):
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(4)
    return os.getpid()


def test_a_job_that_is_told_to_end_finishes_what_runs_and_is_replaced(crew, tmp_path):
    one = crew(2, workers=(0, 1))
    until(lambda: one.slots() == 1)
    (address,) = one.client.nthreads()
    begun = [tmp_path / "first", tmp_path / "second"]
    first, second = (one.client.submit(slow_call, str(path), pure=False) for path in begun)
    until(begun[0].exists)
    (job,) = one.batch.queue_.processes.values()
    os.killpg(job.pid, signal.SIGTERM)
    pids = [first.result(120)]
    first.release()  # as a run does, which has it now
    pids.append(second.result(120))
    assert [path.read_text().split() for path in begun] == [[str(pid)] for pid in pids], "begun twice, or on the way"
    assert pids[0] != pids[1]
    assert one.is_blameless(address)
    assert job.wait(60) == 0
    assert len(one.batch.queue_.processes) == 2
    one.look_after()


def test_a_worker_that_dies_is_started_again_in_its_job(crew, monkeypatch):
    for name in ("job_table.RESTART_SECONDS", "jobs.GONE_SECONDS"):
        monkeypatch.setattr(f"mlipcluster.deploy.{name}", 600.0)  # a busy machine is slow at it
    one = crew(1, workers=(0, 1))
    until(lambda: one.slots() == 1)
    ((address, told),) = one.client.run(look_around).items()
    os.kill(told["pid"], signal.SIGKILL)
    until(lambda: [a for a in one.client.nthreads() if a != address])
    assert len(one.batch.queue_.processes) == 1


def test_a_job_near_its_end_is_replaced_and_leaves_nothing(crew, tmp_path):
    one = crew(1, workers=(0, 1), walltime=600)
    until(lambda: one.slots() == 1)
    (first,) = one.batch.queue_.processes.values()
    children = psutil.Process(first.pid).children(recursive=True)
    assert children
    (told,) = tmp_path.glob("scratch/*/ending")
    ending.announce(told, 45.0)  # as if it had run for all but that; in the last 30 its worker takes no more work
    until(lambda: len(one.batch.queue_.processes) == 2)
    assert first.wait(60) == 0
    assert psutil.wait_procs(children, timeout=30)[1] == []
    assert not told.exists()


def test_what_an_earlier_driver_left_is_cancelled_before_anything_is_submitted(crew, place):
    name = f"mlipcluster-{place.token}-0"
    JobNotes(place.jobs).add(Note("7", name, "here", "another"))
    queue = Processes(left={name: ["7", "8"]})
    one = crew(0, queue_=queue)
    assert queue.cancelled == ["7", "8"]
    assert one.found == "Cancelled 2 jobs that an earlier driver had left: 7, 8."
    assert one.waiting() == ""
    assert not queue.processes


def test_a_queue_that_takes_no_more_is_no_failure_while_jobs_are_there(crew):
    one = crew(5, workers=(0, 2), queue_=Processes(room=1))
    until(lambda: one.slots() == 1)
    until(lambda: "too many" in one.waiting())
    one.look_after()


def test_nor_while_those_that_it_took_wait(crew, monkeypatch):
    """However long: it answers."""
    for name, seconds in {"jobs.UNKNOWN_SECONDS": 6, "jobs.LOOK_OFTEN": 5, "scaling.LONGEST_PAUSE": 8}.items():
        monkeypatch.setattr(f"mlipcluster.deploy.{name}", seconds)
    queue = Processes(room=1, pending={"100"})
    one = crew(5, prologue=["exec sleep 600"], queue_=queue)
    until(lambda: queue.refused == 4 or one._error)
    one.look_after()
    queue.pending.clear()


def test_a_queue_that_takes_none_is(crew):
    one = crew(1, queue_=Processes(room=0))
    until(lambda: one._error)
    with pytest.raises(RunError, match="too many"):
        one.look_after()


def test_jobs_that_die_while_another_works_end_no_run(crew):
    """A bad node takes one job after the other, as none is as fast."""
    one = crew(5, workers=(0, 5), prologue=["mkdir first || exit 3"])
    until(lambda: one.slots() == 1)
    one.look_after()
    until(lambda: len(one.batch.queue_.processes) > 5)  # others are tried, now that one works
    one.look_after()


def test_a_log_that_is_not_there_means_a_folder_that_nodes_do_not_see(crew, place):
    one = crew(1, workers=(0, 1), prologue=[f"rm -r '{place.logs}'", "exit 1"])
    until(lambda: one._error, 60)
    with pytest.raises(RunError, match="the nodes do not see that folder; choose an output_path"):
        one.look_after()


@dataclass
class Unsure(Processes):
    """Says of every job but the first that it was not submitted, although it was."""

    def submit(self, script, folder):
        job = super().submit(script, folder)
        if self.left:
            self.left["mlipcluster-000000000000-0"].append(job)
            raise RunError("the stand-in does not answer.")
        self.left["mlipcluster-000000000000-0"] = []
        return job


def test_a_job_that_was_submitted_although_nobody_said_so_is_cancelled_at_the_end(crew):
    queue = Unsure()
    one = crew(2, prologue=["exec sleep 600"], queue_=queue)
    until(lambda: len(queue.processes) == 2)
    one.close()
    assert queue.processes["101"].wait(20) == -signal.SIGTERM


@dataclass
class Silent(Unsure):
    """Says of no job that it was submitted, and then nothing for a while."""

    silent: bool = True

    def submit(self, script, folder):
        self.left["mlipcluster-000000000000-0"] = []
        return super().submit(script, folder)

    def find(self, name):
        if self.processes and self.silent:
            raise RunError("the stand-in does not answer.")
        return super().find(name)


def test_a_job_that_nobody_can_look_for_at_the_end_is_warned_of(crew):
    queue = Silent()
    one = crew(1, prologue=["exec sleep 600"], queue_=queue)
    until(lambda: one._error is not None)
    with pytest.warns(UserWarning, match="left in the queue: one named mlipcluster-000000000000-0; the stand-in"):
        one.close()
    queue.silent = False  # which has the fixture's own end take it away


def test_what_waits_is_said_and_taken_away_at_the_end(crew):
    queue = Processes(pending={"100", "101"})
    one = crew(2, prologue=["exec sleep 60"], queue_=queue)
    until(lambda: one.waiting() == "2 jobs wait: Resources")
    queue.pending.clear()
