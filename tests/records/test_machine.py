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
