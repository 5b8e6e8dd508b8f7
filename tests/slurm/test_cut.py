"""A cable that is pulled for half a minute: the workers' node is a network namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid

import pytest
from ase.build import bulk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
CUT_SECONDS = 30.0


def ip(*arguments, check=True):
    return subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True)


@pytest.fixture
def cable():
    """Names of a namespace, of this end of the cable to it, and this end's address."""
    name = f"mc{uuid.uuid4().hex[:6]}"
    net = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
    if ip("netns", "add", name, check=False).returncode:
        pytest.skip("needs network namespaces: run as root on a kernel that has them, with Debian's iproute2")
    try:
        ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b")
        ip("link", "set", f"{name}b", "netns", name)
        ip("addr", "add", f"{net}.1/30", "dev", f"{name}a")
        ip("link", "set", f"{name}a", "up")
        ip("-n", name, "addr", "add", f"{net}.2/30", "dev", f"{name}b")
        ip("-n", name, "link", "set", f"{name}b", "up")
        ip("-n", name, "link", "set", "lo", "up")
        yield name, f"{name}a", f"{net}.1"
    finally:
        ip("link", "del", f"{name}a", check=False)
        ip("netns", "del", name, check=False)


def slow(atoms):
    import os
    import time

    time.sleep(1)
    atoms.info["worker"] = os.getppid()
    return atoms


def test_a_cut_of_half_a_minute_loses_nothing(slurm, slurm_jobs, on_slurm, cable, tmp_path):
    namespace, end, address = cable
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/bash\nexec ip netns exec {namespace} {sys.executable} "$@"\n')
    python.chmod(0o755)
    tasks = [bulk("Cu", a=3.5 + 0.001 * number) for number in range(12)]
    jobs, workers, longest, last = set(), set(), 0.0, None
    with on_slurm(tasks, slurm_jobs(workers=1, host=address, python=str(python))) as run:
        for number, output in enumerate(run.generate(slow)):
            longest, last = max(longest, time.monotonic() - (last or time.monotonic())), time.monotonic()
            jobs |= set(slurm.running())
            workers.add(output.atoms.info["worker"])
            if number == 3:
                ip("link", "set", end, "down")
                threading.Timer(CUT_SECONDS, ip, ("link", "set", end, "up")).start()
    assert longest > CUT_SECONDS / 2, "nothing was cut"
    assert number == 11
    assert len(workers) == 1, "the worker was given up"
    assert len(jobs) == 1
