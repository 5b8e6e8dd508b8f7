from __future__ import annotations

from collections import namedtuple
from functools import partial

import dask
import pytest
from distributed import Client, LocalCluster
from distributed.security import Security

from mlipcluster.deploy import given
from mlipcluster.deploy.deployment import Place
from mlipcluster.deploy.given import Given
from mlipcluster.deploy.local import Local, local_cluster
from mlipcluster.errors import InputError, RunError


@pytest.fixture
def place(tmp_path):
    return Place("token", 0, tmp_path / "logs", tmp_path / "private", tmp_path / "jobs.jsonl")


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    with local_cluster(1, log=tmp_path_factory.mktemp("one") / "workers.log") as cluster:
        yield cluster


def test_a_client_is_used_as_it_is_and_left_open(client, place):
    client.wait_for_workers(2, timeout=60)
    crew = Given(client).start(place)
    assert crew.client is client
    assert (crew.own, crew.checked, crew.slots()) == (False, False, 2)
    crew.close()
    assert client.status == "running"


@pytest.mark.parametrize("kind", ["cluster", "address"])
def test_what_is_handed_in_is_left_and_the_client_of_it_closed(one, place, kind):
    crew = Given(one if kind == "cluster" else one.scheduler_address).start(place)
    crew.client.wait_for_workers(1, timeout=60)
    assert not crew.own
    crew.close()
    assert crew.client.status == "closed"
    assert one.status.name == "running"


def test_what_a_function_makes_is_closed(place):
    crew = Given(partial(LocalCluster, n_workers=0, processes=False, dashboard_address=":0")).start(place)
    assert crew.own
    crew.close()
    assert crew.cluster.status.name == "closed"


def test_of_a_client_that_a_function_makes_the_client_is_closed(one, place):
    crew = Given(lambda: Client(one, set_as_default=False)).start(place)
    crew.close()
    assert crew.client.status == "closed"
    assert one.status.name == "running"


@pytest.mark.parametrize("made", [None, Local(), 7, "http://host"])
def test_a_function_that_makes_something_else_is_told(place, made):
    with pytest.raises(InputError, match=r"is no address|it made .*; make a Dask cluster, a client or an address"):
        Given(lambda: made).start(place)


def test_an_address_where_nobody_answers_is_told_within_a_time(place):
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(RunError, match=r"no scheduler answers at tcp://127\.0\.0\.1:1 within 1s \(.*See that it runs"),
    ):
        Given("tcp://127.0.0.1:1").start(place)


def test_an_address_with_tls_takes_the_credentials_of_the_run(tmp_path):
    security = Security.temporary()
    with local_cluster(1, security=security, private=tmp_path / "private", log=tmp_path / "workers.log") as cluster:
        address = cluster.scheduler_address
        assert address.startswith("tls://")
        place = Place("token", 0, tmp_path, tmp_path, tmp_path / "jobs.jsonl", security=security)
        crew = Given(address).start(place)
        assert crew.client.submit(sum, [1, 2]).result(timeout=60) == 3
        crew.close()
        wrong = Place("token", 0, tmp_path, tmp_path, tmp_path / "jobs.jsonl", security=Security.temporary())
        with (
            dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
            pytest.raises(RunError, match="credentials of the same authority"),
        ):
            Given(address).start(wrong)


def test_an_asynchronous_client_is_not_taken(client, monkeypatch):
    monkeypatch.setattr(Client, "asynchronous", True)
    with pytest.raises(InputError, match="the Client is asynchronous; make it without"):
        Given(client)


def test_plain_text_to_another_machine_is_warned_of(one, place, monkeypatch):
    Address = namedtuple("Address", "address")  # noqa: PYI024
    monkeypatch.setattr(given.psutil, "net_if_addrs", lambda: {"eth0": [Address("192.0.2.1")]})
    with pytest.warns(UserWarning, match=r"tcp://127\.0\.0\.1:\d+ is reached without encryption"):
        Given(one.scheduler_address).start(place).close()


def test_what_workers_have_is_known_before_the_start_where_they_are_there(client, one):
    client.wait_for_workers(2, timeout=60)
    assert Given(client).resources() == [{}, {}]
    with Client(one, set_as_default=False) as other:
        other.wait_for_workers(1, timeout=60)
    assert Given(one).resources() == [{}]
    assert Given("tcp://127.0.0.1:1").resources() == []
    assert Given(lambda: one).resources() == []
