"""A real sshd for the tests: keys, port and settings of its own, on addresses of this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from mlipcluster.deploy.deployment import Place

PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin"
SSHD, KEYGEN = shutil.which("sshd", path=PATH), shutil.which("ssh-keygen", path=PATH)
HOW = "install an SSH server (Debian: apt-get install openssh-server)"
CONFIG = """
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile {folder}/pid
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
{listen}
"""


@dataclass(frozen=True)
class Sshd:
    """A running server.

    Attributes
    ----------
    hosts : tuple of str
        Addresses that it listens on.
    port : int
    folder : Path
    """

    hosts: tuple[str, ...]
    port: int
    folder: Path

    @property
    def options(self):
        """Arguments of `SSH` that lead to it."""
        known = {"known_hosts": str(self.folder / "known_hosts"), "client_keys": [str(self.folder / "user_key")]}
        return {"port": self.port, "connect_options": {**known, "config": None, "agent_path": None}}


@contextlib.contextmanager
def serve(folder, hosts=("127.0.0.2", "127.0.0.3")):
    """Start sshd on addresses of the loopback; at the end it is ended, and its connections with it."""
    _make_keys(folder)
    for _ in range(10):
        port = _free_port()
        process = _start(folder, "sshd", hosts, port)
        if process is not None:
            break
    else:
        raise AssertionError((folder / "log").read_text())
    try:
        yield Sshd(tuple(hosts), port, folder)
    finally:
        _end(process)


@contextlib.contextmanager
def two_machines(folder):
    """The same on two machines, as far as their network goes: each in a namespace of its own, where that is allowed."""
    hosts, port, made, processes = [], 2222, [], []
    _make_keys(folder)
    try:
        for number in range(2):
            name = f"mlip{os.getpid() % 100000}n{number}"
            near, far = (f"198.18.{os.getpid() % 250}.{4 * number + end}" for end in (1, 2))
            if not _make_namespace(name, near, far):
                break
            made.append(name)
            processes.append(_start(folder, name, [far], port, ["ip", "netns", "exec", name]))
            hosts.append(far)
        if len(hosts) == 2:
            yield Sshd(tuple(hosts), port, folder)
        else:
            with serve(folder / "one") as sshd:
                yield sshd
    finally:
        for process in filter(None, processes):
            _end(process)
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False)


def _make_namespace(name, near, far):
    """A network namespace, reached at *far* from this one's *near*."""
    inside = ["ip", "-n", name]
    commands = [
        ["ip", "netns", "add", name],
        ["ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name],
        ["ip", "addr", "add", f"{near}/30", "dev", name],
        ["ip", "link", "set", name, "up"],
        [*inside, "addr", "add", f"{far}/30", "dev", "eth0"],
        [*inside, "link", "set", "eth0", "up"],
        [*inside, "link", "set", "lo", "up"],
    ]
    if os.getuid() != 0 or shutil.which("ip", path=PATH) is None:
        return False
    if all(subprocess.run(command, check=False, capture_output=True).returncode == 0 for command in commands):
        return True
    subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
    return False


def _make_keys(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("host_key", "user_key"):
        subprocess.run([KEYGEN, "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")


def _start(folder, name, hosts, port, prefix=()):
    """A running sshd; None where the port is taken."""
    with (folder / "known_hosts").open("a") as known:
        known.writelines(f"[{host}]:{port} {(folder / 'host_key.pub').read_text()}" for host in hosts)
    listen = "\n".join(f"ListenAddress {host}:{port}" for host in hosts)
    (folder / f"{name}.config").write_text(CONFIG.format(folder=folder, listen=listen))
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd, as root, wants an empty folder
    log = folder / "log"
    with log.open("wb") as file:
        command = [*prefix, SSHD, "-D", "-e", "-f", folder / f"{name}.config"]
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    while process.poll() is None:
        if log.read_text().count("Server listening") == len(hosts):
            return process
        time.sleep(0.05)
    return None


def _end(process):
    process.terminate()
    process.wait(30)


def _free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.2", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """An sshd on two addresses of the loopback."""
    if SSHD is None or KEYGEN is None:
        pytest.skip(HOW)
    with serve(tmp_path_factory.mktemp("sshd")) as sshd:
        yield sshd


@pytest.fixture
def machines(tmp_path):
    """Two machines, or what passes for them here."""
    if SSHD is None or KEYGEN is None:
        pytest.skip(HOW)
    with two_machines(tmp_path / "sshd") as sshd:
        yield sshd


@pytest.fixture
def place(tmp_path):
    """What a run lends a deployment."""
    (tmp_path / "logs").mkdir()
    return Place("0" * 12, 0, tmp_path / "logs", tmp_path / "private" / "0", tmp_path / "jobs.jsonl")


@pytest.fixture
def crew_of(place):
    """``with crew_of(deployment) as crew``, which is closed at the end."""

    @contextlib.contextmanager
    def start(deployment, **changes):
        with contextlib.closing(deployment.start(replace(place, **changes))) as crew:
            yield crew

    return start


@pytest.fixture
def far_ends(server):
    """``far_ends(host)``: the processes of ours that run below the server's connections to that address."""

    def running(host):
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                told = process.environ().get("SSH_CONNECTION", "")
                if told.endswith(f" {host} {server.port}") and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    return running


@pytest.fixture
def wait_for():
    """``wait_for(true)``: whether it becomes so within a time."""

    def wait(true, seconds=60):
        for _ in range(10 * seconds):
            if true():
                return True
            time.sleep(0.1)
        return False

    return wait
