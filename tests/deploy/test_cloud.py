"""Machines that follow the work, on a cloud that is this machine: Dask's SpecCluster, as its cloud libraries use it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import dask
import pytest
from distributed import Nanny, Scheduler, SpecCluster

from mlipcluster.deploy.cloud import Cloud
from mlipcluster.deploy.deployment import Demand, Place


class Machines(SpecCluster):
    """As `VMCluster`: no machines at first, each by the same recipe."""

    def __init__(self, n_workers=0, worker_options=None, security=None):
        dask.config.set({"distributed.comm.default-scheme": "tcp", "distributed.comm.tls.ca-file": "of the cloud"})
        worker = {"cls": Nanny, "options": {**worker_options, "dashboard": False, "host": "127.0.0.1"}}
        scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard": False}}
        super().__init__(workers={}, worker=worker, scheduler=scheduler, security=security)


@dataclass(frozen=True, kw_only=True)
class Here(Cloud):
    kind: ClassVar[str] = "here"
    classes: ClassVar[Sequence[str]] = ("aws/ec2.py:EC2Cluster", "generic/vmcluster.py:VMCluster")

    def _class(self):
        return Machines


@pytest.fixture
def start(tmp_path):
    crews = []

    def start(**fields):
        place = Place("token", 0, tmp_path / "logs", tmp_path / "private", tmp_path / "jobs.jsonl")
        crews.append(Here(**fields).start(place))
        return crews[-1]

    yield start
    for crew in crews:
        crew.close()


def until(test, crew=None, demand=None):
    for _ in range(600):
        if crew is not None:
            crew.want(demand)
        if test():
            return True
        time.sleep(0.1)
    return False


def hold(path):
    import os

    while not os.path.exists(path):
        time.sleep(0.05)
    return "done"


def test_machines_come_with_the_work_and_go_without_it_but_never_from_a_task(start, tmp_path):
    crew = start(max_workers=2, gpus=1, idle_timeout=0.5)
    assert (crew.slots(), crew.waiting()) == (0, "")
    crew.want(Demand(1))
    assert crew.waiting() == "1 Here machine on the way"
    future = crew.client.submit(hold, str(tmp_path / "go"))
    assert until(lambda: crew.slots() == 2, crew, Demand(7))
    assert crew.waiting() == ""
    assert crew.resources() == [{"GPU": 1.0}] * 2
    (busy,) = (address for address, keys in crew.client.processing().items() if keys)
    (idle,) = set(crew.client.nthreads()) - {busy}
    assert until(lambda: crew.slots() == 1, crew, Demand(1))
    assert list(crew.client.nthreads()) == [busy]
    assert crew.is_blameless(idle)
    assert not crew.is_blameless(busy)
    (tmp_path / "go").touch()
    assert future.result(timeout=60) == "done"
    assert until(lambda: crew.slots() == 0, crew, Demand(0))


def test_a_machine_of_several_processes_counts_as_many(start):
    crew = start(max_workers=4, processes=2)
    assert until(lambda: crew.slots() == 4, crew, Demand(9))
    assert len(crew.client.nthreads()) == 2
    crew.want(Demand(9))
    assert crew._asked == 2


def test_a_machine_that_is_taken_away_is_replaced(start):
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "200ms"}):
        crew = start(max_workers=2)
        assert until(lambda: crew.slots() == 2 == len(crew.cluster.workers), crew, Demand(9))
        first = set(crew.client.nthreads())
        crew.cluster.sync(next(iter(crew.cluster.workers.values())).close)
        assert until(lambda: crew.slots() == 2 and set(crew.client.nthreads()) != first, crew, Demand(9))
        assert crew.waiting() == ""


def test_the_least_is_there_without_work(start):
    crew = start(min_workers=1, max_workers=3, idle_timeout=0.0)
    assert until(lambda: crew.slots() == 1, crew, Demand(0))
    for _ in range(5):
        crew.want(Demand(0))
    assert crew.slots() == 1


def test_dasks_settings_are_put_back(start):
    before = dask.config.get("distributed.comm.tls.ca-file")
    crew = start()
    assert dask.config.get("distributed.comm.tls.ca-file") == "of the cloud"
    crew.close()
    assert dask.config.get("distributed.comm.tls.ca-file") == before
