"""Whole runs in scripts of their own: how they end, what they leave, and what the same script does next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from mlipcluster import Results
from mlipcluster.outputs.ledger import Ledger
from mlipcluster.outputs.output import read_output

HEAD = """
import os, sys, time
from ase.build import bulk
from mlipcluster import MLIPCluster
from mlipcluster.protocols import single_point

def slow(atoms, calc, rng):
    time.sleep(0.1)
    atoms.rattle(0.05, rng=rng)
    return single_point(atoms, calc)

def tasks(count):
    for number in range(count):
        yield {"atoms": bulk("Cu", a=3.5 + 0.001 * number)}

"""


class Script:
    """A script without ``if __name__ == "__main__"``, in a folder of its own."""

    def __init__(self, folder, text):
        self.folder = folder
        self.file = folder / "script.py"
        self.file.write_text(HEAD + textwrap.dedent(text))

    @property
    def run_folder(self):
        return self.folder / "run"

    def start(self, *arguments):
        return subprocess.Popen(
            [sys.executable, self.file, *arguments],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "SCRIPT_OF": str(self.folder)},
        )

    def run(self, *arguments):
        with self.start(*arguments) as process:
            said, _ = process.communicate(timeout=240)
        return process.returncode, said

    def lines(self):
        path = self.run_folder / "ledger.jsonl"
        return len(path.read_bytes().splitlines()) if path.exists() else 0

    def wait_for_lines(self, count, process):
        for _ in range(1200):
            if self.lines() >= count:
                return
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.1)
        raise AssertionError("the script does not get on")

    def left_behind(self):
        """Processes of the script that are still there, after a while; they are told by an environment variable."""
        for _ in range(150):
            left = [process for process in psutil.process_iter() if self._is_ours(process)]
            if not left:
                return []
            time.sleep(0.1)
        return [" ".join(process.cmdline()) for process in left]

    def _is_ours(self, process):
        try:
            environment = process.environ()
            return environment.get("SCRIPT_OF") == str(self.folder) and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


@pytest.fixture
def script(tmp_path):
    return lambda text: Script(tmp_path, text)


RUN = """
results = MLIPCluster(tasks(60), "emt", output_path="run", seed=7, max_workers=2).distribute(slow)
print(results.counts)
"""


@pytest.mark.slow
def test_a_script_without_a_main_guard(script):
    it = script(RUN)
    status, said = it.run()
    assert (status, it.left_behind()) == (0, [])
    assert "{'output': 60, 'failed': 0, 'empty': 0}" in said
    assert "60 done" in said


def test_an_interrupted_script_keeps_what_is_done_and_goes_on(script):
    it = script(RUN)
    with it.start() as process:
        it.wait_for_lines(5, process)
        process.send_signal(signal.SIGINT)  # to the driver alone, as a notebook does
        said, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert it.left_behind() == []
    before = {entry["slot"]: entry["finished"] for entry in Ledger(it.run_folder / "ledger.jsonl").entries()}
    assert 5 <= len(before) < 60
    status, said = it.run()
    assert status == 0, said
    results = Results.open(it.run_folder)
    assert results.counts == {"output": 60, "failed": 0, "empty": 0}
    after = {entry["slot"]: entry["finished"] for entry in results.entries}
    assert all(after[slot] == time for slot, time in before.items())
    assert it.lines() == 60  # none was done twice


@pytest.mark.slow
def test_an_interrupted_terminal_leaves_nothing_either(script):
    """Ctrl-C goes to the whole group of the terminal."""
    it = script(RUN)
    with it.start() as process:
        it.wait_for_lines(1, process)
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=120)
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert it.left_behind() == []
    assert Results.open(it.run_folder).counts["failed"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_script_leaves_nothing_and_goes_on(script, number):
    it = script(RUN.replace("60", "12"))
    with it.start() as process:
        it.wait_for_lines(2, process)
        process.send_signal(number)
        process.communicate(timeout=120)
    assert it.left_behind() == []
    status, said = it.run()
    assert status == 0, said
    assert Results.open(it.run_folder).counts == {"output": 12, "failed": 0, "empty": 0}
    assert it.lines() == 12


WAYS = """
import gc, psutil

def cluster():
    return MLIPCluster(tasks(8), "emt", output_path=f"run-{way.__name__}", max_workers=2, progress=False)

def distributed():
    cluster().distribute(slow)

def generated():
    for output in cluster().generate(slow):
        pass

def broken_off():
    for output in cluster().generate(slow):
        break

def closed():
    outputs = cluster().generate(slow)
    next(outputs)
    outputs.close()

def left_in_with():
    with cluster() as c:
        outputs = c.generate(slow)
        next(outputs)

def never_begun():
    outputs = cluster().generate(slow)

def error_in_the_loop():
    try:
        for output in cluster().generate(slow):
            1 / 0
    except ZeroDivisionError:
        pass

def error_in_with():
    try:
        with cluster() as c:
            for output in c.generate(slow):
                1 / 0
    except ZeroDivisionError:
        pass

def forgotten():
    global outputs
    outputs = cluster().generate(slow)
    next(outputs)

for way in (distributed, generated, broken_off, closed, left_in_with, never_begun, error_in_the_loop, error_in_with):
    way()
    gc.collect()
    for _ in range(200):
        children = [p for p in psutil.Process().children(recursive=True) if p.status() != "zombie"]
        if not children:
            break
        time.sleep(0.1)
    print(way.__name__, [p.cmdline() for p in children], flush=True)
