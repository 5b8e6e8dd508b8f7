from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from mlipcluster.deploy.credentials_folder import read_folder

DOCS = Path(__file__).parents[2] / "docs" / "tls.md"


def test_new_ones_can_be_used_and_shown(cli, tmp_path):
    folder = tmp_path / "its 'keys'"
    made = cli("tls", "new", folder, "--days", "3", "--dns", "node1.example.org", "--ip", "10.0.0.7", "--name", "ours")
    assert (made.exit_code, made.stderr) == (0, "")
    assert "made credentials for 3 days" in made.stdout
    assert read_folder(folder).require_encryption
    shown = cli("tls", "show", folder)
    assert shown.exit_code == 0
    assert [line.split()[0] for line in shown.stdout.splitlines()] == ["authority", "scheduler", "worker", "client"]
    assert "ours worker  for node1.example.org, 10.0.0.7" in shown.stdout
    told = json.loads(cli("tls", "show", folder, "--json").stdout)
    assert told["wrong"] is None
    assert told["certificates"][1]["for"] == ["node1.example.org", "10.0.0.7"]
    for printed in (made, shown):
        assert "PRIVATE" not in printed.stdout


def test_what_is_there_is_replaced_by_force_alone(cli, tmp_path):
    assert cli("tls", "new", tmp_path / "tls").exit_code == 0
    before = (tmp_path / "tls" / "ca.pem").read_text()
    again = cli("tls", "new", tmp_path / "tls")
    assert again.exit_code == 1
    assert "has credentials already" in again.stderr
    assert "--force" in again.stderr
    assert (tmp_path / "tls" / "ca.pem").read_text() == before
    assert cli("tls", "new", tmp_path / "tls", "--force").exit_code == 0
    assert (tmp_path / "tls" / "ca.pem").read_text() != before


def test_what_cannot_be_used_is_shown_with_the_reason(cli, tmp_path):
    cli("tls", "new", tmp_path / "tls")
    (tmp_path / "tls" / "worker.key").chmod(0o644)
    shown = cli("tls", "show", tmp_path / "tls")
    assert shown.exit_code == 1
    assert "authority" in shown.stdout
    assert "read by others" in shown.stderr
    told = cli("tls", "show", tmp_path / "tls", "--json")
    assert told.exit_code == 1
    assert "chmod 600" in json.loads(told.stdout)["wrong"]


def test_the_example_of_the_docs(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    lines = re.findall(r"(?m)^\$ mlipcluster (tls .*)$", DOCS.read_text(encoding="utf-8"))
    new, shown = (cli(*shlex.split(line)) for line in lines)
    assert (new.exit_code, shown.exit_code) == (0, 0)
    assert "login1.example.org" in shown.stdout
    assert read_folder(tmp_path / "tls").require_encryption


def test_there_may_be_nothing(cli, tmp_path):
    shown = cli("tls", "show", tmp_path)
    assert shown.exit_code == 1
    assert "there are no certificates in" in shown.stderr


def test_a_folder_that_others_may_look_into_is_refused_at_once(cli, tmp_path):
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls").chmod(0o755)
    made = cli("tls", "new", tmp_path / "tls")
    assert made.exit_code == 1
    assert "chmod 700" in made.stderr
    assert not list((tmp_path / "tls").iterdir())


def test_wrong_values_are_told(cli, tmp_path):
    assert "days=0" in cli("tls", "new", tmp_path / "tls", "--days", "0").stderr
    assert not (tmp_path / "tls").exists()
