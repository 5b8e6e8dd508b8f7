"""docs/ssh.md: its example is run on hosts that a real sshd lets one in to, and every field is explained."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from ase.build import bulk

from mlipcluster.clusters import configured
from mlipcluster.deploy.configured import field_names
from mlipcluster.deploy.ssh import SSH
from mlipcluster.outputs.results import Results

TEXT = (Path(__file__).parents[2] / "docs" / "ssh.md").read_text(encoding="utf-8")


def block(language):
    (found,) = re.findall(rf"(?ms)^```{language}\n(.*?)^```", TEXT)
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*uncommitted changes:UserWarning")
def test_the_example_runs(server, tmp_path, monkeypatch):
    text = block("python")
    for written, here in {
        '["node1", "node2"]': repr(list(server.hosts)),
        'python="/shared/envs/mlip"': f"python={sys.executable!r}, **options",
        '"mace-medium"': '"emt"',
    }.items():
        assert written in text
        text = text.replace(written, here)
    (tmp_path / "structures").mkdir()
    for name in ("Cu", "Ag"):
        bulk(name).write(tmp_path / "structures" / f"{name}.cif")
    monkeypatch.chdir(tmp_path)
    exec(text, {"options": server.options})
    assert len(Results.open(tmp_path / "runs" / "relax").outputs) == 2


def test_the_settings_are_taken(tmp_path, monkeypatch):
    (tmp_path / "mlipcluster").mkdir()
    (tmp_path / "mlipcluster" / "config.toml").write_text(block("toml"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert configured("office") == SSH(hosts=["node1", "node2"], gpus=2)


def test_every_field_is_explained():
    assert [name for name in field_names(SSH) if f"`{name}`" not in TEXT] == []
