from __future__ import annotations

import getpass
import socket
import urllib.request

import dask
import pytest
from distributed import Client, Scheduler

from mlipcluster import MLIPCluster
from mlipcluster.deploy import dashboard
from mlipcluster.deploy.local import QuietCluster, local_cluster
from mlipcluster.errors import InputError

EVERYWHERE = "0.0.0.0"  # noqa: S104 - as a scheduler listens that nodes reach


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("127.0.0.1:0", "127.0.0.1:0"),
        (":8787", "127.0.0.1:8787"),
        (8787, "127.0.0.1:8787"),
        ("localhost:1", "localhost:1"),
        ("127.0.0.2:5", "127.0.0.2:5"),
    ],
)
def test_this_machine_s_own_address_is_what_is_meant(given, meant):
    assert dashboard.loopback(given) == meant


@pytest.mark.parametrize("given", ["0.0.0.0:8787", "10.0.0.1:8787", "node7.example.org:8787"])
def test_what_others_could_see_is_refused_with_a_way_to_see_it(given):
    with pytest.raises(InputError, match=rf"ssh -L 8787:127.0.0.1:8787 .*@{socket.gethostname()}"):
        MLIPCluster([], dashboard_address=given)


@pytest.mark.parametrize("given", ["", "here", "127.0.0.1:http", ":70000", None])
def test_what_is_no_address_is_refused(given):
    with pytest.raises(InputError, match=r"give 127\.0\.0\.1:PORT"):
        dashboard.loopback(given)


def test_it_stays_here_when_the_scheduler_listens_to_all():
    told = {"host": EVERYWHERE, "port": 0, "dashboard": True}
    cluster = QuietCluster(scheduler={"cls": Scheduler, "options": told}, workers={})
    with cluster, Client(cluster, set_as_default=False) as client:
        assert cluster.scheduler.listeners[0].bound_address[0] == EVERYWHERE
        bound = [sock.getsockname() for sock in cluster.scheduler.http_server._sockets.values()]
        assert [host for host, _ in bound] == ["127.0.0.1"]
        assert client.dashboard_link == cluster.dashboard_link == f"http://localhost:{bound[0][1]}/status"
        with urllib.request.urlopen(f"http://127.0.0.1:{bound[0][1]}/health", timeout=30) as answer:
            assert answer.read() == b"ok"


def test_workers_have_none_that_others_see():
    with local_cluster(1) as cluster, Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=60)

        def bound(dask_worker):
            return [sock.getsockname()[0] for sock in dask_worker.http_server._sockets.values()]

        assert list(client.run(bound).values()) == [["127.0.0.1"]]


def origins():
    return dask.config.get("distributed.scheduler.dashboard.bokeh-application.allow_websocket_origin")


def test_pages_of_other_origins_are_not_answered():
    assert origins() == ["*"]  # Dask's own; when that changes, ours may go
    with dashboard.closed_to_strangers():
        assert origins() == []
    assert origins() == ["*"]


def test_one_s_own_origins_stand():
    own = {"distributed.scheduler.dashboard.bokeh-application.allow_websocket_origin": ["hub.example.org:443"]}
    with dask.config.set(own), dashboard.closed_to_strangers():
        assert origins() == ["hub.example.org:443"]


def test_a_user_without_a_name(monkeypatch):
    def nobody():
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert dashboard.tunnel(80).startswith("ssh -L 80:127.0.0.1:80 USER@")
