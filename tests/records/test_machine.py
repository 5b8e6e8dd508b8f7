from __future__ import annotations

import json
import os
import platform
import sys

import pytest

from mlipcluster.records import machine
from mlipcluster.records.machine import describe_machine


@pytest.fixture(autouse=True)
def _fresh():
    machine._gpus.cache_clear()
    yield
    machine._gpus.cache_clear()


def test_what_it_tells(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    found = describe_machine()
    assert json.loads(json.dumps(found)) == found
    assert found["hostname"] == platform.node()
    assert found["python"] == platform.python_version()
    assert found["cores"]["total"] == os.cpu_count()
    assert found["threads"]["OMP_NUM_THREADS"] == "3"
    assert found["slurm"] == {"SLURM_JOB_ID": "42"}
    assert found["job"] == {"system": "slurm", "id": "42", "node": platform.node()}
    assert found["cpu"]


def _smi(tmp_path, monkeypatch, text):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!{sys.executable}\n{text}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_gpus_as_nvidia_smi_tells_them(tmp_path, monkeypatch):
    _smi(tmp_path, monkeypatch, "print('A100-SXM4-40GB, 40960 MiB, 550.1, GPU-1\\nT4, 16 MiB, 550.1, GPU-2')")
    gpus = describe_machine()["gpus"]
    assert [gpu["name"] for gpu in gpus] == ["A100-SXM4-40GB", "T4"]
    assert gpus[0] == {"name": "A100-SXM4-40GB", "memory": "40960 MiB", "driver": "550.1", "uuid": "GPU-1"}


@pytest.mark.parametrize("text", ["raise SystemExit(9)", "not python"])
def test_an_nvidia_smi_that_fails_is_no_gpu(tmp_path, monkeypatch, text):
    _smi(tmp_path, monkeypatch, text)
    assert describe_machine()["gpus"] == []


def test_no_nvidia_smi_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_machine()["gpus"] == []


@pytest.fixture
def no_job(monkeypatch):
    for names in machine.JOB_VARIABLES.values():
        for name in names.values():
            monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("_CONDOR_JOB_AD", raising=False)


def test_outside_of_batch_systems_there_is_no_job(no_job, monkeypatch, tmp_path):
    assert describe_machine()["job"] == {}
    monkeypatch.setenv("JOB_ID", "12")  # anybody may set that
    assert describe_machine()["job"] == {}
    monkeypatch.setenv("_CONDOR_JOB_AD", str(tmp_path / "none"))
    assert describe_machine()["job"] == {}
    (tmp_path / "none").write_text("Other = 3\n")
    assert describe_machine()["job"] == {}


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        (
            {"SLURM_JOB_ID": "5", "SLURM_ARRAY_JOB_ID": "4", "SLURM_ARRAY_TASK_ID": "1", "SLURMD_NODENAME": "n1"}
            | {"SLURM_JOB_PARTITION": "gpu"},
            {"system": "slurm", "id": "5", "array": "4", "task": "1", "node": "n1", "queue": "gpu"},
        ),
        ({"PBS_JOBID": "5.server", "PBS_QUEUE": "work"}, {"system": "pbs", "id": "5.server", "queue": "work"}),
        ({"MOAB_JOBID": "Moab.5", "PBS_JOBID": "7.server"}, {"system": "moab", "id": "Moab.5"}),
        ({"LSB_JOBID": "5", "LSB_JOBINDEX": "0", "LSB_QUEUE": "q"}, {"system": "lsf", "id": "5", "queue": "q"}),
        ({"LSB_JOBID": "5", "LSB_JOBINDEX": "3"}, {"system": "lsf", "id": "5", "task": "3"}),
        ({"OAR_JOB_ID": "5", "OAR_ARRAY_ID": "5"}, {"system": "oar", "id": "5", "array": "5"}),
        ({"JOB_ID": "5", "SGE_TASK_ID": "undefined", "QUEUE": "all.q"}, {"system": "sge", "id": "5", "queue": "all.q"}),
        ({"JOB_ID": "5", "SGE_TASK_ID": "2"}, {"system": "sge", "id": "5", "task": "2"}),
    ],
)
def test_the_job_of_a_batch_system(no_job, monkeypatch, variables, told):
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    assert describe_machine()["job"] == {"node": platform.node(), **told}


def test_condor_tells_in_a_file(no_job, monkeypatch, tmp_path):
    file = tmp_path / "job ad"
    file.write_text('Cmd = "/bin/sh"\nClusterId = 12\nProcId = 3\nArgs = "ClusterId = 7"\n')
    monkeypatch.setenv("_CONDOR_JOB_AD", str(file))
    assert describe_machine()["job"] == {"system": "htcondor", "id": "12.3", "node": platform.node()}
