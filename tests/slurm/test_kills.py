"""Whatever of a run on SLURM is killed: in the end everything is there exactly once, and nothing in the queue."""

from __future__ import annotations

import collections
import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TASKS = 120

SCRIPT = """
import sys

from ase.build import bulk

from mlipcluster import MLIPCluster
from mlipcluster.deploy.slurm import Slurm


def slow(atoms, calc):
    import time

    time.sleep(0.7)
    atoms.calc = calc
    atoms.get_potential_energy()
    return atoms


tasks = [bulk("Cu", a=3.5 + 0.001 * number) for number in range({tasks})]
cluster = Slurm(memory="1 GB", workers=2, grace=5, walltime="00:10:00", directives=["--spread-job"])
MLIPCluster(tasks, "emt", cluster=cluster, output_path=sys.argv[1], seed=1, progress=False).distribute(slow)
"""


def lines(folder):
    try:
        return [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    except (OSError, ValueError):  # not there yet, or a line is being written
        return []


def test_steps_a_node_s_slurmd_and_the_driver(slurm, tmp_path, until):
    folder, script = tmp_path / "run", tmp_path / "script.py"
    script.write_text(SCRIPT.format(tasks=TASKS))
    command = [sys.executable, "-W", "ignore", script, folder]
    with open(tmp_path / "printed", "w") as printed:
        driver = subprocess.Popen(command, stdout=printed, stderr=printed)
        try:
            until(lambda: len(lines(folder)) >= 4, 120)
            victim = slurm.running()[0]
            for process in slurm.processes():
                if process.environ()["SLURM_JOB_ID"] == victim:
                    process.kill()
            before = len(lines(folder))
            until(lambda: len(lines(folder)) >= before + 4, 60)
            said = folder / "logs" / "driver.log"
            until(lambda: said.read_text().count("workers joined") == 3, 90)  # it was replaced
            slurm.kill_daemon("slurmd-n2")
            before = len(lines(folder))
            until(lambda: len(lines(folder)) >= before + 4, 60)
        finally:
            driver.kill()
            driver.wait()
    assert 0 < len(lines(folder)) < TASKS
    slurm.up()
    until(lambda: not slurm.queue(), 60)  # without a driver workers end by themselves, and with them their jobs
    name = json.loads((folder / "jobs.jsonl").read_text().splitlines()[-1])["name"]
    slurm.tell("sbatch", f"--job-name={name}", "--begin=now+1hour", "--wrap=true")  # as one that had not begun
    assert slurm.queue()
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert not slurm.queue()
    told = collections.Counter((line["status"], line["slot"]) for line in lines(folder))
    assert len(told) == TASKS
    assert set(told.values()) == {1}
    assert {status for status, _ in told} == {"output"}
