"""docs/clusters.md shows what is printed, and names every field."""

from __future__ import annotations

import re
from pathlib import Path

import dask
import pytest

from mlipcluster.deploy.batch import Batch
from mlipcluster.deploy.configured import field_names
from mlipcluster.deploy.slurm import Slurm
from mlipcluster.deploy.table import DEPLOYMENTS, deployment_class

TEXT = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"(?ms)^## [^\n]*: `(\w+)`\n(.*?)(?=^## |\Z)", TEXT)
KINDS = {found.__name__: kind for kind in DEPLOYMENTS if issubclass(found := deployment_class(kind), Batch)}


def blocks(text, language):
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", text)


def test_every_batch_system_has_a_section():
    assert [name for name, _ in SECTIONS] == list(KINDS)


@pytest.mark.parametrize(("name", "section"), SECTIONS, ids=[name for name, _ in SECTIONS])
def test_each_example_is_what_is_printed(cli, tmp_path, monkeypatch, name, section):
    (toml,), (script,) = blocks(section, "toml"), blocks(section, "sh")
    (tmp_path / "mlipcluster").mkdir()
    (tmp_path / "mlipcluster" / "config.toml").write_text(toml)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with dask.config.set({"jobqueue": {}}):
        ran = cli("cluster", "show", re.search(r"\[clusters\.(.*)\]", toml)[1], "-o", "/home/ada/runs/relax")
    assert ran.stderr == ""
    assert ran.stdout.rstrip() == script.rstrip()
    assert f'type = "{KINDS[name]}"' in toml


def test_every_field_is_explained():
    table = TEXT.split("## Fields")[1].split("\n## ")[0]
    assert [name for name in field_names(Slurm) if f"`{name}`" not in table] == []
    for name, section in SECTIONS:
        own = set(field_names(deployment_class(KINDS[name]))) - set(field_names(Slurm))
        assert [field for field in own if field not in section] == []


def test_the_first_examples_are_taken(cli, tmp_path, monkeypatch):
    (python,), (toml, *_), (console,) = (blocks(TEXT, language) for language in ("python", "toml", "console"))
    names = {}
    exec("\n".join(line for line in python.splitlines() if not line.startswith("MLIPCluster(")), names)
    assert names["gpu"].range == (0, 64)
    (tmp_path / "mlipcluster").mkdir()
    (tmp_path / "mlipcluster" / "config.toml").write_text(toml)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    listing, showing = re.findall(r"(?m)^\$ mlipcluster (cluster .*)$", console)
    assert re.search(r"(?m)^gpu +slurm ", cli(*listing.split()).stdout)
    assert "#SBATCH --gres=gpu:2\n" in cli(*showing.split()).stdout
