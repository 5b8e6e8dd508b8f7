from __future__ import annotations

import json

import pytest


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project with a table of calculators."""
    for name in ("MLIPCLUSTER_ROOT", "MLIPCLUSTER_SERVE_CALCULATORS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "registry.py").write_text(
        "from ase.calculators.lj import LennardJones\n\n"
        "CALCULATORS = {'LJ': LennardJones, 'far': {'command': ['mlipcluster', 'worker', 'a b', '{name}']}}\n"
    )
    return tmp_path


def test_what_is_known_is_listed_with_its_source(cli, folder):
    ran = cli("list", "--calculators", "registry.py:CALCULATORS")
    assert ran.exit_code == 0, ran.stderr
    lines = {line.split()[0]: line.split(maxsplit=1)[1].rstrip() for line in ran.stdout.splitlines()[1:]}
    assert lines["LJ"].split() == ["ase.calculators.lj:LennardJones", "registry.py:CALCULATORS"]
    assert lines["far"].startswith("mlipcluster worker 'a b' '{name}' ")
    assert lines["emt"].split(maxsplit=1) == ["ase.calculators.emt:EMT", "built in"]


def test_a_project_names_its_tables(cli, folder):
    (folder / "pyproject.toml").write_text("[tool.mlipcluster.serve]\ncalculators = ['registry.py:CALCULATORS']\n")
    found = json.loads(cli("list", "--json").stdout)
    rows = {row["name"]: row for row in found["calculators"]}
    assert rows["LJ"]["source"] == f"{folder}/registry.py:CALCULATORS"
    assert rows["LJ"]["spec"]["factory"] == "ase.calculators.lj:LennardJones"
    assert rows["far"]["command"] == ["mlipcluster", "worker", "a b", "{name}"]
    assert rows["far"]["spec"] is None


def test_secrets_are_not_printed(cli, folder):
    (folder / "secret.py").write_text(
        "T = {'x': {'factory': 'a:b', 'environment': {'HF_TOKEN': 'hush'}, 'kwargs': {'url': 'https://me:hush@host/'}}}\n"
    )
    ran = cli("list", "--json", "--calculators", "secret.py:T")
    assert "HF_TOKEN" in ran.stdout
    assert "hush" not in ran.stdout


def test_complaints_of_sources_are_warnings(cli, folder, make_root):
    store = make_root("mlips")
    (store.layout.sources / "broken.py").write_text("def setup(\n")
    ran = cli("list", "--root", store.root)
    assert ran.exit_code == 0
    assert "emt" in ran.stdout
    assert "warning: " in ran.stderr
    assert "broken" in ran.stderr
    assert json.loads(cli("list", "--root", store.root, "--json").stdout)["complaints"]


def test_a_server_lists_what_it_has_and_no_table_beside(cli, folder):
    ran = cli("list", "--address", "s", "--calculators", "registry.py:CALCULATORS")
    assert ran.exit_code == 2
    assert "--calculators means nothing with it" in ran.stderr


def test_a_table_that_is_not_there_is_an_error(cli, folder):
    ran = cli("list", "--calculators", "none.py:T")
    assert ran.exit_code == 1
    assert "there is no Python file" in ran.stderr
