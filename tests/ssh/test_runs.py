"""Runs on hosts that a real sshd lets one in to."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import psutil
import pytest
from ase.build import bulk
from distributed import Client

from mlipcluster import MLIPCluster, reproduce
from mlipcluster.deploy import ssh_host, tls
from mlipcluster.deploy.certificates import ROLES
from mlipcluster.deploy.deployment import Place
from mlipcluster.deploy.ssh import SSH
from mlipcluster.errors import MismatchError, RunError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*uncommitted changes:UserWarning")]
TASKS = 8


def rattled(atoms, rng, notes):
    import os
    import pathlib
    import time

    time.sleep(0.5)
    atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
    lines = [path.read_bytes() for path in pathlib.Path("/proc").glob("[0-9]*/cmdline")]
    shown = any(b"PRIVATE KEY" in line for line in lines)
    with open(notes, "a") as file:
        file.write(f"{os.environ.get('SSH_CONNECTION', '- - here -').split()[2]} {shown}\n")
    return atoms


def measured(atoms, calc):
    atoms.calc = calc
    atoms.get_potential_energy()
    return atoms


def place_in(folder):
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    return Place("0" * 12, 0, folder / "logs", folder / "private" / "0", folder / "jobs.jsonl")


def wait_for(true, seconds=60):
    for _ in range(10 * seconds):
        if true():
            return True
        time.sleep(0.1)
    return False


@contextlib.contextmanager
def crew_of(deployment, folder):
    crew = deployment.start(place_in(folder))
    try:
        yield crew
    finally:
        crew.close()


def far_ends(near):
    """The processes of ours that run below this sshd's connections."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SSH_CONNECTION", "").endswith(f" {near}") and process.is_running():
                found.append(process)
    return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def secrets(monkeypatch):
    """A line out of the middle of each key that is made meanwhile."""
    found, choose = [], tls.choose

    def remember(*arguments, **options):
        made = choose(*arguments, **options)
        found.extend(getattr(made, f"tls_{role}_key").split()[4].encode() for role in ROLES if made is not None)
        return made

    monkeypatch.setattr(tls, "choose", remember)
    return found


def test_two_protocols_on_two_machines(machines, tmp_path, secrets):
    notes = tmp_path / "notes"
    tasks = [{"atoms": bulk("Cu", cubic=True, a=3.6 + 0.01 * n), "notes": str(notes)} for n in range(TASKS)]
    ssh = SSH(hosts=machines.hosts, **machines.options)
    cluster = MLIPCluster(tasks, "emt", cluster=ssh, seed=7, output_path=tmp_path / "run", progress=False)
    results = cluster.distribute(rattled, measured)
    assert (len(results.outputs), len(results.failures)) == (TASKS, 0)
    assert set(notes.read_text().splitlines()) == {f"{host} False" for host in machines.hosts}
    assert not (tmp_path / "run" / "private").exists()
    written = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert len(secrets) == len(ROLES)
    assert not any(secret in written for secret in secrets)
    audit = reproduce(input_file=results.outputs[0].path, protocols=[rattled, measured])
    assert notes.read_text().splitlines()[-1].startswith("here ")
    assert audit.verdict == "identical", audit


SCRIPT = """
import sys, time
from ase.build import bulk
from mlipcluster import MLIPCluster
from mlipcluster.deploy.ssh import SSH

def waits(atoms, begun):
    import pathlib, time
    pathlib.Path(begun).touch()
    time.sleep(600)

MLIPCluster({{"atoms": bulk("Cu"), "begun": {begun!r}}}, cluster=SSH(hosts={hosts!r}, **{options!r}),
            output_path={run!r}, progress=False).distribute(waits)
"""


def test_workers_end_with_a_driver_that_is_killed(server, tmp_path):
    begun = tmp_path / "begun"
    text = SCRIPT.format(begun=str(begun), hosts=server.hosts, options=server.options, run=str(tmp_path / "run"))
    (tmp_path / "script.py").write_text(text)
    with subprocess.Popen([sys.executable, tmp_path / "script.py"], start_new_session=True) as driver:
        assert wait_for(begun.exists, 120)
        ends = [f"{host} {server.port}" for host in server.hosts]
        assert all(map(far_ends, ends))
        driver.kill()
    assert wait_for(lambda: not any(map(far_ends, ends)))
    assert not list(Path(os.environ.get("TMPDIR", "/tmp")).glob(f"mlipcluster-job-{os.getuid()}-*/worker.key"))


def test_a_host_that_is_down_is_told_and_the_others_go_on(server, tmp_path, monkeypatch):
    monkeypatch.setattr(ssh_host, "AGAIN_SECONDS", 0.1)
    ssh = SSH(hosts=(server.hosts[0], "127.0.0.9"), **server.options)
    with crew_of(ssh, tmp_path) as crew:
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
    path = folder / "python-of-another-kind"
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
def test_what_is_wrong_with_all_hosts_ends_the_run(server, tmp_path, monkeypatch, kind, told):
    monkeypatch.setattr(ssh_host, "AGAIN_SECONDS", 0.1)
    error, says = told
    with crew_of(SSH(hosts=server.hosts[:1], **{**server.options, **kind(tmp_path, server)}), tmp_path) as crew:
        with pytest.raises(error, match=says):
            look_after(crew)
        assert crew.waiting() == ""


def test_a_host_s_workers_that_die_are_started_again(server, tmp_path, monkeypatch):
    monkeypatch.setattr(ssh_host, "AGAIN_SECONDS", 0.1)
    with crew_of(SSH(hosts=server.hosts[:1], **server.options), tmp_path) as crew:
        crew.client.wait_for_workers(1, timeout=120)
        before = crew.client.run(os.getpid)
        for process in far_ends(f"{server.hosts[0]} {server.port}"):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)

        def again():
            now = crew.client.run(os.getpid, on_error="ignore")
            return now and not set(now.values()) & set(before.values())

        assert wait_for(again, 120)
        crew.look_after()


def test_each_process_of_a_host_has_its_gpus_and_cores(server, tmp_path):
    ssh = SSH(hosts=server.hosts[:1], gpus=2, processes_per_gpu=2, cores=8, environment={"WHO": "me"}, **server.options)
    with crew_of(ssh, tmp_path) as crew:
        crew.client.wait_for_workers(4, timeout=120)
        names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "WHO")
        told = crew.client.run(lambda: [os.environ.get(name) for name in names])
        assert sorted(told.values()) == [["0", "2", "me"]] * 2 + [["1", "2", "me"]] * 2
        assert [worker["GPU"] for worker in crew.resources()] == [1.0] * 4


def test_nobody_without_the_run_s_certificate_gets_in(server, tmp_path):
    place = place_in(tmp_path)
    place = Place(**{**place.__dict__, "security": tls.choose(None, place, remote=SSH.remote)})
    crew = SSH(hosts=server.hosts[:1], **server.options).start(place)
    try:
        crew.client.wait_for_workers(1, timeout=120)
        assert all(address.startswith("tls://") for address in crew.client.nthreads())
        for security in (None, tls.choose(True, place, remote=True)):
            address = crew.client.scheduler.address
            address = address if security else address.replace("tls://", "tcp://")
            with pytest.raises((OSError, TimeoutError, RuntimeError)):
                Client(address, security=security, timeout=3, set_as_default=False)
        assert crew.client.submit(sum, [1, 2]).result(timeout=60) == 3
    finally:
        crew.close()
