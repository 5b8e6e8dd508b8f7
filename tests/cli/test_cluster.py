from __future__ import annotations

import json
import shlex
import sys

import pytest


@pytest.fixture
def settings_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("MLIPCLUSTER_ROOT", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    file = tmp_path / "config" / "mlipcluster" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text(
        '[clusters.gpu]\ntype = "slurm"\nqueue = "gpu"\ngpus = 1\nroot = "/mlips"\n[clusters.here]\ntype = "local"\n'
    )
    return file


def test_clusters_are_listed_with_who_says_so(cli, settings_file):
    ran = cli("cluster", "list", "--json")
    assert ran.exit_code == 0
    found = {row["name"]: row for row in json.loads(ran.stdout)}
    assert found["gpu"] == {"name": "gpu", "type": "slurm", "root": "/mlips", "origins": [str(settings_file)]}
    assert found["della"]["origins"] == ["built in"]
    assert found["della"]["type"] is None
    table = cli("cluster", "list").stdout
    assert [line.split()[:3] for line in table.splitlines() if line.startswith(("gpu", "here"))] == [
        ["gpu", "slurm", "/mlips"],
        ["here", "local", "–"],
    ]


def test_the_job_script_is_shown(cli, settings_file, tmp_path):
    ran = cli("cluster", "show", "gpu", "-o", tmp_path / "a run")
    assert ran.exit_code == 0
    assert "#SBATCH -p gpu\n" in ran.stdout
    assert "#SBATCH --gres=gpu:1\n" in ran.stdout
    assert f'#SBATCH --output="{tmp_path}/a run/logs/mlipcluster-RUN-0-%j.log"\n' in ran.stdout
    command = shlex.join([sys.executable, "-m", "mlipcluster.deploy.node", "JOB_SPEC", "job0-1"])
    assert ran.stdout.endswith(f"\nexec {command}\n")
    assert not (tmp_path / "a run").exists()


def test_fields_can_be_changed(cli, settings_file):
    ran = cli("cluster", "show", "gpu", "--set", "queue=long", "-s", "gpus=2", "-s", 'directives=["--qos=high"]')
    assert "#SBATCH -p long\n" in ran.stdout
    assert "#SBATCH --gres=gpu:2\n#SBATCH --qos=high\n" in ran.stdout


def test_a_kind_is_shown_without_a_file(cli, settings_file):
    ran = cli("cluster", "show", "pbs", "-s", "cores=8")
    assert "#PBS -l select=1:ncpus=8\n" in ran.stdout


def test_a_cluster_without_jobs_shows_its_fields(cli, settings_file):
    assert cli("cluster", "show", "here").stdout == "Local(max_workers=None, min_workers=None, cores=1)\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "there is no cluster 'nowhere'; known: della"),
        (["della"], "has a root of environments, but does not say where workers run; add a type"),
        (["gpu", "-s", "gpus=-1"], "--set: clusters.gpu: gpus=-1 cannot be meant"),
        (["gpu", "-s", "quee=x"], "--set: clusters.gpu.quee: nobody reads 'quee' of type 'slurm'"),
        (["gpu", "-s", "type=slrum"], "--set: clusters.gpu.type: deployment 'slrum' is unknown; known: local"),
    ],
)
def test_what_cannot_be_shown(cli, settings_file, arguments, words):
    ran = cli("cluster", "show", *arguments)
    assert ran.exit_code == 1
    assert words in ran.stderr


def test_a_run_takes_a_named_cluster(cli, settings_file, tmp_path):
    (tmp_path / "Cu.xyz").write_text("1\n\nCu 0 0 0\n")
    arguments = ["run", "single_point", tmp_path / "Cu.xyz", "-c", "emt", "-o", tmp_path / "run", "--no-progress"]
    ran = cli(*arguments, "--cluster", "here", "--max-workers", "1")
    assert ran.exit_code == 0
    assert "1 output, 0 failed" in ran.stdout
    again = cli(*arguments, "--cluster", "nowhere")
    assert again.exit_code == 1
    assert "there is no cluster 'nowhere'" in again.stderr
