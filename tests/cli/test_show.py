from __future__ import annotations

import json

from mlipcluster.outputs.output import read_output


def test_a_record_is_shown_for_people(cli, output_file):
    result = cli("show", output_file)
    assert result.exit_code == 0
    for text in ("Cu.extxyz#0", "fmax=0.05", "ase.calculators.emt:EMT()", "Ada Lovelace", "root seed 3", "energy"):
        assert text in result.stdout


def test_the_parts_can_be_had_by_themselves(cli, output_file):
    record = read_output(output_file).record
    assert json.loads(cli("show", output_file, "--json").stdout) == record
    assert cli("show", output_file, "--environment").stdout.strip() == record["instance"]["environment"].strip()
    assert "def single_point(" in cli("show", output_file, "--source").stdout
    assert "no uncommitted changes" in cli("show", output_file, "--diff").stdout


def test_one_part_at_a_time(cli, output_file):
    assert cli("show", output_file, "--json", "--diff").exit_code == 2


def test_a_changed_file_is_shown_and_told(cli, output_file, tmp_path):
    changed = tmp_path / "changed.extxyz"
    changed.write_bytes(output_file.read_bytes().replace(b"Ada", b"Eve", 1))
    result = cli("show", changed)
    assert result.exit_code == 6
    assert "changed.extxyz" in result.stderr
    assert "Eve Lovelace" in result.stdout


def test_a_run_folder_is_shown_as_its_table(cli, relaxed):
    result = cli("show", relaxed[0])
    assert result.exit_code == 1  # one of its tasks failed
    assert "Cu.extxyz#0" in result.stdout
    assert "broken.cif" in result.stdout


def test_what_is_no_output_says_so(cli, tmp_path):
    (tmp_path / "plain.xyz").write_text("1\n\nH 0 0 0\n")
    assert cli("show", tmp_path / "plain.xyz").exit_code == 6
    assert cli("show", tmp_path / "missing.xyz").exit_code == 1
    assert cli("show", tmp_path).exit_code == 1
