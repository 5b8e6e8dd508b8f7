"""A real sshd for a test: keys, port and settings of its own, on addresses of this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

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
    process : subprocess.Popen
    """

    hosts: tuple[str, ...]
    port: int
    folder: Path
    process: subprocess.Popen

    @property
    def options(self):
        """Arguments of `SSH` that lead to it."""
        known = {"known_hosts": str(self.folder / "known_hosts"), "client_keys": [str(self.folder / "user_key")]}
        return {"port": self.port, "connect_options": {**known, "config": None, "agent_path": None}}

    def log(self):
        return (self.folder / "log").read_text(errors="replace")


@contextlib.contextmanager
def serve(folder, hosts=("127.0.0.2", "127.0.0.3"), prefix=()):
    """Start sshd, with *prefix* before its command; end it and the connections that it has."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("host_key", "user_key"):
        if not (folder / name).exists():
            subprocess.run([KEYGEN, "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "authorized_keys").write_text((folder / "user_key.pub").read_text())
    for _ in range(10):
        port = _free_port() if not prefix else 2222
        (folder / "known_hosts").write_text(
            "".join(f"[{host}]:{port} {(folder / 'host_key.pub').read_text()}" for host in hosts)
        )
        listen = "\n".join(f"ListenAddress {host}:{port}" for host in hosts)
        (folder / "sshd_config").write_text(CONFIG.format(folder=folder, listen=listen))
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where sshd, as root, wants an empty folder
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*prefix, SSHD, "-D", "-e", "-f", folder / "sshd_config"], stdout=log, stderr=log, start_new_session=True
            )
        if _listens(folder, process):
            break
        process.wait(10)
    else:
        raise AssertionError((folder / "log").read_text())
    try:
        yield Sshd(tuple(hosts), port, folder, process)
    finally:
        process.terminate()
        process.wait(30)


def _free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.2", 0))
        return found.getsockname()[1]


def _listens(folder, process):
    while process.poll() is None:
        if "Server listening" in (folder / "log").read_text():
            return True
        time.sleep(0.05)
    return False
