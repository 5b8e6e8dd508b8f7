"""``mlipcluster env dump`` and ``env recreate``: the scripts' own functions behind another command line."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def output(make_sealed, write_record):
    return write_record(make_sealed())


@pytest.mark.parametrize("name", ["dump", "recreate"])
def test_a_command_explains_itself(cli, name):
    result = cli("env", name, "--help")
    assert result.exit_code == 0
    assert "--env-dir" in result.stdout


@pytest.mark.parametrize("flag", [[], ["--input-file"], ["--input_file"]])
def test_an_output_is_dumped(cli, output, tmp_path, flag):
    result = cli("env", "dump", *flag, output, "--env_dir", tmp_path / "env")
    assert (result.exit_code, result.stderr) == (0, "")
    assert {path.name for path in (tmp_path / "env").iterdir()} == {"requirements.txt", "environment.json"}
    assert f"  mlipcluster env recreate --env-dir {tmp_path / 'env'}" in result.stdout.splitlines()
    again = cli("env", "dump", *flag, output, "--env-dir", tmp_path / "env")
    assert again.exit_code == 1
    assert "--force" in again.stderr
    assert cli("env", "dump", *flag, output, "--env-dir", tmp_path / "env", "--force").exit_code == 0


@pytest.mark.parametrize("flag", ["--output-name", "--output_name", "--decoy-name", "--decoy_name"])
def test_a_scorefile_is_dumped(cli, output, tmp_path, flag):
    line = {"status": "output", "name": "Cu", "slot": "a/0//0", "file": output.name}
    (tmp_path / "ledger.jsonl").write_text(json.dumps(line) + "\n")
    for number, file in enumerate((["--scorefile", tmp_path], [tmp_path / "ledger.jsonl"])):
        result = cli("env", "dump", *file, flag, "Cu", "--env-dir", tmp_path / str(number))
        assert (result.exit_code, result.stderr) == (0, "")


def test_an_output_of_a_real_run(cli, output_file, tmp_path):
    result = cli("env", "dump", output_file, "--env-dir", tmp_path / "env")
    assert (result.exit_code, result.stderr) == (0, "")
    shown = cli("env", "recreate", "--env-dir", tmp_path / "env", "--dry-run", "--force")
    assert shown.exit_code == 0, shown.stderr
    assert [line for line in shown.stdout.splitlines() if line.startswith("$ ") and "venv" in line]
    assert {path.name for path in (tmp_path / "env").iterdir()} == {"requirements.txt", "environment.json"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["dump"],
        ["dump", "a", "--input-file", "b"],
        ["dump", "--scorefile", "a"],
        ["dump", "a", "--scorefile", "b", "--output-name", "c"],
        ["recreate", "--package", "x"],
        ["recreate", "--timeout", "-1"],
    ],
)
def test_wrong_command_lines(cli, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("env", *arguments).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_errors_are_one_paragraph(cli, tmp_path):
    result = cli("env", "dump", tmp_path / "gone")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    result = cli("env", "recreate", "--env-dir", tmp_path)
    assert result.exit_code == 1
    assert "holds no lock file" in result.stderr


def test_a_damaged_record_has_its_own_status(cli, tmp_path):
    (tmp_path / "a.json").write_text('{"mlipcluster": {"schema": 99}}')
    result = cli("env", "dump", tmp_path / "a.json", "--env-dir", tmp_path / "env")
    assert (result.exit_code, "newer mlipcluster" in result.stderr) == (6, True)
    assert not (tmp_path / "env").exists()
