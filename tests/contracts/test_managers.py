"""One suite for every row of MANAGERS: told by itself, measured, locked, built again, and what differs is said.

uv and pip are real, with a package index of this machine. conda, mamba and pixi are fakes that take what those document
and leave prefixes as those do (``tests/fakes``); ``tests/environments/test_rattler.py`` has prefixes and locks of a
real implementation.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mlipcluster.environments.environment import Environment, difference
from mlipcluster.environments.lock import LOCK_FILES
from mlipcluster.environments.managers import MANAGERS, OVERRIDE, named
from mlipcluster.environments.measure import measure
from mlipcluster.environments.origins import OWN
from mlipcluster.environments.steps import Wanted
from mlipcluster.errors import InputError
from mlipcluster.process import run_logged

NAME = "a 'b' \"c\"\nd"  # of folders: with spaces, quotes and a newline
SECRET = "s3cret"
VERSION = ".".join(str(part) for part in sys.version_info[:3])
ENVIRONMENT_YML = f"""name: mine
channels: [conda-forge]
dependencies:
  - python={VERSION}
  - conda-forge::numpy=2.0=py_1
  - "https://me:{SECRET}@conda.example.org:8443/t/{SECRET}/lab::tool=1.0=h1"
  - pip:
    - tiny-thing==1.5
"""
PIXI_TOML = f"""[workspace]
channels = ["https://me:{SECRET}@conda.example.org:8443/t/{SECRET}/lab"]
[dependencies]
numpy = "*"
"""


def _uv_venv(machine, folder):
    python = folder / NAME / "bin" / "python"
    machine.run(machine.uv, "venv", "--python", sys.executable, folder / NAME)
    machine.run(machine.uv, "pip", "install", "--python", python, "tiny-thing==1.5", "other-thing")
    return python


def _uv_project(machine, folder):
    """An extra is installed that a plain `uv sync` leaves out."""
    project = folder / NAME
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[project]\nname = "x"\nversion = "0"\nrequires-python = ">=3.9"\ndependencies = ["tiny-thing<1.6"]\n'
        '[project.optional-dependencies]\nmore = ["other-thing"]\n[tool.uv]\npackage = false\n'
    )
    machine.run(machine.uv, "sync", "--directory", project, "--python", sys.executable, "--extra", "more")
    return project / ".venv" / "bin" / "python"


def _pip(machine, folder):
    python = folder / NAME / "bin" / "python"
    machine.run(sys.executable, "-I", "-m", "venv", folder / NAME)
    machine.run(python, "-m", "pip", "install", "--no-deps", "tiny-thing==1.5")
    return python


def _conda(machine, folder, *command):
    (folder / "environment.yml").write_text(ENVIRONMENT_YML)
    prefix = folder / NAME
    program, *rest = command
    file = ("--file", folder / "environment.yml")
    machine.run(machine.programs[program], *rest, "--prefix", prefix, *file, MAMBA_ALWAYS_YES="true")
    return prefix / "bin" / "python"


def _pixi(machine, folder):
    workspace = folder / NAME
    workspace.mkdir()
    (workspace / "pixi.toml").write_text(PIXI_TOML)
    machine.run(machine.programs["pixi"], "install", "--manifest-path", workspace)
    return workspace / ".pixi" / "envs" / "default" / "bin" / "python"


CASES = {
    "uv": ("uv", _uv_venv),
    "uv project": ("uv", _uv_project),
    "pip": ("pip", _pip),
    "conda": ("conda", lambda machine, folder: _conda(machine, folder, "conda", "env", "create")),
    "mamba": ("mamba", lambda machine, folder: _conda(machine, folder, "mamba", "env", "create")),
    "micromamba": ("mamba", lambda machine, folder: _conda(machine, folder, "micromamba", "create")),
    "pixi": ("pixi", _pixi),
}


@pytest.fixture(scope="session")
def made(machine, tmp_path_factory):
    """One environment of each case, made when it is first asked for."""
    done = {}

    def make(name):
        if name not in done:
            done[name] = CASES[name][1](machine, tmp_path_factory.mktemp("made"))
        return done[name]

    return make


@pytest.fixture(params=CASES)
def case(request, made):
    """The name of a case, its manager's, and an interpreter of an environment that it made; not to be changed."""
    return request.param, CASES[request.param][0], made(request.param)


