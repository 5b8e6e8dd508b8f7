"""The hosts of one crew, behind a real sshd: what they are given, and what goes wrong with them."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shlex
import signal
import subprocess
import sys
import time
import warnings

import psutil
import pytest
from distributed import Client

from mlipcluster.deploy import ssh_host, tls
from mlipcluster.deploy.certificates import ROLES, Authority, Credentials
from mlipcluster.deploy.ssh import SSH
from mlipcluster.errors import MismatchError, RunError

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Hosts are tried again at once."""
    monkeypatch.setattr(ssh_host, "AGAIN_SECONDS", 0.1)


@pytest.fixture
def one(server, crew_of):
    """The crew of one host, whose worker is there."""
    with crew_of(SSH(hosts=server.hosts[:1], **server.options)) as crew:
        crew.client.wait_for_workers(1, timeout=120)
        yield crew


def test_a_host_that_is_down_is_told_and_the_others_go_on(server, crew_of, wait_for):
    ssh = SSH(hosts=(server.hosts[0], "127.0.0.9"), **server.options)
    with crew_of(ssh) as crew:
        crew.client.wait_for_workers(1, timeout=120)
        assert wait_for(lambda: any(host.error for host in crew._hosts))
        with pytest.warns(
            UserWarning, match=r"a host takes no part.*127\.0\.0\.9: it cannot be reached.*Tried 3 times"
        ):
            crew.look_after()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            crew.look_after()  # once is enough
        assert crew.client.submit(sum, [1, 2]).result(timeout=60) == 3


def look_after(crew):
    for _ in range(600):
        crew.look_after()
        time.sleep(0.1)
    raise AssertionError("nothing is wrong")


def interpreter(folder, text):
    path = folder / "python3"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return {"python": str(path)}


def host_is_another(folder, server):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "other"], check=True)
    known = folder / "known"
    known.write_text(f"[{server.hosts[0]}]:{server.port} {(folder / 'other.pub').read_text()}")
    return {"connect_options": {**server.options["connect_options"], "known_hosts": str(known)}}


def user_is_unknown(folder, server):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "other"], check=True)
    return {"connect_options": {**server.options["connect_options"], "client_keys": [str(folder / "other")]}}


def no_interpreter(folder, server):
    return {"python": "/no/such/place/bin/python"}


def no_mlipcluster(folder, server):
    return interpreter(folder, f'exec {sys.executable} -S "$@"\n')


def another_python(folder, server):
    pretend = "import platform; platform.python_version = lambda: '3.9.9'; "
    return interpreter(folder, f'exec {sys.executable} "$1" {shlex.quote(pretend)}"$2"\n')


def ends_at_once(folder, server):
    return interpreter(folder, "echo out of order; exit 3\n")


def not_reached(folder, server):
    return {"host": "127.0.0.1"} | interpreter(
        folder, f'exec {sys.executable} "$1" "import mlipcluster.deploy.node; raise OSError(28, \'no room\')"\n'
    )


WRONG = {
    host_is_another: (RunError, r"it is not the host that is known by that name.*Log in once by hand"),
    user_is_unknown: (RunError, r"does not let this user in.*client_keys"),
    no_interpreter: (RunError, r"there is no '/no/such/place/bin/python' that can be run.*Give python="),
    no_mlipcluster: (RunError, r"has no mlipcluster; install the same version"),
    another_python: (MismatchError, r"runs Python 3\.9\.9.*functions cannot be sent"),
    ends_at_once: (RunError, r"(?s)ended with status 3; their last words:\nout of order.*Tried 3 times"),
    not_reached: (RunError, r"(?s)last words:.*no room.*Tried 3 times"),
}


@pytest.mark.parametrize(("kind", "told"), WRONG.items(), ids=[kind.__name__ for kind in WRONG])
def test_what_is_wrong_with_all_hosts_ends_the_run(server, crew_of, tmp_path, kind, told):
    error, says = told
    with crew_of(SSH(hosts=server.hosts[:1], **{**server.options, **kind(tmp_path, server)})) as crew:
        with pytest.raises(error, match=says):
            look_after(crew)
        assert crew.waiting() == ""


def started_again(crew, before):
    now = crew.client.run(os.getpid, on_error="ignore")
    return now and not set(now.values()) & set(before.values())


