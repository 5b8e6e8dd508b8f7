"""What can be read on the wire while a run goes on: with TLS neither structures nor pickles."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections import defaultdict

import pytest
from ase.build import bulk

from mlipcluster import MLIPCluster

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*uncommitted changes:UserWarning")]

TCPDUMP = shutil.which("tcpdump", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
LATTICE = 3.6123456789012345
MARK = "a-word-that-nobody-else-says"
LAST = b"the-last-word-that-is-captured"


def marked(atoms):
    import time

    time.sleep(0.1)
    atoms.info["word"] = "a-word-that-" + "nobody-else-says"
    return atoms


@pytest.fixture
def captured(tmp_path):
    """``with captured() as packets: …``; then ``packets()`` gives the bytes that went over the loopback."""
    if TCPDUMP is None:
        pytest.skip("install tcpdump (Debian: apt-get install tcpdump)")
    started = []

    def start(name):
        file = tmp_path / f"{name}.pcap"
        process = subprocess.Popen(
            [TCPDUMP, "-i", "lo", "-U", "-s", "0", "-B", "65536", "-w", file, "tcp"], stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        first = process.stderr.readline()
        while first and "listening on" not in first:
            if "permission" in first.lower() or "not permitted" in first.lower():
                pytest.skip("run as root, or give tcpdump the right to capture (setcap cap_net_raw+ep)")
            first = process.stderr.readline()
        assert first, "tcpdump did not start"

        def packets(ports):
            send(LAST)
            for _ in range(600):  # tcpdump gets what was captured up to a second later, or more on a busy machine
                if LAST in file.read_bytes():
                    break
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            process.wait(30)
            capture = file.read_bytes()
            assert LAST in capture, "tcpdump did not write down all that it saw"
            return b"".join(streams(capture, ports))

        return packets

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stderr.close()


def send(data):
    """Send these bytes over the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
        near.sendall(data)
        with server.accept()[0] as far:
            assert far.recv(len(data)) == data


def streams(capture, ports):
    """What went each way through the connections of these ports; other programs talk over the loopback too."""
    found = defaultdict(bytes)
    assert capture[:4] == b"\xd4\xc3\xb2\xa1"  # https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcap/
    at = 24
    while at < len(capture):
        length = int.from_bytes(capture[at + 8 : at + 12], "little")
        frame = capture[at + 16 : at + 16 + length]
        at += 16 + length
        if frame[12:14] == b"\x08\x00":  # IPv4
            tcp = frame[14 + 4 * (frame[14] & 15) :]
            ends = (int.from_bytes(tcp[:2], "big"), int.from_bytes(tcp[2:4], "big"))
            if ports.intersection(ends):
                found[ends] += tcp[4 * (tcp[12] >> 4) :]
    return found.values()


def ports_of(client):
    """Where scheduler, workers and nannies listen; each connection has one of these at one end."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    addresses = [client.scheduler.address, *workers, *(worker["nanny"] for worker in workers.values())]
    return {int(address.rpartition(":")[2]) for address in addresses}


def run(folder, security):
    """Run; give the ports that were in use."""
    atoms = bulk("Cu", a=LATTICE)
    atoms.info["word"] = MARK
    cluster = MLIPCluster([atoms], security=security, max_workers=1, output_path=folder, progress=False)
    with cluster:
        for output in cluster.generate(marked):
            assert output.atoms.info["word"] == MARK
        return ports_of(cluster._workers._crews[0].client)


SIGNS = {
    "a structure's word": MARK.encode(),
    "a structure's numbers": re.escape(struct.pack("<d", bulk("Cu", a=LATTICE).cell[0, 1])),
    "a pickle of ours": b"mlipcluster.calls",
    "a pickle of cloudpickle's": b"cloudpickle",
    "a pickle's head": rb"\x80\x05\x95...\x00{5}",
}
"""What an onlooker recognises, as patterns; long enough not to come about by chance in what is encrypted."""


def readable(packets):
    return {name for name, sign in SIGNS.items() if re.search(sign, packets, re.DOTALL)}


def test_with_tls_nothing_can_be_read_and_without_everything(captured, tmp_path):
    packets = captured("plain")
    plain = packets(run(tmp_path / "plain", security=False))
    packets = captured("tls")
    tls = packets(run(tmp_path / "tls", security=True))
    assert readable(plain) == set(SIGNS)
    assert readable(tls) == set()
    assert len(tls) > 10_000  # the run was there to be seen
