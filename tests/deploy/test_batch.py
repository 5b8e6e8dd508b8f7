from __future__ import annotations

import os
import pickle
import shlex
import subprocess
import sys
from pathlib import Path

import dask
import pytest

from mlipcluster.deploy.batch import Batch
from mlipcluster.deploy.deployment import Range
from mlipcluster.deploy.slurm import Slurm
from mlipcluster.deploy.table import DEPLOYMENTS, deployment_class
from mlipcluster.errors import InputError

KINDS = [kind for kind in DEPLOYMENTS if issubclass(deployment_class(kind), Batch)]


@pytest.fixture(autouse=True)
def no_settings_of_this_user():
    with dask.config.set({"jobqueue": {}}):
        yield


def test_a_value_is_compared_and_kept():
    one = Slurm(queue="gpu", directives=["--qos=high"], environment={"A": "1"}, workers=[0, 4])
    assert one == Slurm(queue="gpu", directives=("--qos=high",), environment={"A": "1"}, workers=Range(0, 4))
    assert one != Slurm(queue="cpu")
    assert hash(one) == hash(pickle.loads(pickle.dumps(one)))
    assert Slurm(prologue="module load cuda").prologue == ("module load cuda",)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, Range(0, 1)),
        ({"workers": 5}, Range(5, 5)),
        ({"workers": Range(2, 64)}, Range(2, 64)),
        ({"max_workers": 8}, Range(0, 8)),
        ({"min_workers": 3}, Range(3, 3)),
        ({"min_workers": 3, "max_workers": 8}, Range(3, 8)),
    ],
)
def test_how_many_workers(fields, told):
    assert Slurm(**fields).range == told


@pytest.mark.parametrize(
    ("fields", "processes", "cores", "offers"),
    [
        ({}, 1, 1, {}),
        ({"cores": 8}, 1, 8, {}),
        ({"processes": 4}, 4, 4, {}),
        ({"gpus": 2}, 2, 2, {"GPU": 1}),
        ({"gpus": 2, "processes_per_gpu": 3}, 6, 6, {"GPU": 1}),
        ({"gpus": 4, "processes": 1, "cores": 8}, 1, 8, {"GPU": 4}),
        ({"gpus": 4, "processes": 2}, 2, 2, {"GPU": 2}),
    ],
)
def test_what_is_left_out_follows(fields, processes, cores, offers):
    settled = Slurm(**fields).settled()
    assert (settled.processes, settled.cores, settled.walltime) == (processes, cores, 1800)
    assert settled.offers() == Slurm(**fields).offers() == offers
    assert settled.settled() == settled


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"queue": ""}, "queue=''.*one line"),
        ({"queue": "a\n#SBATCH --exclusive"}, "queue=.*one line"),
        ({"cores": 0}, "cores=0.*whole number from 1"),
        ({"cores": True}, "cores=True"),
        ({"cores": 1.5}, r"cores=1\.5"),
        ({"memory": "lots"}, "memory='lots'.*32 GB"),
        ({"memory": 0}, "memory=0"),
        ({"gpus": -1}, "gpus=-1"),
        ({"processes": 0}, "processes=0"),
        ({"processes": 4, "cores": 2}, "cores=2 are fewer"),
        ({"gpus": 4, "cores": 2}, "cores=2 are fewer"),
        ({"processes_per_gpu": 2}, "processes_per_gpu=2 without gpus"),
        ({"gpus": 4, "processes": 3}, "processes=3 cannot share gpus=4"),
        ({"gpus": 4, "processes": 2, "processes_per_gpu": 2}, "cannot share gpus=4 by processes_per_gpu=2"),
        ({"walltime": "12:00"}, "hours or minutes"),
        ({"walltime": 20}, "walltime=20 leaves no time.*grace=30"),
        ({"walltime": "0:10:00", "grace": 600}, "leaves no time"),
        ({"workers": Range(3, 2)}, "workers=Range"),
        ({"workers": Range(0, 0)}, "workers=Range"),
        ({"workers": 0}, "workers=0"),
        ({"workers": "many"}, "workers='many'"),
        ({"workers": 3, "max_workers": 4}, "workers= and min_workers="),
        ({"min_workers": 5, "max_workers": 4}, "min_workers=5 is more than max_workers=4"),
        ({"max_queued": 0}, "max_queued=0"),
        ({"directives": ["--a\n--b"]}, "directives=.*list of lines"),
        ({"directives": [3]}, "directives"),
        ({"prologue": [""]}, "prologue"),
        ({"python": ""}, "python=''"),
        ({"interface": "ib0", "host": "login1"}, "interface='ib0' and host='login1'"),
        ({"start_timeout": 0}, "start_timeout=0"),
        ({"idle_timeout": float("nan")}, "idle_timeout=nan"),
        ({"grace": -1}, "grace=-1"),
        ({"environment": {"A B": "1"}}, "environment="),
        ({"environment": {"A": 1}}, "environment="),
        ({"same_versions": "yes"}, "same_versions='yes'"),
    ],
)
@pytest.mark.parametrize("kind", [Slurm, deployment_class("htcondor")])
def test_what_cannot_be_meant_is_refused_at_once(kind, fields, words):
    with pytest.raises(InputError, match=words):
        kind(**fields)


