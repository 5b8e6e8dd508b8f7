"""Dynamics that last longer than the jobs in which they run, on a real SLURM.

``MLIPCLUSTER_TEST_MD_STEPS=2500`` makes them a minute long; docs/benchmarks.md has what was measured so.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time

import pytest
from ase.build import bulk

from mlipcluster import MLIPCluster
from mlipcluster.outputs.results import Results
from mlipcluster.protocols import md

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WALLTIME = 20
STEPS = int(os.environ.get("MLIPCLUSTER_TEST_MD_STEPS", "1000"))
WARNINGS = 4


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The same dynamics, uninterrupted on this machine: its digest, and how long it took."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    run = MLIPCluster([_task()], "emt", output_path=folder, seed=7, max_workers=1, progress=False)
    return _told(run.distribute(md))


def _task():
    return {"atoms": bulk("Cu", cubic=True) * (3, 3, 3), "steps": STEPS, "save_every": 50}


def _told(results: Results) -> tuple[str, float, int]:
    assert not results.failures
    (output,) = results.outputs
    metadata = output.record["metadata"]
    (times,) = [metadata["times"]]
    return metadata["result"]["digest"], sum(times["seconds"]), len(times.get("parts", ()))


def test_dynamics_outlast_their_jobs(slurm, slurm_jobs, on_slurm, plain):
    digest, seconds, _ = plain
    begun = time.monotonic()
    with on_slurm([_task()], slurm_jobs(walltime=WALLTIME, workers=(0, 1)), calculator="emt") as run:
        told, took, parts = _told(run.distribute(md))
    whole = time.monotonic() - begun
    print(f"plain {seconds:.1f} s, in jobs {took:.1f} s in {parts} parts, {whole:.1f} s in all")
    assert told == digest
    assert parts > 1


def test_dynamics_outlast_jobs_that_are_told_to_end(slurm, slurm_jobs, on_slurm, plain, tmp_path):
    over, warned = threading.Event(), []

    def disturb():
        """At random moments, but not so often that no job gets further than to its start."""
        chance, known = random.Random(1), set()
        while len(warned) < WARNINGS and not over.wait(0.2):
            if (saves := _saves(tmp_path / "run")) <= known:
                continue
            known |= saves
            over.wait(chance.uniform(0, 3))
            warned.append(slurm.running())
            for job in warned[-1]:
                slurm.tell("scancel", "--signal=TERM", "--full", job)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        with on_slurm([_task()], slurm_jobs(workers=(0, 2)), calculator="emt") as run:
            told, _, parts = _told(run.distribute(md))
    finally:
        over.set()
        thread.join()
    print(f"{parts} parts, told to end {len(warned)} times")
    assert told == plain[0]
    assert parts > 1


def _saves(folder):
    found = set()
    for path in (folder / "checkpoints").rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # replaced meanwhile
            found.add((path.name, path.stat().st_mtime_ns))
    return found
