from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mlipcluster.deploy.jobqueue import FIELDS, user_setting, write_script
from mlipcluster.errors import InputError

IMPORTS = """
import os, signal, sys, threading
from pathlib import Path

before = signal.getsignal(signal.SIGINT)
def script():
    from mlipcluster.deploy.slurm import Slurm
    text = Slurm().script(["command"], name="job", logs=Path("/logs"))
    assert "exec command" in text
{how}
assert "dask_jobqueue" in sys.modules
assert signal.getsignal(signal.SIGINT) is before is signal.default_int_handler
found = [path for path in Path(os.environ["HOME"]).rglob("*") if path.name == "jobqueue.yaml"]
assert not found, found
print("fine")
"""
IN_A_THREAD = """
failed = []
threading.excepthook = failed.append
thread = threading.Thread(target=script)
thread.start(); thread.join()
assert not failed, failed
"""


@pytest.mark.parametrize("how", ["script()", IN_A_THREAD], ids=["main", "thread"])
def test_its_import_changes_nothing_in_the_world(how, tmp_path):
    """Neither in the home folder nor to Ctrl-C; and it works in threads, where signals cannot be set."""
    env = {name: text for name, text in os.environ.items() if not name.startswith(("DASK_", "XDG_"))}
    command = [sys.executable, "-c", IMPORTS.format(how=how)]
    done = subprocess.run(
        command, env={**env, "HOME": str(tmp_path)}, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stdout == "fine\n", done.stderr


def test_what_it_would_write_into_the_home_folder_it_would_without_us(tmp_path):
    """The trap is there: should it go one day, so can the detour."""
    env = {name: text for name, text in os.environ.items() if not name.startswith(("DASK_", "XDG_"))}
    code = "import dask_jobqueue, signal; assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], env={**env, "HOME": str(tmp_path)}, check=True)
    assert list(tmp_path.rglob("jobqueue.yaml"))


def test_it_may_be_imported_while_settings_are_set_for_a_while(tmp_path):
    code = """
import dask
from pathlib import Path
from mlipcluster.deploy.slurm import Slurm
with dask.config.set({"jobqueue": {"slurm": {"queue": "long"}}}):
    assert "-p long" in Slurm().script(["command"], name="job", logs=Path("/logs"))
assert "#SBATCH -p" not in Slurm().script(["command"], name="job", logs=Path("/logs"))
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_users_own_settings_are_asked_for_by_their_names(monkeypatch):
    import dask

    with dask.config.set({"jobqueue.slurm.job-script-prologue": ["module load x"]}):
        assert user_setting("slurm", FIELDS["prologue"]) == ["module load x"]
    assert user_setting("slurm", "nothing-of-that-name") is None


def test_the_command_is_ours_in_full():
    options = {"cores": 1, "memory": "1 GB", "processes": 1, "job_name": "j", "name": "j"}
    text = write_script("pbs:PBSJob", options, ["first"], "exec the command")
    assert text.endswith("\nfirst\nexec the command\n")
    assert "dask" not in text


def test_one_line_is_one_line():
    options = {"cores": 1, "memory": "1 GB", "processes": 1, "job_name": "j", "name": "j", "disk": "1 GB"}
    text = write_script("htcondor:HTCondorJob", options, ["first"], "exec it", one_line=True)
    assert "Arguments = \"-c 'first; exec it'\"" in text
    with pytest.raises(InputError, match="one line"):
        write_script("htcondor:HTCondorJob", options, ["a\nb"], "exec it", one_line=True)
