from __future__ import annotations

import re

import hypothesis.strategies as st
import pytest
from hypothesis import given

from mlipcluster.environments import pip, uv
from mlipcluster.environments.environment import Package
from mlipcluster.environments.managers import OVERRIDE
from mlipcluster.environments.measure import measure
from mlipcluster.environments.origins import OWN, pins, read_origins
from mlipcluster.environments.steps import Wanted

A, B, C = ("sha256:" + letter * 64 for letter in "abc")
REQUIREMENTS = f"""# comment
--extra-index-url https://me:s3cret@pypi.example.org:8443/simple
NumPy==2.0.1 ; python_version > "3" \\
    --hash={A} \\
    --hash={B}
torch[opt]==2.4.0+cpu --hash={A}
ranged>=2 --hash={C}
short==1 --hash=sha256:abc
"""
UV_LOCK = f"""version = 1

[[package]]
name = "numpy"
version = "2.0.1"
source = {{ registry = "https://i.example.org/s" }}
sdist = {{ url = "https://files.example.org/numpy.tar.gz", hash = "{A}", size = 3 }}
wheels = [
    {{ url = "https://files.example.org/numpy.whl", hash = "{B}", size = 3 }},
]

[[package]]
name = "torch"
version = "2.4.0+cpu"
source = {{ registry = "https://token:s3cret@download.example.org/whl/cpu" }}
wheels = [
    {{ url = "https://files.example.org/torch.whl", hash = "{C}" }},
]
"""
PYLOCK = f"""lock-version = "1.0"
[[packages]]
name = "numpy"
version = "2.0.1"
wheels = [{{name = "x.whl", url = "https://h/x.whl", hashes = {{sha256 = "{A[7:]}", md5 = "0"}}}}]
"""


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """What uv's cache has would be known as well."""
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty cache"))


@pytest.fixture(autouse=True)
def usual_index(monkeypatch):
    """An index that need not be named, as the public one."""
    monkeypatch.setattr("mlipcluster.environments.origins._PYPI", re.compile(r"https://i\.example\.org/s"))


@pytest.fixture
def known(environment):
    """An environment of numpy and torch, and what is read of it: ``known(name, text, folder) -> lines``."""
    environment.install("numpy", "2.0.1")
    environment.install("torch", "2.4.0+cpu")

    def read(name, text, *, inside=False):
        (environment.prefix if inside else environment.prefix.parent).joinpath(name).write_text(text)
        return measure(environment.python).lock.splitlines()[1:]

    return read


def test_hashes_of_what_our_own_builds_leave(known):
    assert known(OWN, REQUIREMENTS, inside=True) == [
        "--extra-index-url https://pypi.example.org:8443/simple",
        "numpy==2.0.1 \\",
        f"    --hash={A} \\",
        f"    --hash={B}",
        "# a local version: of an index other than PyPI, to be given with --extra-index-url",
        "torch==2.4.0+cpu \\",
        f"    --hash={A}",
    ]


def test_hashes_and_indexes_of_a_lock_beside(known):
    lines = known("uv.lock", UV_LOCK)
    assert lines[0] == "--extra-index-url https://download.example.org/whl/cpu"
    assert [line.strip(" \\") for line in lines if "--hash" in line] == [f"--hash={value}" for value in (A, B, C)]


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_hashes_of_requirements_beside_but_not_their_indexes(known, name):
    lines = known(name, REQUIREMENTS)
    assert sum("--hash" in line for line in lines) == 3
    assert not any("pypi.example.org" in line for line in lines)


def test_all_or_none(known):
    lines = known("pylock.toml", PYLOCK)
    assert lines[0] == "# Without hashes: all or none can have them, and not known are those of torch."
    assert not any("--hash" in line for line in lines)


def test_what_has_no_hash_by_its_nature_is_named(environment):
    environment.install("numpy", "2.0.1")
    environment.install("tool", "1", url="https://h.org/r", vcs_info={"vcs": "git", "commit_id": "a" * 40})
    (environment.prefix / OWN).write_text(REQUIREMENTS)
    lock = measure(environment.python).lock
    assert "not known are those of tool." in lock
    assert "--hash" not in lock


def test_pip_of_this_python_is_known(environment):
    import ensurepip

    environment.install("pip", ensurepip.version())
    lock = measure(environment.python).lock
    assert f"pip=={ensurepip.version()} \\\n    --hash=sha256:" in lock


def test_files_that_cannot_be_read_say_nothing(environment, monkeypatch):
    environment.install("numpy", "2.0.1")
    (environment.prefix / OWN).write_bytes(b"\xff")
    (environment.prefix.parent / "requirements.txt").mkdir()
    monkeypatch.setattr("mlipcluster.environments.origins._MOST", len(PYLOCK) - 1)
    (environment.prefix.parent / "pylock.toml").write_text(PYLOCK)
    assert "not known are those of numpy" in measure(environment.python).lock


