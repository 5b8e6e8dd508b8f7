"""A calculator that a Dask worker hosts: frames are handed on whole, whatever else is said meanwhile."""

from __future__ import annotations

import socket
import threading

import numpy as np
import pytest
from ase.build import bulk

from mlipcluster.calculators.host import WorkerHost
from mlipcluster.deploy.certificates import issue
from mlipcluster.deploy.tls import from_credentials
from mlipcluster.serving import far
from mlipcluster.serving.credentials import server_context, worker_context
from mlipcluster.serving.dial import TlsConnection
from mlipcluster.socket_worker import wire


class Handed:
    """The server's end of a connection to a host of a calculator."""

    def __init__(self, sock):
        self.socket = sock
        self.decoder = wire.Decoder()

    def ask(self, atoms):
        arrays = {"numbers": atoms.numbers, "positions": atoms.positions, "cell": atoms.cell.array, "pbc": atoms.pbc}
        header = {"kind": "calculate", "whole": True, "info": {}, "properties": ["energy", "forces"]}
        self.socket.sendall(wire.encode(header, arrays, request_id=7))

    def hear(self):
        """The next frame; None at the end."""
        while (message := self.decoder.next()) is None:
            count = self.socket.recv_into(self.decoder.space())
            if not count:
                return None
            self.decoder.received(count)
        return message


@pytest.fixture
def handed(trial):
    """A calculator whose frames are handed on over TLS: ``handed(name)``."""
    security, running = from_credentials(issue()), []

    def start(name):
        ours, theirs = socket.socketpair()
        host = WorkerHost(trial(name))
        host.start()

        def hand_on():
            with worker_context(security).wrap_socket(theirs) as sock:
                far._hand_on(TlsConnection(sock), host)

        thread = threading.Thread(target=hand_on)
        thread.start()
        server = server_context(security).wrap_socket(ours, server_side=True)
        server.settimeout(60.0)
        running.append((server, thread, host))
        return Handed(server)

    yield start
    for server, thread, host in running:
        server.close()
        thread.join()
        host.stop()


def test_an_answer_is_not_broken_by_what_else_is_said(handed, monkeypatch):
    monkeypatch.setattr(far, "MEMORY_EVERY", 0.0)
    server = handed("Trial")
    atoms = bulk("Cu", cubic=True) * (40, 40, 10)
    atoms.rattle(0.1, seed=1)
    for _ in range(5):
        server.ask(atoms)
        while (message := server.hear()).id == 0:
            assert message.header["kind"] == "memory"
        assert message.id == 7
        assert np.all(message.arrays["forces"] == -1.0)
