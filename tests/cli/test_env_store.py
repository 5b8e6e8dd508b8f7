from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

HOSTILE = 'it\'s "the"\nroot'


@pytest.fixture
def env(cli, tmp_path, monkeypatch, wheels):
    """``env(*words) -> Ran`` of ``mlipcluster env`` in a root that exists."""
    monkeypatch.setenv("COLUMNS", "80")

    def env(*words, root=tmp_path / HOSTILE):
        return cli("env", *words, *(["--root", root] if root else []))

    assert env("init").exit_code == 0
    return env


def test_from_a_file_to_an_environment(env, write_source, tmp_path, monkeypatch):
    root = tmp_path / HOSTILE
    done = env("register", write_source("metal_env", "ase", "tiny"))
    assert done.stdout.startswith("registered metal_env\n  next: run `mlipcluster env build metal_env --root '")
    assert env("list").stdout == "metal_env (not built): metal, metal-…\n"
    done = env("build", "metal_env")
    assert done.exit_code == 0, done.stderr
    assert "metal_env is built: " in done.stdout
    assert "mlipcluster: installing metal_env with uv" in done.stderr
    assert "metal_env is built already: " in env("build", "metal_env").stdout
    assert env("list").stdout == "metal_env: metal, metal-…\n"
    (found,) = json.loads(env("status", "--json", "--check").stdout)["environments"]
    assert (found["state"], found["drift"], found["manager"]) == ("built", [], "uv")
    monkeypatch.setenv("MLIPCLUSTER_ROOT", str(root))
    table = env("status", root=None).stdout
    assert found["lock_digest"][:8] in table
    assert found["source_digest"][:8] in table
    assert all(len(line) <= 80 for line in table.splitlines())
    assert env("remove", "metal_env").stdout == "removed metal_env\n"
    assert "would remove" in env("status", "--prune", "--keep-days", "0", "--dry-run").stdout
    assert "removed " in env("status", "--prune", "--keep-days", "0").stdout
    assert "there is nothing to remove" in env("status", "--prune").stdout
    assert "nothing is registered" in env("status").stdout


def test_weights_are_fetched_after_the_build(env, write_source, tmp_path):
    env("register", write_source("metal_env", "whats_here"))
    done = env("build", "metal_env", "--models", "small, medium")
    assert done.exit_code == 0, done.stderr
    assert "fetched metal-small: 0 files" in done.stdout
    (found,) = json.loads(env("status", "--json").stdout)["environments"]
    assert found["models"] == ["metal-medium", "metal-small"]
    assert "metal-medium" in env("status").stdout


def test_one_that_fails_does_not_stop_the_others(env, write_source):
    good, bad = write_source("good_env", "ase"), write_source("bad_env", "ase", body="x = 1\n")
    done = env("register", bad, good)
    assert done.exit_code == 1
    assert "no function 'setup'" in done.stderr
    assert "registered good_env" in done.stdout
    done = env("build", "none_env", "good_env")
    assert done.exit_code == 1
    assert "no environment 'none_env' is registered" in done.stderr
    assert "good_env is built" in done.stdout
    done = env("remove", "none_env", "good_env", "--builds")
    assert (done.exit_code, done.stdout) == (1, "removed good_env and 1 build\n")


def test_a_source_that_cannot_be_read_is_shown(env, write_source, tmp_path):
    env("register", write_source("a_env", "ase"))
    (tmp_path / HOSTILE / "sources" / "a_env.py").write_text("def (\n")
    assert "a_env (not built): cannot be read" in env("list").stdout
    assert "line 1" in json.loads(env("list", "--json").stdout)["environments"][0]["error"]
    assert "cannot be read" in env("status").stdout


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("status", "--root", "/none"), 1, "'/none' does not exist; make one with `mlipcluster env init"),
        (("status",), 1, "MLIPCLUSTER_ROOT"),
        (("status", "--dry-run", "--root", "/none"), 2, "--dry-run is of --prune"),
        (("register", "a.py", "b.py", "--name", "c", "--root", "/none"), 2, "are of one FILE"),
        (("build", "a", "b", "--models", "c", "--root", "/none"), 2, "are of one NAME"),
        (("init", "--root", "/dev/null/x"), 1, "cannot be made a root"),
    ],
)
def test_what_is_wrong_is_said_in_a_paragraph(env, words, status, says):
    done = env(*words, root=None)
    assert done.exit_code == status
    assert says in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_build_that_is_interrupted_leaves_nothing(env, write_source, tmp_path, number):
    env("register", write_source("a_env", "ase"))
    fifo, fake = tmp_path / "fifo", tmp_path / "bin" / "uv"
    os.mkfifo(fifo)
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\necho begun > '{fifo}'\nexec sleep 600\n")
    fake.chmod(0o755)
    code = (
        f"import sys; sys.executable = {str(tmp_path / 'none')!r}\n"
        "from mlipcluster.cli.app import main\nsys.argv[0] = 'mlipcluster'\nmain()"
    )
    root = str(tmp_path / HOSTILE)
    process = subprocess.Popen(
        [sys.executable, "-c", code, "env", "build", "a_env", "--root", root, "--python", "3.99"],
        env={**os.environ, "PATH": f"{fake.parent}:/usr/bin:/bin"},
        stderr=subprocess.PIPE,
        text=True,
    )
    with open(fifo, encoding="utf-8") as begun:
        assert begun.read() == "begun\n"
    process.send_signal(number)
    assert "interrupted" in process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert list((tmp_path / HOSTILE / "builds" / ".parts").iterdir()) == []


def test_weights_outside_the_root_are_named(monkeypatch, capsys):
    from mlipcluster.calculators.fetch import Fetched
    from mlipcluster.calculators.provenance import Weight
    from mlipcluster.cli.env_store import _fetch

    weights = (Weight("cache/in.pt", 1, "a"), Weight("/home/ada/out.pt", 1, "b"))
    monkeypatch.setattr("mlipcluster.calculators.fetch.fetch", lambda *_: [Fetched("mace-small", weights)])
    _fetch(None, "mace_env", ["small"])
    printed = capsys.readouterr()
    assert "fetched mace-small: 2 files" in printed.out
    assert "mace-small reads /home/ada/out.pt, which is not in the root" in printed.err
    assert "in.pt" not in printed.err
