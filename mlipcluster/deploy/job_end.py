"""How long a job still has, by durations alone: a node's wall clock may be wrong."""

from __future__ import annotations

import math
import os
import re
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime

from mlipcluster.process import run_command

TIMEOUT = 20.0
"""Seconds that the batch system may take to say when the job ends."""


def seconds_left(walltime: float | None, environment: Mapping[str, str] = os.environ) -> float:
    """Seconds until this job ends; `math.inf` where nobody says.

    Parameters
    ----------
    walltime : float, optional
        What was asked for. A batch system that can say more is asked as well: the earlier end counts.
    """
    lasts = min(math.inf if walltime is None else walltime, slurm_lasts(environment))
    return lasts - age(int(environment.get("SLURM_TASK_PID") or os.getpid()))


def slurm_lasts(environment: Mapping[str, str]) -> float:
    """Seconds from start to end of this SLURM job; `math.inf` if it is none, or SLURM does not say.

    Both times are of the controller's clock, so their difference is right whatever clock is wrong. They are asked for
    in UTC: local time is an hour off when clocks are changed for summer or winter in between. See scontrol(1), which
    prints a job as ``Key=Value``.
    """
    job = environment.get("SLURM_JOB_ID")
    if not job:
        return math.inf
    try:
        answer = run_command(
            ["scontrol", "--oneliner", "show", "job", job],
            timeout=TIMEOUT,
            env={**environment, "TZ": "UTC0", "SLURM_TIME_FORMAT": "standard"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return math.inf
    return _between(answer.stdout)


def _between(text: str) -> float:
    times = {}
    for name in ("StartTime", "EndTime"):
        found = re.search(rf"\b{name}=(\S+)", text)
        try:
            times[name] = datetime.fromisoformat(found[1]) if found else None
        except ValueError:  # Unknown, N/A
            times[name] = None
    start, end = times["StartTime"], times["EndTime"]
    return math.inf if start is None or end is None else (end - start).total_seconds()


def age(pid: int) -> float:
    """Seconds since a process of this machine started, by its kernel's clock; 0.0 where that is not known.

    See proc_pid_stat(5): ``starttime`` is in clock ticks since the machine started.
    """
    try:
        with open(f"/proc/{pid}/stat") as file:
            started = int(file.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
