"""Runs on Dask clusters that are none of ours: handed in, by address, made by a function; a scheduler that dies."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from functools import partial

import pytest
from ase.build import bulk
from distributed import Client, LocalCluster, Nanny, Scheduler, SpecCluster

from mlipcluster import MLIPCluster
from mlipcluster.errors import MismatchError, RunError
from mlipcluster.protocols import single_point

pytestmark = pytest.mark.filterwarnings("ignore:.*uncommitted changes:UserWarning")

METALS = [bulk(name) for name in ("Cu", "Ag", "Au")]


def where(atoms):
    atoms.info["parent"] = os.getppid()
    return atoms


def make(threads=1, workers=1):
    """A cluster as users make it by hand; Dask's own LocalCluster would import this file in its workers."""
    worker = {"cls": Nanny, "options": {"nthreads": threads, "dashboard": False, "host": "127.0.0.1"}}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard": False}}
    return SpecCluster(workers=dict.fromkeys(range(workers), worker), scheduler=scheduler)


@pytest.fixture(scope="module")
def spec():
    with make() as cluster:
        yield cluster


@pytest.fixture
def distribute(tmp_path):
    def distribute(*protocols, tasks=METALS, **options):
        told = {k: options.pop(k) for k in ("clients_indices", "resources") if k in options}
        options = {"output_path": tmp_path / "run", "seed": 7, "progress": False, **options}
        return MLIPCluster(tasks, **options).distribute(*protocols, **told)

    return distribute


def test_a_cluster_that_is_handed_in(distribute, spec):
    results = distribute(single_point, calculator="emt", cluster=spec)
    assert results.counts == {"output": 3, "failed": 0, "empty": 0}
    assert spec.status.name == "running"
    with Client(spec, set_as_default=False) as client:
        assert len(client.nthreads()) == 1  # it was left as it was


def test_an_address(distribute, spec):
    (output,) = distribute(where, tasks=METALS[:1], cluster=spec.scheduler_address)
    with Client(spec, set_as_default=False) as client:
        assert output.scores["parent"] in client.run(os.getpid).values()


def test_a_function_is_called_when_it_is_needed_and_what_it_made_is_closed(distribute, tmp_path):
    made = []

    def function():
        made.append(make())
        return made[-1]

    results = distribute(where, cluster=function)
    assert len(results) == 3
    assert [cluster.status.name for cluster in made] == ["closed"]


def test_several_by_their_numbers(distribute, spec):
    (output,) = distribute(
        where, keep_parent, where, tasks=METALS[:1], clusters=[make, spec], clients_indices=[0, 0, 1]
    )
    with Client(spec, set_as_default=False) as client:
        here = set(client.run(os.getpid).values())
    assert output.scores["parent"] in here
    assert output.scores["first"] not in here


def keep_parent(atoms):
    atoms.info["first"] = atoms.info["parent"]
    return atoms


def test_dasks_own_local_cluster_made_by_a_function(distribute):
    cluster = partial(LocalCluster, n_workers=0, processes=False, dashboard_address=":0")

    def with_a_worker():
        made = cluster()
        made.scale(1)
        return made

    assert len(distribute(where, cluster=with_a_worker)) == 3


def at_once(atoms, folder):
    """Wait until another call runs at the same time."""
    from pathlib import Path

    Path(folder, str(os.getpid())).touch()
    deadline = time.monotonic() + 60
    while len(os.listdir(folder)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    atoms.info.update(process=os.getpid(), parent=os.getppid(), together=len(os.listdir(folder)))
    return atoms


def test_a_worker_of_several_threads_runs_a_protocol_in_each_in_a_process_of_its_own(distribute, tmp_path):
    folder = tmp_path / "together"
    folder.mkdir()
    tasks = [{"atoms": atoms, "folder": str(folder)} for atoms in METALS[:2]]
    results = distribute(at_once, tasks=tasks, cluster=partial(make, threads=2))
    assert len({output.scores["process"] for output in results}) == 2
    assert len({output.scores["parent"] for output in results}) == 1
    assert [output.scores["together"] for output in results] == [2, 2]


# --- schedulers and workers as the command line starts them ----------------------------------------------------------


@contextlib.contextmanager
def dask(*arguments, python=sys.executable, env=None):
    options = {"stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "env": {**os.environ, **(env or {})}}
    with subprocess.Popen([python, "-m", *map(str, arguments), "--no-dashboard"], **options) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def dask_scheduler(folder):
    """A scheduler in a process of its own, and its address."""
    file = folder / "scheduler.json"
    command = ("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", file)
    with dask(*command) as process:
        while not file.exists():
            assert process.poll() is None
            time.sleep(0.1)
        yield process, json.loads(file.read_text())["address"]
    file.unlink()


def dask_worker(address, **options):
    return dask("distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", **options)


def gated(atoms, path):
    while "Cu" not in atoms.symbols and not os.path.exists(path):
        time.sleep(0.1)
    return atoms


def test_a_scheduler_that_is_killed_ends_the_run_and_a_rerun_completes_it(tmp_path):
    gate = tmp_path / "open"
    tasks = [{"atoms": atoms, "path": str(gate)} for atoms in METALS]
    options = {"output_path": tmp_path / "run", "seed": 7, "progress": False}
    with dask_scheduler(tmp_path) as (scheduler, address), dask_worker(address):
        outputs = MLIPCluster(tasks, cluster=address, **options).generate(gated)
        first = next(outputs)
        scheduler.kill()
        begun = time.monotonic()
        gone = (
            rf"the scheduler at {address}, or the way there, is gone.*All that is finished is saved.*run the same again"
        )
        with pytest.raises(RunError, match=gone):
            next(outputs)
        assert time.monotonic() - begun < 60  # not a speed: it used to wait for ever
    written = first.path.stat().st_mtime_ns
    gate.touch()
    with dask_scheduler(tmp_path) as (_, address), dask_worker(address):
        results = MLIPCluster(tasks, cluster=address, **options).distribute(gated)
    assert results.counts == {"output": 3, "failed": 0, "empty": 0}
    assert first.path.stat().st_mtime_ns == written


@pytest.mark.filterwarnings("ignore::distributed.versions.VersionMismatchWarning")  # Dask says so too
def test_a_worker_of_another_python_is_refused_before_the_first_task(tmp_path, other_python):
    python, env = other_python
    with dask_scheduler(tmp_path) as (_, address), dask_worker(address, python=python, env=env):
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
        run = MLIPCluster(METALS, cluster=address, output_path=tmp_path / "run", progress=False)
        with pytest.raises(MismatchError, match=r"the worker tcp://.* runs Python 3\.\d+\.\d+, this process"):
            run.distribute(where)
    assert not (tmp_path / "run" / "outputs").exists()


def test_no_worker_is_said_instead_of_silence(tmp_path, capsys):
    with dask_scheduler(tmp_path) as (_, address):
        run = MLIPCluster(METALS, cluster=address, output_path=tmp_path / "run")
        with contextlib.ExitStack() as stack:
            timer = threading.Timer(8.0, lambda: stack.enter_context(dask_worker(address)))
            timer.start()
            assert len(run.distribute(where)) == 3
    assert f"0 running; the scheduler at {address} has no workers; start some" in capsys.readouterr().err
