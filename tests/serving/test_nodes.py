"""Calculators that Dask workers host; those of jobs are in ``tests/slurm``."""

from __future__ import annotations

import threading

from mlipcluster.calculators.known import Known
from mlipcluster.deploy.local import Local
from mlipcluster.serving.asking import ask
from mlipcluster.serving.nodes import Nodes
from mlipcluster.serving.offer import Offer
from mlipcluster.serving.remote_calculator import RemoteCalculator
from mlipcluster.serving.server import Options, Server


def test_the_end_waits_for_no_start(tmp_path, trial, cu, until):
    offer = Offer({"slow": Known("slow", "a test", trial("BuildsSlowly", args=(3600.0,)), None)})
    nodes = Nodes(Local(max_workers=1), tmp_path / "folder")
    server = Server(offer, tmp_path / "own" / "s", Options(start_timeout=3600.0), nodes)
    running = threading.Thread(target=server.run)
    running.start()
    caught = []

    def call():
        with RemoteCalculator("slow", server.address, retries=0) as calculator:
            try:
                calculator.get_property("energy", cu())
            except Exception as error:
                caught.append(error)

    asking = threading.Thread(target=call)
    asking.start()
    until(lambda: ask("status", server.address)["workers"])
    server.stop()
    asking.join()
    running.join()
    assert "the server ends" in str(caught[0])
    assert not (tmp_path / "folder").exists()
