"""A real SLURM of two nodes for the tests here, started once a process that runs tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")


@dataclass(frozen=True)
class RunningSlurm:
    """What tests ask of it, and do to it."""

    folder: Path

    def queue(self, *options: str) -> list[str]:
        """Lines of squeue: jobs that wait or run.

        Those that a node is still to clear up after (COMPLETING) have ended; SLURM asks a node whose daemon was killed
        once a minute or two.
        """
        return self.tell("squeue", "--noheader", "--states=pending,running,suspended", *options).splitlines()

    def running(self) -> list[str]:
        return self.tell("squeue", "--noheader", "--states=running", "--format=%i").splitlines()

    def tell(self, *command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def up(self) -> None:
        """Start what is not running."""
        subprocess.run(["bash", SCRIPTS / "slurm_up.sh", self.folder], check=True, capture_output=True, timeout=120)

    def kill_daemon(self, name: str) -> None:
        os.kill(int((self.folder / "run" / f"{name}.pid").read_text()), signal.SIGKILL)

    def processes(self) -> list[psutil.Process]:
        """What jobs of this SLURM run."""
        found = []
        for process in psutil.process_iter():
            try:
                told = process.environ()
            except psutil.Error:
                continue
            if told.get("SLURM_CONF") == str(self.folder / "slurm.conf") and "SLURM_JOB_ID" in told:
                found.append(process)
        return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A SLURM; `SLURM_CONF` names it for as long as tests run."""
    lacking = [name for name in ("munged", "slurmctld", "slurmd") if shutil.which(name, path="/usr/sbin:/sbin") is None]
    if not IN_CI and (lacking or os.getuid() != 0):
        pytest.skip(f"needs {', '.join(lacking) or 'root'}: as root, apt-get install slurm-wlm munge")
    folder = tmp_path_factory.mktemp("slurm") / "state"
    # The paths of sockets are short, and those of tests may not be.
    with pytest.MonkeyPatch.context() as patch:
        done = subprocess.run(
            ["bash", SCRIPTS / "slurm_up.sh", folder], capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        try:
            yield RunningSlurm(folder)
        finally:
            subprocess.run(["bash", SCRIPTS / "slurm_down.sh", folder], check=True, capture_output=True, timeout=120)


@pytest.fixture(autouse=True)
def nothing_is_left(slurm):
    """Whatever a test does, it leaves the queue empty and the nodes without a process of its own."""
    yield
    until(lambda: not slurm.queue(), 30)
    until(lambda: not slurm.processes(), 30)


def until(done, seconds: float = 60.0):
    """Wait for something; what it gave when it was true at last."""
    begun = time.monotonic()
    while not (found := done()):
        assert time.monotonic() - begun < seconds, f"not within {seconds} s"
        time.sleep(0.2)
    return found


@pytest.fixture(name="until")
def until_fixture():
    return until


@pytest.fixture
def slurm_jobs():
    """A deployment of small jobs: ``slurm_jobs(workers=(0, 2), **fields)``."""
    from mlipcluster.deploy.slurm import Slurm

    def make(**fields):
        usual = {"memory": "1 GB", "workers": (0, 2), "grace": 5, "walltime": "00:10:00", "idle_timeout": 5}
        return Slurm(**{**usual, **fields})

    return make


@pytest.fixture
def on_slurm(tmp_path):
    """A run on the workers of deployments: ``on_slurm(tasks, *clusters, **options) -> MLIPCluster``."""
    from mlipcluster import MLIPCluster

    def make(tasks, *clusters, **options):
        warnings.filterwarnings("ignore", message=".*uncommitted changes", category=UserWarning)
        usual = {"output_path": tmp_path / "run", "seed": 7, "progress": False}
        return MLIPCluster(tasks, clusters=clusters, **{**usual, **options})

    return make
