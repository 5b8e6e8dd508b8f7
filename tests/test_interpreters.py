from __future__ import annotations

import os
import shutil
import sys
import sysconfig

import pytest
from ase.build import bulk

from mlipcluster import Local, MLIPCluster, Slurm
from mlipcluster.errors import MLIPClusterError
from mlipcluster.interpreters import environment_here, remember_environment
from mlipcluster.protocols import single_point

pytestmark = pytest.mark.filterwarnings("ignore:.*uncommitted changes:UserWarning", "ignore:security=False")

METALS = [bulk(name) for name in ("Cu", "Ag")]


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "workers.json"


@pytest.fixture
def other(tmp_path):
    """The interpreter of another environment, which sees what is installed in this one."""
    folder = tmp_path / "env"
    site = folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    site.mkdir(parents=True)
    (folder / "bin").mkdir()
    base = os.path.realpath(sys.executable)
    (folder / "bin" / "python").symlink_to(base)
    (folder / "pyvenv.cfg").write_text(f"home = {os.path.dirname(base)}\ninclude-system-site-packages = false\n")
    return folder / "bin" / "python"


def install(python, name):
    (site,) = python.parent.parent.glob("lib/*/site-packages")
    (site / f"{name}-1.0.dist-info").mkdir()
    (site / f"{name}-1.0.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")


def test_what_workers_told_holds_as_long_as_the_same_is_measured(cache, other):
    interpreters = [str(other), sys.executable]
    assert environment_here(interpreters, cache) is None
    remember_environment("a" * 64, interpreters, cache)
    assert environment_here(interpreters, cache) == "a" * 64
    assert environment_here(interpreters, cache, asked=1) is None  # these were not asked
    install(other, "more")
    assert environment_here(interpreters, cache) is None


def test_the_same_interpreter_serves_several_clusters(cache):
    remember_environment("a" * 64, [sys.executable] * 2, cache, asked=1)
    assert environment_here([sys.executable] * 2, cache) == "a" * 64


@pytest.mark.parametrize("python", [None, "/on/the/nodes/alone/bin/python"])
def test_where_an_interpreter_is_not_seen_workers_have_to_be_asked(cache, python):
    remember_environment("a" * 64, [sys.executable], cache)
    remember_environment("b" * 64, [sys.executable, python], cache)
    assert environment_here([sys.executable, python], cache) is None
    assert environment_here([sys.executable], cache) is None  # and what was known of another run is gone


def test_an_interpreter_that_is_none_is_asked_for(cache, tmp_path):
    (tmp_path / "python").write_text("no program")
    assert environment_here([str(tmp_path / "python")], cache) is None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"told": {}}'])
def test_a_damaged_file_is_as_none(cache, text):
    cache.write_text(text)
    assert environment_here([sys.executable], cache) is None


# --- a finished run --------------------------------------------------------------------------------------------------


def test_a_finished_run_on_slurm_needs_no_slurm(tmp_path, monkeypatch, capsys):
    options = {"output_path": tmp_path / "run", "seed": 7, "calculator": "emt", "security": False}
    with monkeypatch.context() as patch:
        patch.setattr(Slurm, "start", lambda self, place: Local(1).start(place))
        first = MLIPCluster(
            METALS, cluster=Slurm(queue="cpu", walltime="1:00:00"), progress=False, **options
        ).distribute(single_point)
    assert first.counts == {"output": 2, "failed": 0, "empty": 0}
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").symlink_to(shutil.which("git"))  # measures what is installed from a checkout
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert shutil.which("sbatch") is shutil.which("squeue") is None
    again = MLIPCluster(METALS, cluster=Slurm(queue="cpu", walltime="1:00:00"), **options).distribute(single_point)
    assert [one["finished"] for one in again.entries] == [one["finished"] for one in first.entries]
    assert "2/2 done (2 earlier)" in capsys.readouterr().err
    with pytest.raises((MLIPClusterError, OSError), match=r"sbatch|squeue"):
        MLIPCluster([*METALS, bulk("Au")], cluster=Slurm(queue="cpu", walltime="1:00:00"), **options).distribute(
            single_point
        )


def test_jobs_that_a_lost_driver_left_are_looked_for_also_where_all_is_finished(tmp_path, monkeypatch):
    options = {"output_path": tmp_path / "run", "seed": 7, "security": False, "progress": False}
    started = []

    def start(self, place):
        started.append(place)
        return Local(1).start(place)

    monkeypatch.setattr(Slurm, "start", start)
    for expected in (1, 1):
        MLIPCluster(METALS, cluster=Slurm(), **options).distribute(same)
        assert len(started) == expected
    (tmp_path / "run" / "jobs.jsonl").touch()
    MLIPCluster(METALS, cluster=Slurm(), **options).distribute(same)
    assert len(started) == 2


def same(atoms):
    return atoms
