"""What an `SSH` value may say; its runs, over a real sshd, are in tests/ssh."""

from __future__ import annotations

import sys

import pytest

from mlipcluster.deploy.ssh import SSH
from mlipcluster.deploy.table import deployment_class
from mlipcluster.errors import InputError


def test_what_is_left_out():
    ssh = SSH(hosts=["node1"])
    assert (ssh.interpreter, ssh.workers_each, dict(ssh.offers())) == (sys.executable, 1, {})
    assert ssh.remote
    assert deployment_class("ssh") is SSH


def test_equal_values_are_equal_and_can_be_kept_in_sets():
    one, other = (SSH(hosts=hosts, connect_options={"client_keys": ["k"]}) for hosts in (["a", "b"], ("a", "b")))
    assert len({one, other}) == 1


@pytest.mark.parametrize(
    ("python", "meant"),
    [
        ("/opt/env", "/opt/env/bin/python"),
        ("/opt/env/bin/python3.11", "/opt/env/bin/python3.11"),
        ("/opt/env/bin/pypy", "/opt/env/bin/pypy"),
        ("/shared/python-of-ours", "/shared/python-of-ours/bin/python"),
    ],
)
def test_an_environment_s_folder_or_an_interpreter(python, meant):
    assert SSH(hosts=["node1"], python=python).interpreter == meant


@pytest.mark.parametrize(
    ("fields", "workers", "gpus"),
    [({"gpus": 4}, 4, 1.0), ({"gpus": 2, "processes_per_gpu": 3}, 6, 1.0), ({"gpus": 4, "processes": 2}, 2, 2.0)],
)
def test_gpus_are_shared_out(fields, workers, gpus):
    ssh = SSH(hosts=["node1"], **fields)
    assert (ssh.workers_each, ssh.offers()) == (workers, {"GPU": gpus})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"hosts": []}, "hosts is empty"),
        ({"hosts": "node1"}, "give a list"),
        ({"hosts": ["node1", "node1"]}, "twice; for more workers on a host say processes="),
        ({"hosts": ["me@node1"]}, "users are named by user="),
        ({"hosts": ["-oProxyCommand=x y"]}, "no name or address"),
        ({"hosts": ["a\nb"]}, "no name or address"),
        ({"hosts": [7]}, "no name or address"),
        ({"processes": 0}, "processes=0"),
        ({"port": "22"}, "port='22'"),
        ({"gpus": -1}, "gpus=-1"),
        ({"python": ""}, "python=''"),
        ({"environment": {"OMP_NUM_THREADS": 1}}, "environment={.*names and texts of variables"),
        ({"connect_options": ["x"]}, "arguments of asyncssh.connect by name"),
        ({"host": "a", "interface": "eth0"}, "both given"),
    ],
)
def test_what_cannot_be_meant_is_refused(fields, says):
    with pytest.raises(InputError, match=says):
        SSH(**{"hosts": ["node1"], **fields})


def test_any_machine_may_pass_for_a_host_with_a_warning():
    with pytest.warns(UserWarning, match="known_hosts=None"):
        SSH(hosts=["node1"], connect_options={"known_hosts": None})


def test_a_passphrase_is_not_shown():
    assert "secret" not in repr(SSH(hosts=["node1"], connect_options={"passphrase": "secret"}))


def test_without_asyncssh_it_says_how_to_get_it(monkeypatch, place):
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    with pytest.raises(InputError, match=r"pip install 'mlipcluster\[ssh\]'"):
        SSH(hosts=["node1"]).start(place)
