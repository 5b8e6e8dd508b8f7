"""One suite for every batch system: a job script is submitted, seen, runs, ends, is cancelled and found.

SLURM is real (``scripts/slurm_up.sh``). The others are fakes that take what those document, and run the jobs
(``tests/fakes/fake_batch.py``).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlipcluster.deploy.batch import Batch
from mlipcluster.deploy.queues import ENDED, PENDING, RUNNING
from mlipcluster.deploy.table import DEPLOYMENTS, deployment_class
from mlipcluster.errors import RunError

SYSTEMS = [kind for kind in DEPLOYMENTS if issubclass(deployment_class(kind), Batch)]
ROOT = Path(__file__).parents[2]
FAKES = ROOT / "tests" / "fakes"
HOSTILE = "a 'b' c"
PATIENCE = 60


@dataclass
class Site:
    """A batch system, and what is submitted to it here."""

    kind: str
    folder: Path

    def deployment(self, **fields):
        usual = {"memory": "50 MB"} if self.kind == "slurm" else {}
        return deployment_class(self.kind)(**{"cores": 1, **usual, **fields})

    @property
    def logs(self):
        return self.folder / HOSTILE

    def submit(self, code, name="job", **fields):
        deployment = self.deployment(**fields)
        script = deployment.script([sys.executable, "-c", f"exec({code!r})"], name=name, logs=self.logs)
        return deployment.system.submit(script, self.folder)

    @property
    def system(self):
        return self.deployment().system

    def wait(self, job, *states):
        for _ in range(10 * PATIENCE):
            found = self.system.look([job])[job]
            if found.state in states:
                return found
            time.sleep(0.1)
        raise AssertionError(f"job {job} is {found}")

    def printed(self, job, name="job"):
        return self.deployment().log(self.logs, name, job).read_text()

    def fill(self, monkeypatch):
        """Leave no room for further jobs; what asks for more than there is waits as well."""
        if self.kind != "slurm":
            (self.folder / "state" / "slots").write_text("1")
            return {}
        return {"cores": 16, "queue": "cpu"}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """The real one; its configuration's path."""
    if shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin") is None and os.environ.get("CI") != "true":
        pytest.skip("no SLURM here; as root: apt-get install slurm-wlm munge")
    folder = tmp_path_factory.mktemp("slurm")
    done = subprocess.run(["bash", ROOT / "scripts/slurm_up.sh", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    yield folder / "slurm.conf"
    subprocess.run(["bash", ROOT / "scripts/slurm_down.sh", folder], check=True)


@pytest.fixture(params=SYSTEMS)
def site(request, tmp_path, monkeypatch):
    monkeypatch.setattr("mlipcluster.deploy.queues.PAUSE", 0.05)
    folder = tmp_path / "site"
    (folder / HOSTILE).mkdir(parents=True)
    (folder / "state").mkdir()
    if request.param == "slurm":
        monkeypatch.setenv("SLURM_CONF", str(request.getfixturevalue("slurm")))
        yield Site("slurm", folder)
        return
    programs, state = folder / "bin", folder / "state"
    faces = [sys.executable, FAKES / "fake_batch_faces.py", request.param, programs, state]
    subprocess.run(faces, check=True)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    yield Site(request.param, folder)
    ending = {**os.environ, "FAKE_BATCH": str(state)}
    subprocess.run([sys.executable, FAKES / "fake_batch.py", "end"], env=ending, check=True)


def test_a_job_runs_where_it_was_submitted_and_prints_into_its_file(site):
    code = "import os, sys; print(os.getcwd(), os.environ['TOLD'], flush=True); print('and this', file=sys.stderr)"
    told = 'it\'s "so" $HOME $(so)'
    job = site.submit(code, environment={"TOLD": told}, prologue=["echo $(echo $((1 + 2)))"])
    assert site.wait(job, ENDED).reason == "COMPLETED"
    assert site.printed(job).splitlines() == ["3", f"{site.folder} {told}", "and this"]


def test_how_a_job_ended_is_told(site):
    failed = site.wait(site.submit("raise SystemExit(7)"), ENDED)
    assert failed.reason == "FAILED (exit code 7)"
    assert failed.node


def test_a_job_is_its_command(site):
    """No shell stands between: the command gets the batch system's signals."""
    code = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('warned', flush=True), os._exit(0)))\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    job = site.submit(code)
    site.wait(job, RUNNING)
    wait_for(lambda: site.deployment().log(site.logs, "job", job).exists() and "ready" in site.printed(job))
    site.system.cancel([job])
    site.wait(job, ENDED)
    assert "warned" in site.printed(job)


