"""Programs and interpreters of this machine, found or said to be missing."""

from __future__ import annotations

import os
import sys

import pytest

from mlipcluster.environments.managers import MANAGERS
from mlipcluster.errors import EnvironmentBuildError, InputError
from mlipcluster.recreation.programs import brings_python, find_python, version_of

HERE = ".".join(map(str, sys.version_info[:3]))
UV, PIP = MANAGERS["uv"], MANAGERS["pip"]


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A machine with nothing on its PATH."""
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    monkeypatch.setattr(sys, "executable", os.fspath(tmp_path / "python"))
    for name in ("UV", "CONDA_EXE", "MAMBA_EXE", "PYENV_ROOT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def program(path, text="#!/bin/sh\n"):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)
    path.chmod(0o755)
    return os.fspath(path)


def test_who_brings_python():
    assert {name for name, manager in MANAGERS.items() if not brings_python(manager)} == {"uv", "pip"}


def test_versions(empty):
    assert (
        version_of(os.path.realpath(f"/proc/{os.getpid()}/exe") if os.path.exists("/proc") else sys.executable) == HERE
    )
    assert version_of("/no/such") == ""
    assert version_of(program(empty / "liar", "#!/bin/sh\necho no\n")) == ""
    assert version_of(program(empty / "pypy", '#!/bin/sh\necho \'["pypy", "3.10.14", true]\'\n')) == "pypy 3.10.14"


def test_an_interpreter_is_looked_for(empty, monkeypatch):
    answer = '#!/bin/sh\necho \'["cpython", "{}", {}]\'\n'
    program(empty / "python3", answer.format("3.11.2", "true"))
    bare = program(empty / "python3.12", answer.format("3.12.1", "false"))
    assert find_python(PIP, "3.11.2", "") == os.fspath(empty / "python3")
    assert find_python(UV, "3.12.1", "") == bare  # uv needs no venv module
    assert find_python(UV, "3.12.9", "") == "3.12.9"  # uv may fetch it
    assert find_python(UV, "pypy 3.10.14", "") == "pypy@3.10.14"
    assert find_python(UV, "", "3.11") == os.fspath(empty / "python3")
    with pytest.raises(EnvironmentBuildError, match=r"Python 3\.12\.1 is needed.*python3 \(3\.11\.2\)"):
        find_python(PIP, "3.12.1", "")
    assert find_python(PIP, "3.11.9", "", near=True) == os.fspath(empty / "python3")
    pyenv = program(empty / "pyenv" / "versions" / "3.12.1" / "bin" / "python", answer.format("3.12.1", "true"))
    monkeypatch.setenv("PYENV_ROOT", os.fspath(empty / "pyenv"))
    assert find_python(PIP, "3.12.1", "") == pyenv


@pytest.mark.parametrize(
    "wanted", ["/tmp/evil", "--config-file=x", "../python", "3.11; touch x", "3.11.7 \n", "x" * 500]
)
def test_a_record_names_no_program(empty, wanted):
    for manager in (UV, PIP):
        with pytest.raises(InputError, match="is no version of Python"):
            find_python(manager, wanted, "")


def test_a_machine_without_python(empty, monkeypatch):
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(EnvironmentBuildError, match="none that has venv and ensurepip"):
        find_python(PIP, "3.11.7", "")
