"""Where a server listens, when there are no descriptors left to take anybody."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import time

import psutil
import pytest

from mlipcluster.serving import address
from mlipcluster.serving.asking import ask
from mlipcluster.serving.listeners import Listeners
from mlipcluster.serving.loop import Loop
from mlipcluster.serving.remote_calculator import RemoteCalculator

SERVER = """
import resource, sys
from mlipcluster.calculators.known import Known
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.serving.offer import Offer
from mlipcluster.serving.server import Server
known = Known("emt", "a test", CalculatorSpec("ase.calculators.emt:EMT"), None)
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
Server(Offer({"emt": known}), sys.argv[1]).run()
"""


@pytest.fixture
def small(tmp_path, until):
    """A server that may have 60 descriptors; its process and address."""
    path = str(tmp_path / "own" / "s")
    process = subprocess.Popen([sys.executable, "-c", SERVER, path], stderr=subprocess.PIPE)
    until(lambda: os.path.exists(path))
    yield psutil.Process(process.pid), path
    process.terminate()
    process.communicate(timeout=30)


def test_without_descriptors_who_is_there_is_served_and_others_as_soon_as_there_are_some(small, cu, until):
    process, path = small
    with RemoteCalculator("emt", path) as calculator, contextlib.ExitStack() as crowd:
        right = calculator.get_property("energy", cu())
        for _ in range(80):
            crowd.enter_context(address.connect(path))
        until(lambda: process.num_fds() == 60)
        assert calculator.get_property("energy", cu(1)) != right
        assert calculator.get_property("energy", cu()) == right
        before, begun = sum(process.cpu_times()[:2]), time.monotonic()
        time.sleep(1.0)
        assert sum(process.cpu_times()[:2]) - before < (time.monotonic() - begun) / 2  # it does not turn in circles
        assert process.num_fds() == 60
        crowd.close()
        with RemoteCalculator("emt", path) as other:
            assert other.get_property("energy", cu()) == right
    until(lambda: ask("status", path)["clients"] == 1)


def test_who_cannot_be_taken_is_asked_for_again_at_the_next_tick_alone(tmp_path, caplog):
    """Here with the limit of this process, at its listener alone."""
    import resource

    loop, met = Loop(), []
    listeners = Listeners(loop, tmp_path / "own" / "s", lambda sock, _: met.append(sock))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        with socket.socket(socket.AF_UNIX) as client, caplog.at_level(logging.WARNING, "mlipcluster"):
            client.connect(listeners.path)
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
            try:
                for _ in range(5):
                    loop.wait(0.01)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            assert caplog.text.count("no more clients can be taken for now") == 1
            assert met == []
            loop.resume()
            loop.wait(10)
            assert len(met) == 1
    finally:
        for sock in met:
            sock.close()
        listeners.close()
        loop.finish()
        loop.close()


def test_a_socket_that_has_another_owner_meanwhile_is_left_to_it(tmp_path):
    loop = Loop()
    listeners = Listeners(loop, tmp_path / "s", lambda *_: None)
    os.unlink(listeners.path)
    other = Listeners(loop, tmp_path / "s", lambda *_: None)
    listeners.close()
    assert os.path.exists(other.path)
    other.close()
    assert not os.path.exists(other.path)
    assert tmp_path.is_dir()  # it was there before
    loop.finish()
    loop.close()
