"""Calls that outlast their workers, on this machine: workers that end after a few seconds and are replaced.

Each is what a batch job is: it says how long it will be there, is warned before a preemption, and is ended at its time
whatever it does. On a real SLURM the same is tested in ``tests/slurm``.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from ase.build import bulk
from distributed import Scheduler

from mlipcluster import MLIPCluster
from mlipcluster.deploy.crew import ClusterCrew
from mlipcluster.deploy.deployment import Deployment
from mlipcluster.deploy.local import QuietCluster
from mlipcluster.outputs.ledger import Ledger
from mlipcluster.protocols import md
from mlipcluster.workers import Workers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

AT_ITS_TIME = 9
"""Exit status of a node whose time was over."""

NODE = """
import asyncio, os, signal, sys
from pathlib import Path

address, folder, name, life, lifeline = sys.argv[1:]
from mlipcluster.socket_worker.lifeline import die_with_parent
die_with_parent(int(lifeline))
from distributed import Worker
from mlipcluster.deploy import ending

path = Path(folder, name + ".ending")
os.environ[ending.VARIABLE] = str(path)
ending.announce(path, float(life))
signal.signal(signal.SIGTERM, lambda *_: ending.announce(path, min(2.5, ending.remaining())))


async def main():
    told = {"seconds": max(0.1, ending.remaining() - 0.2)}
    async with Worker(address, nthreads=1, name=name, resources=told, memory_limit=0, dashboard=False) as worker:
        while (left := ending.remaining()) > 0:
            await worker.set_resources(seconds=max(0.0, left - 0.2))
            await asyncio.sleep(0.3)
        os._exit(9)