@pytest.fixture
def own_case(case, tmp_path):
    """A copy of a case's environment with all around it, to be changed."""
    name, manager, python = case
    top = next(folder for folder in python.parents if folder.name == NAME)
    shutil.copytree(top, tmp_path / "copy" / NAME, symlinks=True)
    return name, manager, tmp_path / "copy" / NAME / python.relative_to(top)


class StepFailedError(Exception):
    """A step ended with an error."""

    def __init__(self, command, printed):
        super().__init__(f"{command} printed:\n{printed}")
        self.printed = printed


def build(machine, environment, folder, manager=None, local=(), program=""):
    """Build an environment from its files in *folder*, as a JSON record carries them; return its interpreter."""
    folder.mkdir(parents=True)
    environment = Environment.from_json(json.loads(json.dumps(environment.to_json())))
    for name, text in environment.files().items():
        (folder / name).write_text(text, encoding="utf-8")
    row = named(manager or environment.manager)
    program = program or machine.programs[row.name]
    wanted = Wanted(folder, program, sys.executable, environment, dict(local))
    for step in row.steps(wanted):
        lines = []
        env = {**os.environ, **machine.variables, **step.variables}
        status, _ = run_logged(step.command, timeout=120, cwd=Path("/"), env=env, log=lines.append)
        if status:
            raise StepFailedError(step.command, "\n".join(lines))
    return row.interpreter(wanted)


def test_every_row_is_applied_to():
    assert {manager for manager, _ in CASES.values()} == set(MANAGERS)


def test_an_environment_is_told_locked_and_built_again(case, machine, tmp_path):
    name, manager, python = case
    top = next(folder for folder in python.parents if folder.name == NAME)
    before = {path: path.lstat().st_mtime_ns for path in top.rglob("*")}
    measured = measure(python)
    assert {path: path.lstat().st_mtime_ns for path in top.rglob("*")} == before
    assert measured.manager == manager
    assert measured.drift == ()
    files = measured.files()
    assert set(files) <= set(LOCK_FILES)
    assert any(set(wanted) <= set(files) for wanted in MANAGERS[manager].files)
    assert SECRET not in json.dumps(measured.to_json())

    folder = tmp_path / "again" / NAME
    elsewhere = replace(machine, variables={**machine.variables, "UV_PYTHON": "3.0", "PIP_USER": "1"})
    again = build(elsewhere, measured, folder, program=machine.programs.get(name, ""))
    built = measure(again)
    assert difference(measured, built) == []
    assert built.digest == measured.digest
    if manager not in {"uv", "pip"}:
        assert built.files() == files
    steps = MANAGERS[manager].steps
    wanted = Wanted(tmp_path / "again" / NAME, "the program", "a python", measured, {})
    if manager in {"conda", "mamba"}:
        with pytest.raises(RuntimeError, match=r"in the way; name an empty folder"):
            steps(wanted)
    else:
        commands = [step.command for step in steps(wanted)]
        assert {command[0] for command in commands} <= {"the program", "a python", str(again)}


def test_what_was_added_by_hand_is_drift_or_in_the_lock(own_case, machine):
    name, manager, python = own_case
    if name == "uv project":
        machine.run(machine.uv, "pip", "install", "--python", python, "tiny-thing==1.6")
        assert measure(python).drift == ("tiny-thing 1.6 is installed, uv.lock says 1.5",)
    elif manager in {"uv", "pip"}:
        prefix = python.parents[1]
        (prefix / OWN).write_text(measure(python).lock)
        assert measure(python).drift == ()
        machine.run(machine.uv, "pip", "install", "--python", python, "tiny-thing==1.6")
        assert measure(python).drift == (f"tiny-thing 1.6 is installed, {OWN} says 1.5",)
    else:
        folder = next((python.parents[1] / "lib").glob("python3*/site-packages")) / "numpy-9.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Name: numpy\nVersion: 9\n")
        (folder / "INSTALLER").write_text("pip\n")
        (line,) = measure(python).drift
        assert line in {"numpy 9 was installed over conda's 2.0", "numpy 9 is installed but not in pixi.lock"}


