from __future__ import annotations

import subprocess
import sys

import pytest

from mlipcluster.environments import uv as uv_row
from mlipcluster.environments.environment import Package
from mlipcluster.environments.measure import measure
from mlipcluster.environments.origins import OWN
from mlipcluster.environments.steps import Wanted
from mlipcluster.errors import MeasureError

LOCK = """version = 1
requires-python = ">=3.10"

[[package]]
name = "numpy"
version = "2.0.1"
source = { registry = "https://me:secret@pypi.example.org/simple" }

[[package]]
name = "forked"
version = "1.0"

[[package]]
name = "forked"
version = "2.0"

[[package]]
name = "My_Project"
source = { editable = "." }

[[package]]
name = "not-here"
version = "1"
"""


def _project(make_environment, tmp_path, **versions):
    project = tmp_path / "project ü"
    project.mkdir()
    (project / "uv.lock").write_text(LOCK)
    (project / "pyproject.toml").write_text('[project]\nname = "x"\n')
    environment = make_environment(".venv", project)
    for name, version in versions.items():
        environment.install(name, version)
    return environment


def test_a_uv_project_has_its_own_lock(make_environment, tmp_path):
    environment = _project(make_environment, tmp_path, numpy="2.0.1", forked="2.0", my_project="0.1")
    measured = measure(environment.python)
    assert (measured.manager, measured.lock_name, measured.toml_format) == ("uv", "uv.lock", "pyproject.toml")
    assert measured.lock == LOCK.replace("me:secret@", "")
    assert measured.toml == '[project]\nname = "x"\n'
    assert measured.drift == ()


@pytest.mark.parametrize(
    "address",
    [
        "https://me:s3cret@pypi.example.org/simple",
        "https://s3cret@10.0.0.1:8443/simple",
        "http://me:s3cret@[::1]:8080/simple",
        "https://pypi.example.org/simple?token=s3cret",
        "https://conda.example.org/t/s3cret/lab",
        "https://__token__:s3cret@gitlab.example.org/api/v4/projects/1/packages/pypi/simple",
    ],
)
def test_no_credentials_of_any_host(make_environment, tmp_path, address):
    environment = _project(make_environment, tmp_path, numpy="2.0.1")
    (tmp_path / "project ü" / "uv.lock").write_text(LOCK.replace("https://me:secret@pypi.example.org/simple", address))
    (tmp_path / "project ü" / "pyproject.toml").write_text(
        f'[[tool.uv.index]]\nurl = "{address}"\n[tool.uv.sources]\nx = {{ git = "{address}", rev = "main" }}\n'
    )
    (environment.prefix / OWN).write_text(f"--extra-index-url {address}\nnumpy==2.0.1\n")
    files = measure(environment.python).files()
    assert len(files) == 3
    host = address.partition("://")[2].rpartition("@")[2].partition("/")[0]
    for text in files.values():
        assert host in text
        assert "s3cret" not in text


def test_drift_from_the_lock_is_told(make_environment, tmp_path):
    environment = _project(make_environment, tmp_path, numpy="2.0.2", forked="3", extra="1")
    assert measure(environment.python).drift == (
        "extra 1 is installed but not in uv.lock",
        "forked 3 is installed, uv.lock says 1.0 or 2.0",
        "numpy 2.0.2 is installed, uv.lock says 2.0.1",
    )


def test_what_is_locked_but_was_not_installed_is_not_asked_for(make_environment, tmp_path):
    """A group of developers' tools is in each `uv sync`, and may hold what nobody else can get."""
    environment = _project(make_environment, tmp_path, numpy="2.0.1", my_project="0.1")
    (tmp_path / "uv.lock").write_text(LOCK)
    wanted = Wanted(tmp_path, "uv", environment=measure(environment.python))
    (command,) = (step.command for step in uv_row.steps(wanted) if step.command[1] == "sync")
    left_out = [f"--no-install-package={name}" for name in ("forked", "my-project", "not-here")]
    assert list(command[-3:]) == left_out
    (command,) = (step.command for step in uv_row.steps(Wanted(tmp_path, "uv")) if step.command[1] == "sync")
    assert command[-2:] == ("--no-install-project", "--no-install-package=my-project")


def test_the_lock_of_the_folder_above_belongs_to_a_dot_venv_only(make_environment, tmp_path):
    _project(make_environment, tmp_path)
    other = make_environment("other", tmp_path / "project ü")
    assert measure(other.python).lock_name == "requirements.txt"


@pytest.mark.parametrize("change", [lambda text: b"\xef\xbb\xbf" + text, lambda text: text.replace(b"\n", b"\r\n")])
def test_a_lock_that_an_editor_saved_in_its_own_way_is_the_same(make_environment, tmp_path, change):
    environment = _project(make_environment, tmp_path, numpy="2.0.1")
    before = measure(environment.python)
    file = tmp_path / "project ü" / "uv.lock"
    file.write_bytes(change(file.read_bytes()))
    assert measure(environment.python) == before


