"""What a server says of itself."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from mlipcluster.serving import status
from mlipcluster.serving.asking import ask
from mlipcluster.serving.server import Options


def test_what_runs_and_what_waits(serve, trial, cu, until, tmp_path):
    here = serve(Options(max_workers=1, idle_timeout=77.0), waits=trial("WaitsFor", args=(str(tmp_path / "go"),)))
    calculator, other = here.calculator("waits"), here.calculator("waits")
    for one in (calculator, other):
        one.implemented_properties  # noqa: B018 - so that there is nothing to be asked but the calculation
    threads = [threading.Thread(target=one.get_property, args=("energy", cu())) for one in (calculator, other)]
    for thread in threads:
        thread.start()
    until(lambda: here.status()["calculators"][0]["waiting"] == 1)
    told = here.status()
    (tmp_path / "go").touch()
    for thread in threads:
        thread.join()
    after = here.status()
    (calculators,), (worker,) = told["calculators"], told["workers"]
    counts = {"idle": 0, "busy": 1, "starting": 0, "ending": 0, "waiting": 1, "calls": 0}
    assert calculators == {"name": "waits", "mean_seconds": None, **counts}
    assert (worker["name"], worker["state"], worker["where"], worker["devices"]) == ("waits", "busy", "here", ["cpu"])
    assert os.path.exists(f"/proc/{worker['pid']}")
    assert worker["memory"] > 1 << 20
    assert (told["served"], told["max_workers"], told["idle_timeout"]) == (["waits"], 1, 77.0)
    assert (told["pid"], told["address"], told["stopping"]) == (os.getpid(), here.address, False)
    assert told["clients"] >= 3  # with who asks just now, and who just did
    assert after["calculators"][0]["calls"] == after["workers"][0]["calls"] == 2
    assert after["calculators"][0]["mean_seconds"] > 0


def test_a_worker_that_has_not_come_yet(serve, trial, below, until):
    here = serve(slow=trial("BuildsSlowly", args=(600,)))
    server = here.server
    server.loop.post(lambda: server.starters.start(server.dispatch.starting(0.0, "slow"), "slow"))
    (worker,) = until(lambda: here.workers("starting"))
    assert {worker[key] for key in ("where", "pid", "memory", "mean_seconds")} == {None}
    until(lambda: below("socket_worker"))


def test_memory_is_that_of_a_process_and_all_below_it():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    big = "x = bytearray(100 << 20); print(len(x), flush=True); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code, big], stdin=pipe, stdout=pipe) as process:
        process.stdout.readline()
        assert status.memory_of(process.pid) > 100 << 20
    assert status.memory_of(process.pid) is None


def test_what_cannot_be_told_is_said_so(serve, monkeypatch):
    here = serve()
    monkeypatch.setattr(status, "measured", lambda _: 1 / 0)
    with pytest.raises(Exception, match="the state cannot be told: ZeroDivisionError"):
        ask("status", here.address)
