from __future__ import annotations

import json
import shutil

import pytest

EMT = """
def setup(model, device="cuda"):
    from ase.calculators.emt import EMT

    if model == "broken":
        raise ValueError("no such model")
    return EMT()
"""


@pytest.fixture
def store(make_root):
    return make_root("its 'root'", metal_env=EMT, other=EMT)


def test_all_models_are_tested_and_then_held_against_their_answers(cli, store):
    first = cli("env", "smoke-test", "--root", store.root)
    assert first.exit_code == 0, first.stderr
    assert [line.split(":")[0] for line in first.stdout.splitlines()] == ["metal", "other"]
    assert first.stdout.count("kept as the known answer (Cu on cpu") == 2
    again = cli("env", "smoke-test", "metal_env", "--root", store.root, "--json")
    (told,) = json.loads(again.stdout)
    assert (told["model"], told["verdict"], told["passed"]) == ("metal", "identical", True)
    assert (told["energy"], told["forces"]) == (0.0, 0.0)
    status = json.loads(cli("env", "status", "--root", store.root, "--json").stdout)
    (metal,) = [one for one in status["environments"] if one["name"] == "metal_env"]
    assert metal["smoke"]["metal"]["verdict"] == "identical"


def test_a_model_that_fails_is_told_and_the_others_are_tested(cli, store, monkeypatch):
    monkeypatch.setenv("MLIPCLUSTER_ROOT", str(store.root))
    ran = cli("env", "smoke-test", "metal-broken", "other", "--device", "cpu")
    assert ran.exit_code == 1
    assert "metal-broken: calculator 'metal-broken' could not be built" in ran.stderr
    assert ran.stdout.startswith("other: ")


def test_another_answer_is_a_failure(cli, store):
    assert cli("env", "smoke-test", "metal", "--root", store.root).exit_code == 0
    path = store.smoke_file("metal_env")
    kept = json.loads(path.read_text())
    (answer,) = (one["metal"] for one in kept["answers"].values())
    answer["energy"] += 1.0
    path.write_text(json.dumps(kept))
    ran = cli("env", "smoke-test", "metal", "--root", store.root)
    assert ran.exit_code == 1
    assert "different: off by 2.5e-01 eV an atom (allowed 0.0001) and 0.0e+00 eV/Å (allowed 0.001)" in ran.stdout


def test_what_is_not_there_is_told_before_anything_is_tested(cli, store):
    ran = cli("env", "smoke-test", "metal", "mace-medium", "--root", store.root)
    assert ran.exit_code == 1
    assert ran.stdout == ""
    assert "no environment serves 'mace-medium'" in ran.stderr
    for name in ("metal_env", "other"):
        store.layout.current_file(name).unlink()
    assert (
        "`mlipcluster env build metal_env --root" in cli("env", "smoke-test", "metal_env", "--root", store.root).stderr
    )
    assert "nothing is built" in cli("env", "smoke-test", "--root", store.root).stderr


def test_a_run_is_told_the_root_or_the_cluster(cli, store, cu, tmp_path, monkeypatch):
    cu.write(tmp_path / "Cu.extxyz")
    rest = (tmp_path / "Cu.extxyz", "-j", "1", "--no-progress", "-c", "metal-medium", "-o")
    ran = cli("run", "single_point", *rest, tmp_path / "run", "--root", store.root)
    assert ran.exit_code == 0, ran.stderr
    (output,) = (tmp_path / "run" / "outputs").rglob("*.extxyz")
    assert cli("reproduce", output).stdout.startswith("identical")

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "mlipcluster").mkdir()
    moved = shutil.move(store.root, tmp_path / "moved")
    (tmp_path / "mlipcluster" / "config.toml").write_text(f'[clusters.ours]\nroot = "{moved}"\n')
    assert cli("reproduce", output, "--cluster", "ours").stdout.startswith("identical")
    assert "no cluster 'theirs'" in cli("run", "single_point", *rest, tmp_path / "b", "--cluster", "theirs").stderr