way = forgotten
way()
print("well")
"""


@pytest.mark.slow
def test_whatever_way_a_run_ends_no_process_is_left(script):
    it = script(WAYS)
    status, said = it.run()
    assert status == 0, said
    assert it.left_behind() == []
    lines = said.splitlines()
    assert lines[8] == "well"
    assert all(line.endswith(" []") for line in lines[:8]), said


OWN_ERROR = """
class TooHot(Exception):
    def __init__(self, kelvin, where):
        super().__init__(f"{kelvin} K in {where}")
        self.kelvin = kelvin

def hot(atoms):
    raise TooHot(2000, "gold")

try:
    MLIPCluster(tasks(3), output_path="run", max_workers=1, progress=False, ignore_errors=False).distribute(hot)
except TooHot as error:
    print("caught", error.kelvin, error)
"""


def test_an_exception_of_the_scripts_own_is_caught_as_what_it_is(script):
    it = script(OWN_ERROR)
    status, said = it.run()
    assert status == 0, said
    assert "caught 2000 2000 K in gold" in said
    assert it.left_behind() == []
    assert Results.open(it.run_folder).counts["failed"] >= 1


SIZES = """
MLIPCluster(tasks(10), "emt", output_path=f"run{sys.argv[1]}", seed=7, max_workers=int(sys.argv[1]), progress=False,
            ).distribute(slow)
"""


@pytest.mark.slow
def test_the_number_of_workers_does_not_show(script):
    it = script(SIZES)
    found = []
    for workers in ("1", "3"):
        status, said = it.run(workers)
        assert status == 0, said
        entries = Ledger(it.folder / f"run{workers}" / "ledger.jsonl").entries()
        found.append({entry["slot"]: entry["result_digest"] for entry in entries})
    assert found[0] == found[1]
    assert len(found[0]) == 10


WORKER_KILLED = """
import signal

def deadly(atoms, path):
    if not os.path.exists(path):
        open(path, "w").close()
        os.kill(os.getppid(), signal.SIGKILL)  # the Dask worker
    return atoms

todo = [{"atoms": bulk("Cu", a=3.5 + 0.01 * n), "path": "once"} for n in range(8)]
results = MLIPCluster(todo, output_path="run", max_workers=2, progress=False).distribute(deadly)
print(results.counts)
"""


def test_a_dask_worker_that_dies_costs_nothing(script):
    it = script(WORKER_KILLED)
    status, said = it.run()
    assert status == 0, said
    assert "{'output': 8, 'failed': 0, 'empty': 0}" in said
    assert it.lines() == 8
    assert it.left_behind() == []


def test_what_came_back_is_saved_when_the_tasks_break_off(tmp_path):
    script = Script(
        tmp_path,
        """
        from pathlib import Path

        def marked(atoms, calc, rng, mark):
            result = slow(atoms, calc, rng)
            Path(mark).touch()
            return result

        def breaking():
            marks = [Path(f"{number}.done").absolute() for number in range(6)]
            yield from ({**task, "mark": str(mark)} for task, mark in zip(tasks(6), marks))
            known = 0
            while not known or sum(mark.exists() for mark in marks) > known:  # finished, and nobody has taken them
                known = sum(mark.exists() for mark in marks)
                time.sleep(3)
            raise OSError("the disk with the structures is gone")

        MLIPCluster(breaking, "emt", output_path="run", max_workers=1, progress=False, seed=1).distribute(marked)
        """,
    )
    status, text = script.run()
    assert status == 1
    assert "OSError: the disk with the structures is gone" in text
    assert script.lines() == len(list(tmp_path.glob("*.done")))


WALK = """
def walk(atoms, calc, rng, checkpoint):
    done = 0
    if (found := checkpoint.load()) is not None:
        atoms, done = found
    atoms.calc = calc
    while done < 40:
        done += 1
        print(done)
        time.sleep(0.25 * os.path.exists(os.environ["SCRIPT_OF"] + "/slow"))
        atoms.positions += 0.1 * atoms.get_forces() + rng.normal(0, 0.05, atoms.positions.shape)
        checkpoint.save(atoms, done)
    return single_point(atoms, calc)

MLIPCluster(bulk("Cu", cubic=True), "emt", output_path=sys.argv[1], seed=7, max_workers=1).distribute(walk)
"""


@pytest.mark.slow
def test_a_lost_driver_goes_on_from_what_a_call_had_saved(script):
    it = script(WALK)
    assert it.run("plain")[0] == 0
    (it.folder / "slow").touch()
    with it.start("run") as process:
        for _ in range(1200):
            if any((it.run_folder / "checkpoints").glob("*.json")):
                break
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.1)
        process.kill()
        process.wait()
    assert it.left_behind() == []
    (it.folder / "slow").unlink()
    assert it.run("run")[0] == 0
    (plain,), (again,) = (Ledger(it.folder / name / "ledger.jsonl").entries() for name in ("plain", "run"))
    assert again["result_digest"] == plain["result_digest"]
    record = read_output(it.run_folder / again["file"]).record
    assert len(record["metadata"]["times"]["parts"]) == 2
    assert "\n40\n" in record["metadata"]["printed"]
    assert not record["metadata"]["printed"].startswith("1\n")
    assert list((it.run_folder / "checkpoints").iterdir()) == []
