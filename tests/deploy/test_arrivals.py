from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path

import pytest
from distributed import Client

from mlipcluster.deploy import arrivals
from mlipcluster.deploy.arrivals import Arrivals, Terms
from mlipcluster.deploy.handshake import facts_here
from mlipcluster.deploy.local import local_cluster
from mlipcluster.errors import MismatchError


@contextlib.contextmanager
def dask_worker(address, python=sys.executable, env=None):
    """A worker as users start it."""
    command = [python, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard", "--no-nanny"]
    with subprocess.Popen(command, env={**os.environ, **(env or {})}, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def scheduler(tmp_path):
    log = tmp_path / "workers.log"
    with local_cluster(1, minimum=0, log=log) as cluster, Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture
def two(client):
    client.wait_for_workers(2, timeout=60)
    return client


def test_workers_of_this_environment_differ_in_nothing(two):
    seen = Arrivals(two, Terms(same_versions=True, environment=facts_here().environment[:10]))
    assert seen.look() == []
    assert seen.look() == []
    assert len(seen._met) == 2


def test_nobody_there_is_no_mistake(scheduler):
    assert Arrivals(scheduler, Terms(environment="0")).look() == []


def test_each_worker_is_asked_once_and_a_difference_said_once(two, monkeypatch):
    here = facts_here()
    other = replace(here, environment="0" * 64, packages={**here.packages, "ase": "3.0"})
    monkeypatch.setattr(arrivals, "facts_here", lambda: other)
    seen = Arrivals(two, Terms())
    (line,) = seen.look()
    assert line == f"ase: 3.0 -> {here.packages['ase']}, environment: {'0' * 16} -> {here.environment[:16]}"
    monkeypatch.setattr(two, "get_versions", lambda **_: pytest.fail("asked again"))
    assert seen.look() == []


def test_terms_are_kept(two, monkeypatch):
    with pytest.raises(MismatchError, match=r"the environment of the worker tcp://.* on .* has the digest"):
        Arrivals(two, Terms(environment="0" * 64)).look()
    other = replace(facts_here(), python="3.0.1")
    monkeypatch.setattr(arrivals, "facts_here", lambda: other)
    with pytest.raises(MismatchError, match=r"the worker tcp://.* runs Python .*, this process 3\.0\.1"):
        Arrivals(two, Terms()).look()


def broken():
    raise ValueError("no site-packages")


def test_an_environment_that_cannot_be_told_is_said(two, monkeypatch):
    monkeypatch.setattr(arrivals, "facts_once", broken)
    assert Arrivals(two, Terms()).look() == ["environment: not known (no site-packages)"]
    with pytest.raises(MismatchError, match="cannot tell its environment, so nothing of it is known: no site-packages"):
        Arrivals(two, Terms(environment="0")).look()


def test_a_real_worker_of_another_python_is_refused(scheduler, other_python):
    with dask_worker(scheduler.scheduler.address, *other_python):
        scheduler.wait_for_workers(1, timeout=60)
        with pytest.raises(MismatchError, match=r"the worker tcp://.* runs Python 3\.1\d\.\d+, this process 3"):
            Arrivals(scheduler, Terms()).look()


def test_a_real_worker_without_mlipcluster_is_refused(scheduler, tmp_path):
    """Its environment has all else: a folder of links to what is installed here."""
    site = tmp_path / "site"
    site.mkdir()
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if "mlipcluster" not in path.name:
            (site / path.name).symlink_to(path)
    bare = {"PYTHONPATH": str(site), "PYTHONNOUSERSITE": "1"}
    base = os.path.realpath(sys.executable)
    with dask_worker(scheduler.scheduler.address, base, bare):
        scheduler.wait_for_workers(1, timeout=60)
        with pytest.raises(MismatchError, match=r"the worker tcp://.* has no mlipcluster; .*Install it there"):
            Arrivals(scheduler, Terms()).look()
