"""The machine a call ran on."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

from mlipcluster.process import run_command

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
    "MKL_CBWR",
)
SLURM_VARIABLES = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_NODELIST", "SLURMD_NODENAME")
JOB_VARIABLES = {
    "slurm": {
        "id": "SLURM_JOB_ID",
        "array": "SLURM_ARRAY_JOB_ID",
        "task": "SLURM_ARRAY_TASK_ID",
        "node": "SLURMD_NODENAME",
        "queue": "SLURM_JOB_PARTITION",
    },
    "moab": {"id": "MOAB_JOBID", "task": "MOAB_JOBARRAYINDEX", "queue": "MOAB_CLASS"},
    "pbs": {"id": "PBS_JOBID", "array": "PBS_ARRAY_ID", "task": "PBS_ARRAY_INDEX", "queue": "PBS_QUEUE"},
    "lsf": {"id": "LSB_JOBID", "task": "LSB_JOBINDEX", "queue": "LSB_QUEUE"},
    "oar": {"id": "OAR_JOB_ID", "array": "OAR_ARRAY_ID", "task": "OAR_ARRAY_INDEX"},
    "sge": {"id": "JOB_ID", "task": "SGE_TASK_ID", "queue": "QUEUE"},
}
"""What batch systems tell their jobs, and in which variables; of these the first that is set counts.

Moab comes before PBS, in whose jobs its own run; Grid Engine comes last, because its variable has so plain a name.
"""
NO_TASK = {"", "undefined", "0"}
"""What stands where a job is of no array."""


def describe_machine() -> dict[str, Any]:
    """Describe this machine and process, as a JSON object.

    Returns
    -------
    dict
        ``hostname``, ``system``, ``kernel``, ``architecture``, ``cpu`` (its model's name), ``cores`` (this process
        may use, and in all), ``memory`` (bytes, or None), ``libc``, ``python``, ``implementation``, ``threads``
        (the variables that set thread counts and devices, where set), ``gpus`` (name, memory and driver, as
        ``nvidia-smi`` tells them), ``job`` (of a batch system: ``system``, ``id``, ``node``, and where there are such
        ``array``, ``task`` and ``queue``; empty where there is none) and ``slurm`` (SLURM's own variables).
    """
    return {
        **_fixed(),
        "cores": {"usable": _usable_cores(), "total": os.cpu_count()},
        "gpus": list(_gpus()),
        "threads": _set_variables(THREAD_VARIABLES),
        "job": _job(),
        "slurm": _set_variables(SLURM_VARIABLES),
    }


def _job() -> dict[str, str]:
    """The job of a batch system that this process runs in; without a variable for it, the node is this host."""
    for system, names in JOB_VARIABLES.items():
        told = {key: text for key, name in names.items() if (text := os.environ.get(name, "")) not in NO_TASK}
        if "id" in told and (system != "sge" or names["task"] in os.environ):
            return {"system": system, "node": platform.node(), **told}
    return _condor_job()


def _condor_job() -> dict[str, str]:
    """HTCondor tells in a file: its lines are ``Name = value``."""
    path = os.environ.get("_CONDOR_JOB_AD")
    if not path:
        return {}
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    told = dict(re.findall(r"(?m)^(ClusterId|ProcId) = (\d+)$", text))
    if "ClusterId" not in told:
        return {}
    return {"system": "htcondor", "node": platform.node(), "id": f"{told['ClusterId']}.{told.get('ProcId', '0')}"}


@lru_cache(maxsize=1)
def _fixed() -> dict[str, Any]:
    uname = platform.uname()
    return {
        "hostname": uname.node,
        "system": uname.system,
        "kernel": uname.release,
        "architecture": uname.machine,
        "cpu": _cpu_model(),
        "memory": _memory(),
        "libc": " ".join(part for part in platform.libc_ver() if part),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip().lower() in {"model name", "cpu model", "hardware"}:
                return value.strip()
    except OSError:
        pass
    return platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _usable_cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _set_variables(names: tuple[str, ...]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


@lru_cache(maxsize=1)
def _gpus() -> tuple[dict[str, str], ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = "--query-gpu=name,memory.total,driver_version,uuid"
    try:
        done = run_command([program, query, "--format=csv,noheader"], timeout=5.0)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    if done.returncode:
        return ()
    names = ("name", "memory", "driver", "uuid")
    rows = (line.split(",") for line in done.stdout.splitlines() if line.strip())
    return tuple(dict(zip(names, (cell.strip() for cell in row), strict=False)) for row in rows)
