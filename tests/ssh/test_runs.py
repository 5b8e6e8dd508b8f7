"""Runs on hosts that a real sshd lets one in to."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from ase.build import bulk

from mlipcluster import MLIPCluster, reproduce
from mlipcluster.deploy import tls
from mlipcluster.deploy.certificates import ROLES
from mlipcluster.deploy.ssh import SSH

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*uncommitted changes:UserWarning")]
TASKS = 8


def rattled(atoms, rng, notes):
    import pathlib

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


def test_workers_end_with_a_driver_that_is_killed(server, far_ends, wait_for, tmp_path):
    begun, scratch = tmp_path / "begun", tmp_path / "scratch"
    options = {**server.options, "scratch": str(scratch)}
    text = SCRIPT.format(begun=str(begun), hosts=server.hosts, options=options, run=str(tmp_path / "run"))
    (tmp_path / "script.py").write_text(text)
    with subprocess.Popen([sys.executable, tmp_path / "script.py"], start_new_session=True) as driver:
        assert wait_for(begun.exists, 120)
        assert all(map(far_ends, server.hosts))
        assert len(list(scratch.rglob("worker.key"))) == len(server.hosts)
        driver.kill()
    assert wait_for(lambda: not any(map(far_ends, server.hosts)))
    assert not list(scratch.rglob("worker.key"))
