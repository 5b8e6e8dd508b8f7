"""The scripts at the top of a checkout, as a bare system's Python runs them: nothing installed, any working folder."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("dump_env_file.py", "recreate_env.py")
# Neither site-packages nor the user's own, no PYTHON… variables, no folder of the script.
BARE = ("-I", "-S", "-E")
HOSTILE = 'it\'s a "run"\nof ü $HOME'


def pythons():
    """This interpreter, the system's own, and a Python 3.9, as far as they are here."""
    candidates = [sys.executable, "/usr/bin/python3", os.environ.get("MLIPCLUSTER_TEST_PYTHON39", "")]
    found = {}
    for python in filter(os.path.isfile, candidates):
        done = subprocess.run([python, "-V"], capture_output=True, text=True, check=True)
        version = tuple(map(int, done.stdout.split()[1].split(".")[:2]))
        if version >= (3, 9):
            found[os.path.realpath(python)] = python
    return list(found.values())


@pytest.fixture(params=pythons())
def script(request, tmp_path):
    """Run a script in a folder with a hostile name; what it printed and its exit status."""
    folder = tmp_path / HOSTILE
    folder.mkdir()

    def run(name, *arguments, root=ROOT, **variables):
        return subprocess.run(
            [request.param, *BARE, root / name, *arguments],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **variables},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )

    run.folder = folder
    return run


@pytest.fixture
def output(script, make_sealed, write_record):
    return write_record(make_sealed(), script.folder / "outputs" / "a 'b'\n.json")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_explains_itself(script, name):
    done = script(name, "--help")
    assert done.returncode == 0
    assert "--env_dir" in done.stdout
    assert "--env-dir" in done.stdout


@pytest.mark.parametrize("given", [["--input_file"], ["--input-file"], []])
def test_an_output_is_dumped(script, output, given):
    done = script("dump_env_file.py", *given, output)
    assert done.stderr == ""
    assert done.returncode == 0
    assert {path.name for path in (script.folder / "env").iterdir()} == {"requirements.txt", "environment.json"}
    assert f"{ROOT / 'recreate_env.py'} --env_dir env" in done.stdout


@pytest.mark.parametrize(
    "given",
    [
        ["--scorefile", "ledger.jsonl", "--output_name", "Cu"],
        ["--scorefile", ".", "--decoy-name=Cu"],
        ["ledger.jsonl", "--decoy_name", "Cu"],
        ["--output-name", "Cu", "--input-file", "ledger.jsonl"],
    ],
)
def test_a_scorefile_is_dumped(script, output, given):
    line = {"status": "output", "name": "Cu", "slot": "a/0//0", "file": output.relative_to(script.folder).as_posix()}
    (script.folder / "ledger.jsonl").write_text(json.dumps(line) + "\n")
    done = script("dump_env_file.py", *given, "--env-dir", "-e n'v\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert (script.folder / "-e n'v\n" / "requirements.txt").is_file()


def test_from_a_checkout_with_a_hostile_name(script, output, tmp_path):
    root = tmp_path / "check'out\n $(touch evil)"
    root.mkdir()
    for name in SCRIPTS:
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "mlipcluster", root / "mlipcluster", ignore=shutil.ignore_patterns("__pycache__"))
    assert script("dump_env_file.py", output, root=root).returncode == 0
    done = script("recreate_env.py", "--dry_run", "--env_manager", "pip", "--force", root=root)
    assert (done.returncode, "pip install" in done.stdout) == (0, True) or "venv and ensurepip" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "give FILE"),
        (["a", "--input_file", "b"], 2, "give FILE"),
        (["--scorefile", "a"], 2, "--output_name"),
        (["--no_such"], 2, "unrecognized"),
        (["--input", "x"], 2, "unrecognized"),
        (["gone.json"], 1, "does not exist"),
        (["."], 1, "is a folder"),
        (["/dev/zero"], 1, "is no file"),
        (["a\x1b[31m\n"], 1, "does not exist"),
    ],
)
def test_wrong_command_lines_of_dump(script, arguments, status, words):
    done = script("dump_env_file.py", *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr
    assert list(script.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 1, "there is no folder"),
        (["--env_dir", "."], 1, "holds no lock file"),
        (["--timeout", "soon"], 2, "'soon' is no number of seconds"),
        (["--timeout", "-1"], 2, "--timeout"),
        (["--package", "x"], 2, "NAME=PATH"),
        (["--env_dir", ".", "--env_manager", "poetry"], 1, "no environment manager 'poetry'; known: conda"),
    ],
)
def test_wrong_command_lines_of_recreate(script, arguments, status, words):
    done = script("recreate_env.py", *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert list(script.folder.iterdir()) == []


def test_debug_shows_where(script):
    assert "Traceback" in script("dump_env_file.py", "gone", "--debug").stderr


def test_nobody_reads_on(output, script):
    command = f'{sys.executable} -I {ROOT / "dump_env_file.py"} "$1" --env_dir x | true'
    done = subprocess.run(
        ["bash", "-c", command, "bash", output], cwd=script.folder, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


def test_a_terminal_of_ascii_alone(script, make_sealed, make_environment_json, write_record):
    path = write_record(make_sealed(make_environment_json({"sïx": ("1", "editable:sïx")})))
    done = script("dump_env_file.py", path, LC_ALL="C", PYTHONIOENCODING="ascii")
    assert done.returncode == 0


@pytest.mark.parametrize("name", SCRIPTS)
def test_nothing_but_the_standard_library_is_imported(name):
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{name!r}, '--help']\n"
        f"try: runpy.run_path({os.fspath(ROOT / name)!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(*sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    modules = done.stdout.splitlines()[-1].split()
    ours = {module for module in modules if module.startswith("mlipcluster")}
    others = (
        {module.partition(".")[0] for module in modules} - set(sys.stdlib_module_names) - {"mlipcluster", "__main__"}
    )
    assert not {module for module in others if not module.startswith(("_", "sitecustomize", "usercustomize"))}
    floors = {module.split(".")[1] for module in ours if "." in module}
    assert floors <= {"environments", "errors", "files", "process", "recreation"}
    for module in ours:
        path = Path(ROOT, *module.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_old_python_is_told_so(name):
    """Whatever reads the script's own lines says that it is too old; those that are here are tried."""
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"), feature_version=(3, 4))
    top = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert top == {"os", "sys"}
    assert not any(isinstance(node, (ast.JoinedStr, ast.ImportFrom, ast.AnnAssign)) for node in tree.body)
    old = Path(os.environ.get("PYENV_ROOT", "/nowhere"), "versions")
    for python in [*old.glob("2.*/bin/python"), *old.glob("3.[6-8].*/bin/python")]:
        done = subprocess.run([python, ROOT / name], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "needs Python 3.9 or newer" in done.stderr