def test_workers_that_die_are_started_again(one, server, far_ends, wait_for):
    before = one.client.run(os.getpid)
    for process in far_ends(server.hosts[0]):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    assert wait_for(lambda: started_again(one, before), 120)
    one.look_after()
    assert not one.is_blameless("ssh0-0-0-0")


def test_a_connection_that_is_cut_is_made_again_and_its_workers_are_blameless(one, server, wait_for):
    before = one.client.run(os.getpid)
    (worker,) = one.client.scheduler_info()["workers"].values()
    assert not one.is_blameless(worker["name"])
    for session in psutil.Process(int((server.folder / "pid").read_text())).children():
        session.kill()
    assert wait_for(lambda: one.is_blameless(worker["name"]))
    assert wait_for(lambda: started_again(one, before), 120)
    one.look_after()
    (fresh,) = one.client.scheduler_info()["workers"].values()
    assert not one.is_blameless(fresh["name"])


def test_workers_that_lose_the_scheduler_are_started_again(one, wait_for):
    def cut(dask_scheduler):
        for stream in dask_scheduler.stream_comms.values():
            stream.abort()

    before = one.client.run(os.getpid)
    one.client.run_on_scheduler(cut)
    assert wait_for(lambda: started_again(one, before), 120)
    one.look_after()


def test_a_host_behind_a_command_is_told_the_scheduler_s_own_address(server, crew_of, tmp_path):
    (tmp_path / "through.py").write_text(THROUGH)
    through = f"{sys.executable} {tmp_path}/through.py {server.hosts[0]} {server.port}"
    options = {**server.options["connect_options"], "proxy_command": through}
    with crew_of(SSH(hosts=server.hosts[:1], port=server.port, connect_options=options)) as crew:
        crew.client.wait_for_workers(1, timeout=120)


THROUGH = """
import os, socket, sys, threading

there = socket.create_connection((sys.argv[1], int(sys.argv[2])))

def back():
    while data := there.recv(65536):
        os.write(1, data)
    os._exit(0)

threading.Thread(target=back, daemon=True).start()
while data := os.read(0, 65536):
    there.sendall(data)
"""


def test_a_host_whose_clock_is_wrong_says_so(server, crew_of):
    now, day = dt.datetime.now(dt.timezone.utc), dt.timedelta(days=1)
    authority = Authority("ours", now - day, now + 9 * day)
    begins = {"worker": now + 2 * day}  # as a node sees it whose clock is two days behind
    made = {role: authority.certify(role, begins.get(role, now - day), now + 9 * day) for role in ROLES}
    security = tls.from_credentials(
        Credentials(authority.certificate, {r: c for r, (c, _) in made.items()}, {r: k for r, (_, k) in made.items()})
    )
    with (
        crew_of(SSH(hosts=server.hosts[:1], **server.options), security=security) as crew,
        pytest.raises(RunError, match=r"worker\.pem of this run is valid from .* this machine's clock says"),
    ):
        look_after(crew)


def test_each_process_of_a_host_has_its_gpus_and_cores(server, crew_of):
    ssh = SSH(hosts=server.hosts[:1], gpus=2, processes_per_gpu=2, cores=8, environment={"WHO": "me"}, **server.options)
    with crew_of(ssh) as crew:
        crew.client.wait_for_workers(4, timeout=120)
        names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "WHO")
        told = crew.client.run(lambda: [os.environ.get(name) for name in names])
        assert sorted(told.values()) == [["0", "2", "me"]] * 2 + [["1", "2", "me"]] * 2
        assert [worker["GPU"] for worker in crew.resources()] == [1.0] * 4


def test_nobody_without_the_run_s_certificate_gets_in(server, crew_of, place):
    security = tls.choose(None, place, remote=SSH.remote)
    with crew_of(SSH(hosts=server.hosts[:1], **server.options), security=security) as crew:
        crew.client.wait_for_workers(1, timeout=120)
        assert all(address.startswith("tls://") for address in crew.client.nthreads())
        for other in (None, tls.choose(True, place, remote=True)):
            address = crew.client.scheduler.address
            address = address if other else address.replace("tls://", "tcp://")
            with pytest.raises((OSError, TimeoutError, RuntimeError)):
                Client(address, security=other, timeout=3, set_as_default=False)
        assert crew.client.submit(sum, [1, 2]).result(timeout=60) == 3
