from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import psutil

from mlipcluster.process import python_command


def test_a_worker_whose_driver_is_gone_before_it_was_reached_ends():
    lifeline_end, lifeline = os.pipe()
    spec = json.dumps({"cls": "distributed.Nanny", "opts": {"dashboard": False, "host": "127.0.0.1"}})
    command = python_command("mlipcluster.deploy.worker", str(lifeline_end), "tcp://127.0.0.1:9", "--spec", spec)
    with subprocess.Popen(command, pass_fds=(lifeline_end,), stderr=subprocess.DEVNULL) as process:
        os.close(lifeline_end)
        handle = psutil.Process(process.pid)
        while process.poll() is None and not handle.net_connections() and handle.num_threads() < 2:
            time.sleep(0.05)  # it imports Dask
        assert process.poll() is None
        os.close(lifeline)
        assert process.wait(30) == -signal.SIGIO