def test_the_users_dask_settings_stand_in_for_what_is_left_out():
    told = {
        "queue": "long",
        "account": "mat",
        "cores": 12,
        "memory": "24 GB",
        "walltime": "30",
        "local-directory": "/local",
        "job-script-prologue": ["module load x"],
        "job-extra-directives": ["--qos=high"],
        "log-directory": "/nowhere/at/all",
        "shebang": "#!/bin/sh",
    }
    with dask.config.set({"jobqueue": {"slurm": told}}):
        settled = Slurm().settled()
        assert (settled.queue, settled.account, settled.cores) == ("long", "mat", 12)
        assert (settled.scratch, settled.walltime) == ("/local", 1800)  # a number alone: SLURM's minutes
        text = Slurm(queue="short").script(["x"], name="n", logs=Path("/l"))
        other = Slurm(prologue=["mine"], directives=["--exclusive"]).script(["x"], name="n", logs=Path("/l"))
    assert not Path("/nowhere/at/all").exists()
    assert text.startswith("#!/bin/sh\n")
    assert "#SBATCH -p short\n#SBATCH -A mat\n" in text
    assert "#SBATCH --qos=high\nmodule load x\n" in text
    assert "module load x" not in other
    assert "--qos" not in other


@pytest.mark.parametrize(
    ("kind", "written", "seconds"),
    [
        ("slurm", "30", 1800),  # minutes
        ("slurm", "90:00", 5400),  # minutes:seconds
        ("pbs", "90:00", 5400),  # [[hours:]minutes:]seconds
        ("pbs", "3600", 3600),
        ("moab", "90:00", 5400),
        ("sge", "3600", 3600),
        ("lsf", "90", 5400),  # [hours:]minutes
        ("lsf", "1:30", 5400),
        ("oar", "2", 7200),  # hours[:minutes[:seconds]]
        ("oar", "1:30", 5400),
    ],
)
def test_a_walltime_of_the_users_settings_is_read_as_the_system_reads_it(kind, written, seconds):
    with dask.config.set({"jobqueue": {kind: {"walltime": written}}}):
        assert deployment_class(kind)().settled().walltime == seconds


def test_where_the_scheduler_listens_in_the_users_settings_is_no_quarrel_with_a_host():
    with dask.config.set({"jobqueue": {"slurm": {"interface": "ib0"}}}):
        assert Slurm().settled().interface == "ib0"
        settled = Slurm(host="login1").settled()
    assert (settled.interface, settled.host) == (None, "login1")


def test_a_refused_setting_of_dask_is_refused_by_its_name():
    with (
        dask.config.set({"jobqueue": {"slurm": {"cores": "many"}}}),
        pytest.raises(InputError, match="cores='many'"),
    ):
        Slurm().settled()


def test_the_interpreter(tmp_path):
    env = tmp_path / "an env"
    (env / "bin").mkdir(parents=True)
    assert Slurm().interpreter == sys.executable
    assert Slurm(python=str(env)).interpreter == str(env / "bin" / "python")
    assert Slurm(python="/on/the/node/bin/python3.11").interpreter == "/on/the/node/bin/python3.11"
    assert Slurm(python="/on/the/node/env").interpreter == "/on/the/node/env/bin/python"
    (tmp_path / "python3").mkdir()
    assert Slurm(python=str(tmp_path / "python3")).interpreter == str(tmp_path / "python3" / "bin" / "python")
    with pytest.raises(InputError, match="python='mace' names an environment of a root, and no root is named"):
        _ = Slurm(python="mace").interpreter


@pytest.mark.parametrize("folder", ['/a"b', "/a$b", "/a\nb", "/a\\b", "/a`b", "/a%b"])
def test_a_folder_that_no_script_can_name_is_refused(folder):
    with pytest.raises(InputError, match="cannot be named in a job script"):
        Slurm().script(["x"], name="n", logs=Path(folder))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "htcondor"])
def test_a_script_is_what_a_shell_can_run(kind, tmp_path):
    """Its directives are comments to the shell; what comes then is run here, its command at the end."""
    told = 'it\'s "so" $HOME\nand so'
    one = deployment_class(kind)(environment={"TOLD": told}, prologue=["export MORE='1 2'"])
    code = "import os; print(os.environ['TOLD'], os.environ['MORE'], os.getppid())"
    text = one.script([sys.executable, "-c", code], name="job", logs=tmp_path / "with space")
    (tmp_path / "with space").mkdir()
    variables = {"PBS_JOBID": "1", "MOAB_JOBID": "1", "PBS_O_WORKDIR": str(tmp_path)}
    shell = ["bash", "-c", f"bash -c {shlex.quote(text)}; echo"]
    done = subprocess.run(shell, env={**os.environ, **variables}, capture_output=True, text=True, check=True)
    printed = one.log(tmp_path / "with space", "job", "1")
    assert (printed.read_text() if printed.exists() else done.stdout).startswith(f"{told} 1 2 ")


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_that_a_system_does_not_have_is_no_argument(kind):
    with pytest.raises(TypeError, match="no_such_field"):
        deployment_class(kind)(no_such_field=1)
