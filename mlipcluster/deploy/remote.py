"""The far end of an SSH connection: starts a host's workers, and ends them when the connection ends.

What it is to do, the workers' credentials among it, comes as one line of JSON on its standard input, so that it stands
in no command line; it lies in a private folder for as long as the workers run. After that line the input stays open:
its end is the driver's, however the driver ends.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlipcluster.deploy import node
from mlipcluster.deploy.job_spec import JobSpec, Refusal
from mlipcluster.deploy.node_folder import node_folder
from mlipcluster.files import write_atomic

REFUSED = "mlipcluster-refused "
"""Begins the line that says, as JSON, why these workers are none for the driver."""
AFTER_GRACE = 5.0
"""Seconds after their grace in which workers whose driver is gone have to have ended."""


def main() -> None:
    """Read what is to be done, and do it."""
    told: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    spec = JobSpec(**told["spec"])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended before its workers began"))  # `node` has its own later
    with node_folder(spec.scratch) as folder:
        threading.Thread(target=_end_with_the_driver, args=(folder, spec.grace), daemon=True).start()
        for name, text in told["files"].items():
            write_atomic(folder / name, text, mode=0o600)
        paths = {variable: os.fspath(folder / name) for variable, name in told["paths"].items()}
        file = folder / "job.json"
        JobSpec(**{**told["spec"], "variables": {**spec.variables, **paths}}).write(file)
        sys.argv[1:] = [os.fspath(file), told["tag"]]
        try:
            node.main()
        finally:
            if refusal := Refusal.read(file, told["tag"]):
                print(REFUSED + json.dumps(asdict(refusal)), flush=True)  # noqa: T201 - what the driver listens for


def _end_with_the_driver(folder: Path, grace: float) -> None:
    """Wait for the end of the input, then end everything that this process has started."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)  # `node` lets what runs finish, for its grace
    time.sleep(grace + AFTER_GRACE)
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(os.getpgrp(), signal.SIGKILL)  # sshd has made a session of its own for it
