"""Whole runs in jobs of a real SLURM, over TLS."""

from __future__ import annotations

import time

import pytest
from ase.build import bulk

from mlipcluster import reproduce
from mlipcluster.deploy.deployment import Demand

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def squeezed(atoms, calc):
    atoms.set_cell(0.99 * atoms.cell, scale_atoms=True)
    atoms.calc = calc
    atoms.info["squeezed"] = atoms.get_potential_energy()
    return atoms


def shaken(atoms, calc, rng):
    atoms.positions += rng.normal(scale=0.01, size=atoms.positions.shape)
    atoms.calc = calc
    atoms.get_forces()
    return atoms


def copper(count):
    return [bulk("Cu", cubic=True, a=3.5 + 0.001 * number) for number in range(count)]


def jobs_of(outputs):
    return [output.record["metadata"]["machine"]["slurm"] for output in outputs]


def test_two_protocols_from_zero_workers_and_back(slurm, slurm_jobs, on_slurm, until, tmp_path):
    begun = time.monotonic()
    with on_slurm(copper(200), slurm_jobs(idle_timeout=2), calculator="emt") as run:
        assert not slurm.queue()
        outputs, first = [], None
        for output in run.generate(squeezed, shaken):
            first = first or time.monotonic() - begun
            outputs.append(output)
        print(f"first of {len(outputs)} results after {first:.1f} s")
        run._workers.want([Demand()])
        until(lambda: not slurm.queue())  # the run is still open: its workers were given back as there is no work
    told = jobs_of(outputs)
    assert len(outputs) == 200
    assert {job["SLURMD_NODENAME"] for job in told} <= {"n1", "n2"}
    assert all(job["SLURM_JOB_ID"].isdigit() for job in told)
    assert not list((tmp_path / "run" / "failures").glob("*"))
    assert not (tmp_path / "run" / "jobs.jsonl").exists()
    assert not (tmp_path / "run" / "private").exists()
    audit = reproduce(input_file=outputs[7].path)
    assert audit.verdict == "identical"


def test_protocols_go_to_the_partition_that_they_were_sent_to(slurm, slurm_jobs, on_slurm):
    gpu = slurm_jobs(queue="gpu", gpus=2, processes_per_gpu=2, workers=(0, 4))
    cpu = slurm_jobs(queue="cpu", workers=(0, 1))

    def on_gpu(atoms):
        import os
        import time

        time.sleep(0.5)
        atoms.info["device"] = os.environ["CUDA_VISIBLE_DEVICES"]
        atoms.info["process"] = os.getppid()
        return atoms

    def on_cpu(atoms):
        atoms.info["second"] = True
        return atoms

    with on_slurm(copper(12), gpu, cpu, save_all=True) as run:
        results = run.distribute(on_gpu, on_cpu, clients_indices=[0, 1], resources=[{"GPU": 1}, None])
    nodes = {}
    for output in results.outputs:
        name = output.record["metadata"]["protocols"][output.record["metadata"]["step"]]["name"].rpartition(".")[2]
        nodes.setdefault(name, set()).add(output.record["metadata"]["machine"]["slurm"]["SLURMD_NODENAME"])
    assert nodes == {"on_gpu": {"n1"}, "on_cpu": {"n2"}}
