"""A batch system of this machine that runs its jobs as processes; the faces it has are in fake_batch_faces.py.

All that it knows is in the folder that ``FAKE_BATCH`` names: ``jobs/N.json``, and how many may run at a time in
``slots``. A process of its own looks after each job.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(os.environ.get("FAKE_BATCH", ""))
NODE = "node1"
USER = pwd.getpwuid(os.getuid()).pw_name
GRACE, POLL = 10.0, 0.05
SPEED = float(os.environ.get("FAKE_BATCH_SPEED", "1"))  # of the clock that walltimes are measured by


@contextlib.contextmanager
def locked():
    FOLDER.joinpath("jobs").mkdir(parents=True, exist_ok=True)
    with FOLDER.joinpath("lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def path(number):
    return FOLDER / "jobs" / f"{number}.json"


def jobs():
    return [json.loads(one.read_text()) for one in sorted(FOLDER.glob("jobs/*.json"), key=lambda one: int(one.stem))]


def change(number, **facts):
    job = {**json.loads(path(number).read_text()), **facts}
    beside = path(number).with_suffix(".part")
    beside.write_text(json.dumps(job))
    beside.replace(path(number))
    return job


def submit(job):
    """Note a job (name, command, cwd, variables, walltime, output, error, warn) and see to it; its number.

    *job* gives these when it is told its number.
    """
    with locked():
        number = len(jobs()) + 11
        facts = {
            "number": number,
            "state": "pending",
            "how": "",
            "cancel": False,
            "warn": 0,
            "queue": "",
            **job(number),
        }
        facts |= {"owner": USER, "walltime": facts["walltime"] / SPEED, "warn": facts["warn"] / SPEED}
        path(number).write_text(json.dumps(facts))
    subprocess.Popen(
        [sys.executable, __file__, str(number)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return number


def cancel(number):
    with locked():
        if json.loads(path(number).read_text())["state"] == "ended":
            return False
        change(number, cancel=True)
    return True


def slots():
    file = FOLDER / "slots"
    return int(file.read_text()) if file.exists() else 2


def end_all():
    """Cancel what is left, and wait for it."""
    for job in jobs():
        cancel(job["number"])
    while any(job["state"] != "ended" for job in jobs()):
        time.sleep(POLL)


def main(number):
    while not _starts(number):
        time.sleep(POLL)
    job = json.loads(path(number).read_text())
    if job["state"] == "ended":
        return
    variables = {"PATH": "/usr/bin:/bin", "HOME": os.environ["HOME"], "TMPDIR": os.environ.get("TMPDIR", "/tmp")}
    try:
        for name in ("output", "error"):
            Path(job.get(name) or job["output"]).open("a").close()
    except OSError as error:
        with locked():
            change(number, state="ended", how=f"exit 1 {error}")
        return
    with Path(job["output"]).open("a") as output, Path(job.get("error") or job["output"]).open("a") as errors:
        process = subprocess.Popen(
            job["command"],
            cwd=job["cwd"],
            env={**variables, **job["variables"]},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
    how = _watch(process, number, job)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with locked():
        change(number, state="ended", how=how)


def _starts(number):
    with locked():
        if json.loads(path(number).read_text())["cancel"]:
            change(number, state="ended", how="cancelled")
            return True
        if sum(job["state"] == "running" for job in jobs()) >= slots():
            return False
        change(number, state="running")
        return True


def _watch(process, number, job):
    start, warned = time.monotonic(), False
    while process.poll() is None:
        lasts = time.monotonic() - start
        if json.loads(path(number).read_text())["cancel"]:
            _end(process)
            return "cancelled"
        if lasts > job["walltime"]:
            _end(process)
            return "timeout"
        if job["warn"] and lasts > job["walltime"] - job["warn"] and not warned:
            warned = True
            process.send_signal(signal.SIGTERM)
        time.sleep(POLL)
    return f"exit {process.returncode}" if process.returncode >= 0 else f"signal {-process.returncode}"


def _end(process):
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(GRACE)


if __name__ == "__main__":
    end_all() if sys.argv[1:] == ["end"] else main(int(sys.argv[1]))