asyncio.run(main())
"""


@dataclass(frozen=True)
class Lives(Deployment):
    """Workers that are there for *life* seconds; the next comes when one has ended."""

    kind: ClassVar[str] = "lives"
    remote: ClassVar[bool] = False
    life: float = 20.0
    count: int = 2

    interpreter: ClassVar[str] = sys.executable

    def start(self, place):
        place.logs.mkdir(parents=True, exist_ok=True)
        scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard": False}}
        return LivesCrew(QuietCluster(name="lives", scheduler=scheduler, worker=None, workers={}), self, place.logs)


class LivesCrew(ClusterCrew):
    timed = True

    def __init__(self, cluster, told, logs):
        super().__init__(cluster)
        self._told, self._logs = told, logs
        self.nodes = {}
        self._processes = {}
        self._number = 0
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def slots(self):
        return self._told.count

    def is_blameless(self, worker):
        process = self._processes.get(worker)
        return process is not None and process.wait(60) == AT_ITS_TIME  # the scheduler noticed before it had ended

    def _keep(self):
        while not self._closing.wait(0.1):
            for name, (process, _) in list(self.nodes.items()):
                if process.poll() is not None:
                    os.close(self.nodes.pop(name)[1])
            while len(self.nodes) < self._told.count:
                self._begin()

    def _begin(self):
        self._number += 1
        name = f"node-{self._number}"
        far_end, lifeline = os.pipe()
        with open(self._logs / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", NODE, self.cluster.scheduler_address, self._logs, name, str(self._told.life),
                 str(far_end)],
                stdout=log, stderr=log, pass_fds=(far_end,), start_new_session=True,
                env={**os.environ, "DASK_LOGGING__DISTRIBUTED": "error"},
            )  # fmt: skip
        os.close(far_end)
        self.nodes[name] = process, lifeline
        self._processes[name] = process

    def close(self):
        self._closing.set()
        self._keeper.join()
        super().close()
        for process, lifeline in self.nodes.values():
            os.close(lifeline)
            process.kill()
            process.wait()


@pytest.fixture
def distribute(tmp_path):
    """``distribute(folder, tasks, protocol, deployment, disturb) -> (ledger lines, number of workers, seconds)``"""

    def distribute(folder, tasks, protocol, deployment, disturb=None, **options):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*uncommitted changes", category=UserWarning)
            cluster = MLIPCluster(tasks, "emt", output_path=tmp_path / folder, seed=7, progress=False, **options)
            if isinstance(deployment, Lives):
                cluster._workers = Workers([deployment], cluster._place)
            with cluster:
                cluster._workers.start()
                crew = cluster._workers._crews[0]
                over = threading.Event()
                thread = threading.Thread(target=disturb or (lambda *_: None), args=(crew, over), daemon=True)
                thread.start()
                begun = time.monotonic()
                try:
                    cluster.distribute(protocol)
                finally:
                    over.set()
                    thread.join()
                seconds = time.monotonic() - begun
        lines = list(Ledger(tmp_path / folder / "ledger.jsonl").entries())
        return lines, getattr(crew, "_number", 0), seconds

    return distribute


def tasks(count, **kwargs):
    return [{"atoms": bulk("Cu", a=3.55 + 0.02 * n, cubic=True) * (2, 2, 1), **kwargs} for n in range(count)]


def results(lines):
    assert [line["status"] for line in lines] == ["output"] * len(lines), [line.get("error") for line in lines]
    return {line["slot"]: (line["result_digest"], line["scores"]) for line in lines}


def anything(folder):
    return [path for path in Path(folder).rglob("*") if path.is_file()]


def strike(how, every):
    """Signals to random nodes, at random moments."""

    def disturb(crew, over):
        dice = random.Random(1)
        while not over.wait(dice.uniform(*every)):
            with contextlib.suppress(LookupError, RuntimeError):
                process, _ = dice.choice(list(crew.nodes.values()))
                process.send_signal(dice.choice(how))

    return disturb


MD = {"steps": 900, "save_every": 20, "pause": 0.5}
"""Takes at least 22 s, more than a life, however fast the machine is."""


def slow_md(atoms, calc, rng, checkpoint, steps, save_every, pause):
    class Slowly:
        load = checkpoint.load

        def save(self, atoms, state):
            time.sleep(pause)
            checkpoint.save(atoms, state)

    return md(atoms, calc, rng, "nvt", 900.0, steps, checkpoint=Slowly(), save_every=save_every)


def test_md_over_many_lives_has_the_bits_of_an_undisturbed_run(distribute, tmp_path):
    plain, _, plainly = distribute("plain", tasks(2, **MD), slow_md, None, max_workers=2)
    cut, workers, in_lives = distribute("cut", tasks(2, **MD), slow_md, Lives())
    print(f"plain {plainly:.1f} s; in {workers} lives {in_lives:.1f} s: {in_lives / plainly:.2f}")
    assert results(cut) == results(plain)
    assert workers > 2
    assert anything(tmp_path / "cut" / "checkpoints") == []
    record = json.loads(json.dumps(record_of(tmp_path / "cut", cut[0])))
    parts = record["metadata"]["times"]["parts"]
    assert len(parts) >= 2
    assert sum(part["seconds"] for part in parts) == pytest.approx(record["metadata"]["times"]["seconds"][0])
    assert "parts" not in record_of(tmp_path / "plain", plain[0])["metadata"]["times"]


def record_of(folder, line):
    from mlipcluster.outputs.output import read_output

    return read_output(folder / line["file"]).record


@pytest.mark.parametrize("how", [(signal.SIGTERM,), (signal.SIGTERM, signal.SIGKILL)])
def test_md_under_warnings_and_kills(distribute, how):
    plain, _, _ = distribute("plain", tasks(2, **MD), slow_md, None, max_workers=2)
    cut, workers, _ = distribute("cut", tasks(2, **MD), slow_md, Lives(life=30.0), strike(how, (8.0, 14.0)))
    assert results(cut) == results(plain)
    assert workers > 2


def lasts(atoms, seconds):
    time.sleep(seconds)
    return atoms


def test_what_outlasts_every_worker_fails_and_says_what_to_do(distribute):
    lines, workers, _ = distribute("run", tasks(1, seconds=60), lasts, Lives(life=12.0, count=1))
    (line,) = lines
    assert line["status"] == "failed"
    for said in ("takes longer than its workers are there", "longer walltime", "`checkpoint`"):
        assert said in line["error"]["message"]
    assert workers <= 10


def test_what_would_not_be_finished_is_not_begun(distribute, tmp_path):
    """Once it is known that a call takes 3 s, none is lost to the end of a worker."""
    marks = tmp_path / "marks"
    marks.mkdir()

    def marking(atoms, task, folder):
        Path(folder, f"{task.key}-{time.time_ns()}").touch()
        time.sleep(3)
        return atoms

    several = [{"atoms": bulk("Cu", a=3.5 + 0.01 * n), "folder": str(marks)} for n in range(5)]
    lines, workers, _ = distribute("run", several, marking, Lives(life=15.0, count=1))
    results(lines)
    assert workers >= 2
    assert len(list(marks.iterdir())) <= 6  # the first may have been lost before anything was known
