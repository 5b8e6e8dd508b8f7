from __future__ import annotations

import json
import sys

import pytest

from mlipcluster.cli.run import load_protocol
from mlipcluster.outputs.output import read_output
from mlipcluster.outputs.results import Results


def test_a_run_saves_its_outputs_and_shows_them(relaxed, output_file):
    folder, result = relaxed
    assert "Cu.extxyz#0" in result.stdout
    assert f"1 output, 1 failed in {folder}" in result.stdout.replace("\n", "")
    assert f"mlipcluster reproduce {output_file}" in result.stdout.replace("\n", "")
    instance = read_output(output_file).record["instance"]
    assert instance["seed"] == 3
    assert instance["author"] == "Ada Lovelace"
    assert instance["tasks"]["kwargs"] == {"fmax": 0.05}
    assert [name.rpartition(":")[2] for name in instance["protocols"]] == ["relax", "single_point"]


def test_a_failure_is_shown_and_is_the_exit_status(relaxed):
    folder, result = relaxed
    assert result.exit_code == 1
    assert "failed: " in result.stdout
    assert "broken.cif" in result.stdout
    assert "StructureError: " in result.stdout
    assert len(Results.open(folder).failures) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["relaxx", "Cu.xyz"], "no protocol is called 'relaxx'"),
        (["relax", "Ag.xyz"], "there is no file 'Ag.xyz'"),
        (["relax", "Cu.xyz", "-p", "fmax"], "write key=value"),
        (["relax", "Cu.xyz", "--nstruct", "0"], "nstruct"),
        (["relax"], "Missing argument"),
        (["relax", "Cu.xyz", "-c", "emt", "--python", "mace=/x"], "no --calculator here"),
        (["relax", "Cu.xyz", "-k", "sigma=2.5"], "are a --calculator's; give that too"),
        (["relax", "Cu.xyz", "--device", "cuda"], "are a --calculator's; give that too"),
        (["relax", "Cu.xyz", "--python", "/x"], "are a --calculator's; give that too"),
        (["relax", "Cu.xyz", "-c", "emt", "-O", "tasks=1"], "say it with FILES and --param"),
        (["relax", "Cu.xyz", "-c", "emt", "-O", "seed=1"], "say it with --seed"),
        (["relax", "Cu.xyz", "-O", "calculators=emt"], "say it with --calculator"),
        (["relax", "Cu.xyz", "-c", "emt", "-O", "output_path=x"], "say it with --output"),
    ],
)
def test_a_wrong_command_line_is_told_before_anything_starts(cli, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Cu.xyz").write_text("1\n\nCu 0 0 0\n")
    result = cli("run", *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.replace("│", " ").split())
    assert [path.name for path in tmp_path.iterdir()] == ["Cu.xyz"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-c", "emmt"], "no calculator is called 'emmt'"),
        (["-c", "emt", "--format", "cif"], "'cif' is unknown"),
        (["-c", "emt", "-O", "athor=Ada"], "'author'"),
        (["-c", "emt", "-p", "fmx=1"], "'fmx'"),
        (["-c", "emt", "-O", "logging_level=foo"], "'foo' is unknown"),
        (["-c", "emt", "-O", "timeout=soon"], "timeout='soon'"),
        ([], "no calculator"),
    ],
)
def test_what_the_library_refuses_is_one_paragraph(cli, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Cu.xyz").write_text("1\n\nCu 0 0 0\n")
    result = cli("run", "relax", "Cu.xyz", *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("mlipcluster: ")
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_a_dry_run_starts_and_writes_nothing(cli, tmp_path):
    (tmp_path / "Cu.xyz").write_text("1\n\nCu 0 0 0\n")
    result = cli(
        "run", "relax", tmp_path / "Cu.xyz", "-c", "emt", "-o", tmp_path / "run", "--nstruct", "4", "--dry-run"
    )
    assert result.exit_code == 0
    assert "4 tasks" in result.stdout
    assert not (tmp_path / "run").exists()


def test_a_protocol_out_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = tmp_path / "of_a_user_1.py"
    file.write_text("import json\ndef twice(atoms):\n    return [atoms, atoms]\n")
    assert load_protocol(f"{file}:twice").__module__ == "of_a_user_1"
    with pytest.raises(TypeError, match=r"no function 'thrice'; it has twice\."):
        load_protocol(f"{file}:thrice")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("json.py", "has the name of another module"),
        ("my-protocols.py", "rename it to a Python name"),
        ("broken_of_a_user.py", "SyntaxError"),
        ("missing.py", "there is no file"),
    ],
)
def test_a_file_that_cannot_be_loaded_says_why(tmp_path, monkeypatch, name, said):
    monkeypatch.setattr(sys, "path", [*sys.path])
    for written in ("json.py", "my-protocols.py"):
        (tmp_path / written).write_text("def protocol(atoms): return atoms\n")
    (tmp_path / "broken_of_a_user.py").write_text("def protocol(atoms) return atoms\n")
    with pytest.raises(ValueError, match=said):
        load_protocol(f"{tmp_path / name}:protocol")
    assert json.loads("1") == 1


def test_several_calculators_are_run_side_by_side(cli, tmp_path):
    (tmp_path / "N2.xyz").write_text("2\n\nN 0 0 0\nN 0 0 1.1\n")
    run = tmp_path / "run"
    result = cli(
        *("run", "single_point", tmp_path / "N2.xyz", "-c", "emt", "-c", "lj", "-o"),
        *(run, "-j", "1", "--no-progress", "--format", "json", "--compress", "gz"),
    )
    assert result.exit_code == 0, result.stderr
    results = Results.open(run)
    assert sorted(entry["calculator"] for entry in results.entries) == ["emt", "lj"]
    assert all(entry["file"].endswith(".json.gz") for entry in results.entries)