def test_a_package_that_is_gone_is_named(case, machine, index, tmp_path):
    name, _, python = case
    measured = measure(python)
    gone = "numpy" if name in {"conda", "mamba", "micromamba", "pixi"} else "tiny-thing"
    variables = {
        "FAKE_CONDA_MISSING": gone,
        "UV_CACHE_DIR": str(tmp_path / "another cache"),
        "UV_DEFAULT_INDEX": index.replace("simple", "without"),
        "PIP_INDEX_URL": index.replace("simple", "without"),
    }
    text = measured.lock.replace("/files/tiny", "/gone/tiny")  # of a uv.lock, which has the archives' addresses
    measured = Environment.from_json({**measured.to_json(), "lock": text})
    elsewhere = replace(machine, variables={**machine.variables, **variables})
    with pytest.raises(StepFailedError) as caught:
        build(elsewhere, measured, tmp_path / "again", program=machine.programs.get(name, ""))
    assert gone in caught.value.printed.replace("_", "-")


def test_an_unknown_manager_gets_a_list_of_the_known(monkeypatch):
    with pytest.raises(InputError, match="conda, mamba, pip, pixi, uv"):
        named("poetry\n" * 100)
    monkeypatch.setenv(OVERRIDE, "poetry")
    with pytest.raises(InputError, match="conda, mamba, pip, pixi, uv"):
        measure()


@pytest.mark.parametrize("case", ["conda", "mamba", "micromamba"], indirect=True)
def test_an_explicit_list_is_enough(case, machine, tmp_path):
    name, _, python = case
    measured = measure(python)
    listed = Environment.from_json(
        {**measured.to_json(), "more_files": {}, "lock": measured.files()["explicit.txt"], "lock_name": "explicit.txt"}
    )
    built = measure(build(machine, listed, tmp_path / "again", program=machine.programs[name]))
    assert difference(measured, built) == ["only recorded: tiny-thing 1.5"]  # conda's own packages only


@pytest.mark.parametrize(("case", "editable"), [("uv", False), ("uv", True), ("pip", True)], indirect=["case"])
def test_local_packages_are_installed_from_their_folders(own_case, machine, local_package, tmp_path, editable):
    _, _, python = own_case
    option = ["--editable"] if editable else []
    machine.run(machine.uv, "pip", "install", "--python", python, *option, local_package)
    measured = measure(python)
    assert "\n# mine 0.1: " in measured.lock
    built = measure(build(machine, measured, tmp_path / "again", local={"mine": local_package}))
    assert built.digest == measured.digest


def test_local_packages_of_a_project_are_not_looked_for_where_they_were(machine, local_package, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[project]\nname = "x"\nversion = "0"\nrequires-python = ">=3.9"\ndependencies = ["tiny-thing", "mine"]\n'
        "[tool.uv]\npackage = false\n"
        f"[tool.uv.sources]\nmine = {{ path = {json.dumps(str(local_package))}, editable = true }}\n"
    )
    machine.run(machine.uv, "sync", "--directory", project, "--python", sys.executable)
    measured = measure(project / ".venv")
    elsewhere = local_package.rename(tmp_path / "elsewhere")
    assert "--hash=" in measured.files()["requirements.txt"]
    built = measure(build(machine, measured, tmp_path / "again", local={"mine": elsewhere}))
    assert difference(measured, built) == []


def test_a_venv_without_pip_is_built_without(machine, tmp_path):
    machine.run(sys.executable, "-I", "-m", "venv", "--without-pip", tmp_path / "bare")
    machine.run(machine.uv, "pip", "install", "--python", tmp_path / "bare" / "bin" / "python", "tiny-thing==1.5")
    measured = measure(tmp_path / "bare")
    assert (measured.manager, [package.name for package in measured.packages]) == ("pip", ["tiny-thing"])
    assert measure(build(machine, measured, tmp_path / "again")).digest == measured.digest


def test_hashes_are_given_where_all_are_known_and_hold(machine, tmp_path):
    python = _uv_venv(machine, tmp_path)
    lock = measure(python).lock
    assert "--hash" not in lock
    assert "not known are those of other-thing, tiny-thing." in lock
    (tmp_path / "in.txt").write_text("tiny-thing==1.5\nother-thing==2.0\n")
    options = ("--generate-hashes", "--output-file", python.parents[1] / OWN)
    machine.run(machine.uv, "pip", "compile", *options, tmp_path / "in.txt")
    measured = measure(python)
    assert measured.lock.count("--hash=sha256:") == 2
    assert measure(build(machine, measured, tmp_path / "again")).digest == measured.digest
    false = Environment.from_json({**measured.to_json(), "lock": measured.lock.replace("sha256:", "sha256:0", 1)})
    with pytest.raises(StepFailedError, match=r"[Hh]ash"):
        build(machine, false, tmp_path / "false")