def test_an_address_cannot_bring_in_a_second_line(environment):
    url = "https://h.org/a.whl\n--extra-index-url https://evil.example.org/simple"
    environment.install("archive", "3", url=url, archive_info={"hashes": {"sha256": "b"}})
    lines = measure(environment.python).lock.splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "archive @ https://h.org/a.whl%0A--extra-index-url%20https://evil.example.org/simple#sha256=b"
    ]


@given(st.text() | st.lists(st.sampled_from([*REQUIREMENTS.splitlines(), *UV_LOCK.splitlines()])).map("\n".join))
def test_no_text_is_an_error(text):
    pins(text)
    packages = (Package("numpy", "2.0.1"),)
    assert all("uv.lock" in line for line in uv.drift(text, packages))
    uv.local_packages(text)


@pytest.mark.parametrize("kept", range(0, len(UV_LOCK) - 3, 23))
def test_a_uv_lock_that_was_cut_short_is_drift(kept):
    lines = uv.drift(UV_LOCK[:kept], (Package("numpy", "2.0.1"), Package("torch", "2.4.0+cpu")))
    assert lines, UV_LOCK[:kept]


def test_local_packages_of_a_uv_lock():
    kinds = {"a": 'editable = "."', "b": 'directory = "../b"', "c": 'path = "c.whl"', "d": 'virtual = "."'}
    kinds |= {"h": 'registry = "/wheels"', "i": 'registry = "../wheels"'}
    kinds |= {
        "e": 'registry = "https://i.example.org/s"',
        "f": 'git = "https://h/f"',
        "g": 'url = "https://h/g.whl"',
    }
    text = "version = 1\n" + "".join(
        f'[[package]]\nname = "{name}"\nversion = "1"\nsource = {{ {kind} }}\n' for name, kind in kinds.items()
    )
    assert uv.local_packages(text) == ["a", "b", "c", "d", "h", "i"]


def test_nothing_beside_is_nothing_known(tmp_path):
    origins = read_origins({"prefix": str(tmp_path / "x"), "base_prefix": str(tmp_path), "python": "3.11.7"})
    assert (origins.hashes, origins.indexes, origins.more) == ({}, {}, ())


# --- drift from our own requirements ---------------------------------------------------------------------------------


def test_drift_from_our_own_requirements(environment):
    environment.install("numpy", "2.0.2")
    environment.install("extra", "1")
    environment.install("my.local", "1", url="file:///a/my.local", dir_info={})
    (environment.prefix / OWN).write_text("# Installed in Python\nnumpy==2.0.1\ngone==1\n# my-local 1: from there\n")
    assert measure(environment.python).drift == (
        f"extra 1 is installed but not in {OWN}",
        f"numpy 2.0.2 is installed, {OWN} says 2.0.1",
        f"gone 1 is in {OWN} but not installed",
    )
    (environment.prefix / OWN).write_text("garbage")
    assert measure(environment.python).drift == (f"{OWN} pins nothing: it was changed or cut short",)


def test_an_archive_whose_hash_the_installer_did_not_keep_has_that_of_the_lock(environment):
    environment.install("numpy", "2.0.1", url="https://files.example.org/numpy.whl", archive_info={}, record="a.py,,\n")
    (environment.prefix.parent / "uv.lock").write_text(UV_LOCK)
    lines = measure(environment.python).lock.splitlines()[1:]
    assert lines == ["numpy @ https://files.example.org/numpy.whl \\", f"    --hash={A} \\", f"    --hash={B}"]


def test_what_conda_installed_is_pinned_where_another_manager_is_named(environment, monkeypatch):
    environment.conda("python", "3.11.7")
    environment.conda("numpy", "2.0.1")
    built_in = {"url": "file:///home/conda/feedstock_root/numpy", "dir_info": {}}
    (environment.install("numpy", "2.0.1", **built_in) / "INSTALLER").write_text("conda")
    monkeypatch.setenv(OVERRIDE, "pip")
    lines = measure(environment.python).lock.splitlines()
    assert lines[2:] == ["numpy==2.0.1", "# python 3.11.7: of conda, no Python package"]


def test_a_seed_that_is_wanted_stays_wherever_it_came_from(environment):
    environment.install("setuptools", "70", url="https://h.org/setuptools-70-py3-none-any.whl", archive_info={})
    (environment.prefix / "requirements.txt").write_text(measure(environment.python).lock)
    *_, last = pip.steps(Wanted(environment.prefix, "", "python"))
    assert last.command[-2:] == ("--yes", "pip")
