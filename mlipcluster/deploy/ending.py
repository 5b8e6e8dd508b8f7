"""When this process's job ends: told once by whoever starts a job's workers, read by all that runs below it.

Times are of `time.monotonic`, which all processes of a machine share and no clock that is set wrong can move. A file
holds the one number, so that it can be brought forward when a preemption is announced; the variable
:data:`VARIABLE` names the file.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

VARIABLE = "MLIPCLUSTER_ENDING"


def announce(path: Path, seconds: float) -> None:
    """Write that the job ends in so many seconds from now (`math.inf`: nobody knows)."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(repr(time.monotonic() + seconds))
    beside.replace(path)


def remaining() -> float:
    """Seconds until this process's job ends; `math.inf` where nobody told."""
    path = os.environ.get(VARIABLE)
    if path is None:
        return math.inf
    try:
        with open(path) as file:
            return float(file.read()) - time.monotonic()
    except (OSError, ValueError):
        return math.inf
