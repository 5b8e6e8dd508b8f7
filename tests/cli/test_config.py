from __future__ import annotations

import json

import pytest


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("MLIPCLUSTER_ROOT", raising=False)
    monkeypatch.setenv("MLIPCLUSTER_SERVE_RETRIES", "5")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.mlipcluster]\nuse_serve = false\n")
    return tmp_path


def test_each_value_and_where_it_came_from(cli, project):
    ran = cli("config")
    assert ran.exit_code == 0, ran.stderr
    lines = {line.split()[0]: line.split(maxsplit=2)[1:] for line in ran.stdout.splitlines()[1:]}
    lines = {key: [value, origin.strip()] for key, (value, origin) in lines.items()}
    assert lines["use_serve"] == ["false", str(project / "pyproject.toml")]
    assert lines["serve.retries"] == ["5", "MLIPCLUSTER_SERVE_RETRIES"]
    assert lines["serve.idle_timeout"] == ["300.0", "built in"]
    assert lines["serve.timeout"] == ["–", "built in"]


def test_for_programs(cli, project):
    found = json.loads(cli("config", "--json").stdout)
    assert found["use_serve"] == {"value": False, "origin": str(project / "pyproject.toml")}
    assert found["serve.address"] == {"value": None, "origin": "built in"}


def test_what_cannot_be_meant_is_told(cli, project, monkeypatch):
    monkeypatch.setenv("MLIPCLUSTER_SERVE_RETRIES", "five")
    ran = cli("config")
    assert ran.exit_code == 1
    assert "MLIPCLUSTER_SERVE_RETRIES: serve.retries is 'five'; give a whole number, 0 or more" in ran.stderr