@pytest.mark.parametrize("name", ["uv.lock", "pyproject.toml"])
@pytest.mark.parametrize("damage", ["not text", "not readable"])
def test_a_lock_that_cannot_be_read_is_named(make_environment, tmp_path, monkeypatch, name, damage):
    environment = _project(make_environment, tmp_path)
    file = tmp_path / "project ü" / name
    file.write_bytes(b"\xff\xfe")
    if damage == "not readable":

        def refuse(path, **_):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(type(file), "read_text", refuse)
    with pytest.raises(MeasureError, match=r"project ü.*cannot be read"):
        measure(environment.python)
    without = measure(environment.python, lock=False)
    assert (without.manager, without.lock, without.drift) == ("uv", "", ())


def test_locked_versions():
    assert uv_row.locked_versions(LOCK) == {
        "numpy": {"2.0.1"},
        "forked": {"1.0", "2.0"},
        "my-project": set(),
        "not-here": {"1"},
    }
    assert uv_row.locked_versions("") == {}


def test_requirements(environment):
    environment.install("numpy", "2.0")
    environment.install("torch", "2.4.0+cpu")
    vcs = {"vcs": "git", "commit_id": "a" * 40}
    environment.install("tool", "1", url="https://t0ken@h.org/r", vcs_info=vcs, subdirectory="py")
    environment.install("archive", "3", url="https://h.org/a.whl", archive_info={"hashes": {"sha256": "b"}})
    environment.install("local", "4", url="file:///home/me/local", dir_info={})
    lines = measure(environment.python).lock.splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "archive @ https://h.org/a.whl#sha256=b",
        "numpy==2.0",
        f"tool @ git+https://h.org/r@{'a' * 40}#subdirectory=py",
        "torch==2.4.0+cpu",
    ]
    assert any(line.startswith("# local 4: from local") for line in lines)
    assert any("hashes" in line for line in lines)
    assert any("--extra-index-url" in line for line in lines)


def test_conda_packages_and_what_pip_added(environment):
    url = "https://c.example.org/t/se-cret/forge/linux-64/python-3.11.7-h0.conda"
    channel = "https://me:pw@c.example.org/t/se-cret/forge/linux-64"
    environment.conda("python", "3.11.7", "h0", url=url, channel=channel, md5="abc")
    environment.conda("libfoo", "1", "h1")
    (environment.install("numpy", "2.0") / "INSTALLER").write_text("conda\n")
    (environment.install("ase", "3.25") / "INSTALLER").write_text("pip\n")
    measured = measure(environment.python)
    assert measured.packages == (
        Package("ase", "3.25", "index"),
        Package("libfoo", "1", "conda", "h1", ""),
        Package("python", "3.11.7", "conda", "h0", "https://c.example.org/forge"),
    )
    assert list(measured.files()) == ["explicit.txt", "environment.yml"]
    assert measured.lock == (
        f"# Installed in Python {measured.python} on {measured.platform}.\n"
        "name: mlipcluster\n"
        "channels:\n"
        '  - "https://c.example.org/forge"\n'
        "  - nodefaults\n"
        "dependencies:\n"
        "  - libfoo=1=h1\n"
        "  - python=3.11.7=h0\n"
        "  - pip:\n"
        "      - ase==3.25\n"
    )
    lines = measured.files()["explicit.txt"].splitlines()
    assert lines[1:] == [
        "@EXPLICIT",
        "# libfoo=1=h1: without an address",
        "https://c.example.org/forge/linux-64/python-3.11.7-h0.conda#abc",
        "# installed by pip:",
        "#   ase==3.25",
    ]
    assert "secret" not in str(measured).replace("se-cret", "secret")


def test_conda_packages_that_cannot_be_read_are_left_out(environment):
    environment.conda("good", "1")
    (environment.prefix / "conda-meta" / "bad.json").write_text("{")
    (environment.prefix / "conda-meta" / "worse.json").write_text("[]")
    (environment.prefix / "conda-meta" / "deep.json").write_text("[" * 100_000)
    environment.conda("odd", "2", files=3, depends="python", url=["x"], channel={})
    (environment.prefix / "conda-meta" / "history").write_text("x")
    assert [package.name for package in measure(environment.python).packages] == ["good", "odd"]


@pytest.mark.slow
def test_a_requirements_file_can_be_installed_from(uv, tmp_path, make_wheel):
    """What uv itself makes of the lock of an environment that uv made, without asking the network."""
    wheelhouse = tmp_path / "wheel house"
    source = tmp_path / "source"
    source.mkdir()
    (source / "pyproject.toml").write_text('[project]\nname = "tiny-thing"\nversion = "1.5"\n')
    python = tmp_path / "env" / "bin" / "python"
    run = [uv, "--offline", "--quiet"]
    subprocess.run([*run, "venv", "--python", sys.executable, str(tmp_path / "env")], check=True)
    wheelhouse.mkdir()
    make_wheel(wheelhouse, "tiny_thing", "1.5", {"tiny_thing.py": ""})
    options = ["--no-index", "--find-links", str(wheelhouse)]
    subprocess.run([*run, "pip", "install", *options, "--python", str(python), "tiny-thing"], check=True)
    measured = measure(python)
    assert measured.manager == "uv"
    (tmp_path / measured.lock_name).write_text(measured.lock)
    other = tmp_path / "other" / "bin" / "python"
    subprocess.run([*run, "venv", "--python", sys.executable, str(tmp_path / "other")], check=True)
    command = [*run, "pip", "install", *options, "--python", str(other), "-r", str(tmp_path / measured.lock_name)]
    subprocess.run(command, check=True)
    assert measure(other).digest == measured.digest