def test_jobs_wait_are_found_and_cancelled(site, monkeypatch):
    whole = site.fill(monkeypatch)
    running = site.submit("import time; time.sleep(600)", **whole)
    assert site.wait(running, RUNNING).node
    waiting = site.submit("import time; time.sleep(600)", **whole)
    other = site.submit("import time; time.sleep(600)", name="other", **whole)
    seen = site.system.look([running, waiting])
    assert seen[waiting].state == PENDING
    assert seen[waiting].reason or site.kind == "htcondor"  # which says nothing of an idle job
    assert sorted(site.system.find("job")) == sorted([running, waiting])
    assert site.system.find("nobody") == []
    site.system.cancel([running, waiting])
    assert {site.wait(job, ENDED).reason for job in (running, waiting)} == {"CANCELLED"}
    assert site.system.find("job") == []
    site.system.cancel([running, waiting])  # once more does no harm
    site.system.cancel([other])
    site.wait(other, ENDED)


@pytest.mark.parametrize("site", ["slurm"], indirect=True)
def test_variables_that_stand_for_options_are_for_the_user_s_own_use(site, monkeypatch):
    monkeypatch.setenv("SQUEUE_PARTITION", "gpu")
    monkeypatch.setenv("SCANCEL_PARTITION", "gpu")
    monkeypatch.setenv("SCANCEL_INTERACTIVE", "1")
    job = site.submit("import time; time.sleep(600)", queue="cpu")
    site.wait(job, RUNNING)
    assert site.system.find("job") == [job]
    site.system.cancel([job])
    assert site.wait(job, ENDED).reason == "CANCELLED"


def test_what_the_system_does_not_know_has_ended(site):
    job = site.submit("pass")
    site.wait(job, ENDED)
    number = job.split(".")[0]
    unknown = job.replace(number, "99999", 1)
    seen = site.system.look([unknown, job])
    assert seen[unknown].state == ENDED
    assert seen[job].reason == "COMPLETED"
    assert site.system.look([unknown])[unknown].state == ENDED
    assert site.system.look([]) == {}
    site.system.cancel([unknown])
    site.system.cancel([])


def test_a_refusal_is_passed_on(site):
    if site.kind == "htcondor":
        with pytest.raises(RunError, match=r"condor_submit.*unknown command.*cluster show"):
            site.submit("pass", directives=["no_such_thing = 1"])
    else:
        with pytest.raises(
            RunError, match=r"(?i)(invalid partition|unknown queue|queue nowhere|no such queue).*cluster show"
        ):
            site.submit("pass", queue="nowhere")


def test_gpus_and_all_else_are_taken(site):
    """The fakes refuse what is not documented; SLURM's two are only names, and are shown to the job."""
    fields = {} if site.kind == "htcondor" else {"queue": "gpu"}
    code = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'))"
    job = site.submit(code, gpus=2, cores=2, memory="200 MB", walltime="2:00:00", **fields)
    assert site.wait(job, ENDED).reason == "COMPLETED"
    if site.kind == "slurm":
        assert site.printed(job) == "0,1\n"


@pytest.mark.parametrize("site", [kind for kind in SYSTEMS if kind != "slurm"], indirect=True)
def test_a_walltime_ends_a_job(site, monkeypatch):
    """Of the fakes, whose clocks can be hurried."""
    monkeypatch.setenv("FAKE_BATCH_SPEED", "60")
    job = site.submit("import time; time.sleep(600)", walltime=60, grace=0)
    assert site.wait(job, ENDED).reason == "TIMEOUT"


@pytest.mark.parametrize("site", ["oar"], indirect=True)
def test_the_warning_comes_before_the_end(site, monkeypatch):
    """SLURM's own is shown in tests/slurm: its shortest walltime is a minute."""
    monkeypatch.setenv("FAKE_BATCH_SPEED", "5")  # it has 8 s to get ready for the warning
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('warned', flush=True), sys.exit(3)))\n"
        "time.sleep(600)\n"
    )
    job = site.submit(code, walltime=100, grace=60)
    assert site.wait(job, ENDED).reason == "FAILED (exit code 3)"
    assert site.printed(job) == "warned\n"


def test_a_command_that_lacks_is_named(site, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(RunError, match=r"there is no command .* login node"):
        site.system.find("job")


def wait_for(condition):
    for _ in range(10 * PATIENCE):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen")


@pytest.mark.slow
@pytest.mark.parametrize("site", [kind for kind in SYSTEMS if kind != "slurm"], indirect=True)
def test_a_run_on_it_tells_in_its_records_which_job_it_was(site):
    """From the deployment's value to the record and an empty queue; on the real SLURM: tests/slurm."""
    from ase.build import bulk

    from mlipcluster import MLIPCluster
    from mlipcluster.outputs.output import read_output
    from mlipcluster.protocols import single_point

    run = MLIPCluster(
        [bulk("Cu"), bulk("Ag")],
        "emt",
        cluster=site.deployment(walltime="1:00:00", grace=5),
        output_path=site.folder / "run",
        seed=1,
        progress=False,
    )
    results = run.distribute(single_point)
    assert results.counts["output"] == 2
    jobs = [read_output(file).record["metadata"]["machine"]["job"] for file in (site.folder / "run").rglob("*.extxyz")]
    assert {job["system"] for job in jobs} == {site.kind}
    assert {state.state for state in site.system.look({job["id"] for job in jobs}).values()} == {ENDED}
