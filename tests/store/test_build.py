from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlipcluster.environments.origins import OWN
from mlipcluster.errors import EnvironmentBuildError, InputError
from mlipcluster.store import build as build_module
from mlipcluster.store.build import build
from mlipcluster.store.layout import make_root
from mlipcluster.store.parts import RETIRED_FILE
from mlipcluster.store.recipes import project_toml
from mlipcluster.store.source import read_source
from mlipcluster.store.store import Store, measured_as_built
from mlipcluster.store.workplace import Options, Workplace

FAKES = Path(__file__).parents[1] / "fakes" / "bin"
HOSTILE = 'it\'s "the"\nroot'


@pytest.fixture
def store(tmp_path, wheels):
    return Store(make_root(tmp_path / HOSTILE)[0].root)


@pytest.fixture
def make(store, write_source):
    """``make("metal_env", "ase", **options) -> (Build, new)``: register, and build with those options."""

    def make(name, *dependencies, more="", **options):
        store.register(write_source(name, *dependencies, more=more))
        return build(store, name, Options(**options), lambda line: None)

    return make


@pytest.fixture
def before(store, write_source, build_by_hand):
    """What was built earlier."""
    store.register(write_source("metal_env", "ase"))
    return build_by_hand(store, "metal_env")


def parts(store):
    return sorted(path.name for path in store.layout.parts.iterdir())


def imported(found, code):
    return subprocess.check_output([found.python, "-I", "-c", code], text=True).strip()


def test_a_build(store, make):
    found, new = make("metal_env", "ase", "tiny")
    assert new
    assert found == store.current("metal_env") == store.build(found.digest)
    assert parts(store) == [found.folder.name]
    assert (store.root / "builds" / found.digest).resolve() == found.folder.resolve()
    assert imported(found, "import ase, tiny; print(tiny.version)") == "1"
    assert (found.folder / "metal_env.py").read_text() == found.source.script
    assert (found.folder / "build.log").read_text().startswith("$ ")
    lock = (found.folder / "requirements.txt").read_text()
    assert re.findall(r"(?m)^(\S+) \\$", lock) == ["ase==3.99.0", "lonely==1.0", "tiny==1.0"]
    assert lock.count("--hash=sha256:") == 3
    assert (found.folder / "env" / OWN).read_text() == lock
    assert found.facts["lock_digest"] == hashlib.sha256(lock.encode()).hexdigest()
    assert found.facts["environment_digest"] == found.environment.digest
    assert {package.name for package in found.environment.packages} == {"ase", "lonely", "tiny"}
    assert found.environment.lock.count("--hash=sha256:") == 3
    assert found.facts["size"] > 0
    assert list(found.folder.rglob("tiny*.pyc"))
    assert measured_as_built(found) == []


def test_what_is_built_of_the_same_source_is_taken_as_it_is(store, make, monkeypatch):
    first = make("metal_env", "ase")[0]
    monkeypatch.setattr(Workplace, "run", None)  # no program is needed
    assert make("metal_env", "ase") == (first, False)


def test_another_source_is_another_build_beside(store, make):
    first = make("metal_env", "ase")[0]
    second, new = make("metal_env", "ase", "tiny")
    assert new
    assert second.digest != first.digest
    assert store.current("metal_env") == second
    assert imported(first, "import ase; print(1)") == "1"
    assert (first.folder / RETIRED_FILE).is_file()
    assert make("metal_env", "ase") == (first, False)  # what was built once is found again
    assert store.current("metal_env") == first
    assert len(parts(store)) == 2


def test_the_same_source_under_another_name_is_another_build(store, make):
    first, second = make("metal_env", "ase")[0], make("other_env", "ase")[0]
    assert first.source.text == second.source.text
    assert first.digest != second.digest
    assert (store.current("metal_env"), store.current("other_env")) == (first, second)
    assert (second.folder / "other_env.py").is_file()


def test_force_makes_it_again_beside_the_one_in_use(store, make):
    first = make("metal_env", "ase")[0]
    second, new = make("metal_env", "ase", force=True)
    assert new
    assert second.digest == first.digest
    assert second.folder != first.folder
    assert store.current("metal_env") == second
    assert imported(first, "import ase; print(1)") == "1"
    assert (first.folder / RETIRED_FILE).is_file()
    assert not (second.folder / RETIRED_FILE).exists()


def test_versions_are_kept_until_they_are_asked_to_change(store, make, wheels, make_wheel):
    assert imported(make("metal_env", "ase", "tiny")[0], "import tiny; print(tiny.version)") == "1"
    make_wheel(wheels, "tiny", "2.0", {"tiny.py": "version = 2\n"})
    assert imported(make("metal_env", "ase", "tiny", force=True)[0], "import tiny; print(tiny.version)") == "1"
    upgraded, new = make("metal_env", "ase", "tiny", upgrade=True)
    assert new
    assert imported(upgraded, "import tiny; print(tiny.version)") == "2"


@pytest.mark.parametrize("told", ["sources", "table"])
def test_where_packages_come_from_is_read_by_uv(store, make, make_wheel, tmp_path, told):
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    wheel = make_wheel(elsewhere, "tiny", "7.0", {"tiny.py": "version = 7\n"})
    more = {
        "sources": f"[tool.uv.sources]\ntiny = {{ path = {json.dumps(str(wheel))} }}\n",
        "table": f"\n[tool.uv]\nfind-links = [{json.dumps(str(elsewhere))}]\n",
    }[told]
    found = make("metal_env", "ase", "tiny", more=more)[0]
    assert imported(found, "import tiny; print(tiny.version)") == "7"
    assert (found.environment.lock_name, found.environment.toml_format) == ("uv.lock", "pyproject.toml")
    assert "tiny" in (found.folder / ".venv" / OWN).read_text()
    assert make("metal_env", "ase", "tiny", more=more, force=True)[0].digest == found.digest


def test_the_project_of_a_script_with_tables(write_source):
    more = '\n[tool.uv.sources]\na = { index = "mine" }\n\n[[tool.uv.index]]\nname = "mine"\nurl = "https://h.org"\n'
    text = project_toml(read_source(write_source("_a_env", "a", "b>=1", more=more)), "3.11.7")
    assert 'name = "a-env-environment"' in text
    assert 'requires-python = "==3.11.*"' in text
    assert text.count("[tool.uv]\n") == 1
    assert "environments = [" in text
    assert '[[tool.uv.index]]\nname = "mine"' in text


@pytest.mark.parametrize(
    ("dependencies", "says"),
    [
        (
            ("ase", "no-such-thing"),
            "there is no 'no-such-thing', for this Python.*correct that requirement in the source",
        ),
        (("ase", "tiny>99"), "tiny.*correct that requirement in the source"),
        (("ase", "lonely==1.0", "lonely!=1.0"), "contradict|correct that requirement"),
        (("tiny",), "it has no ase, which every calculator here needs; add it to dependencies"),
        (("ase", "this is no requirement"), "Expected"),
    ],
)
def test_a_build_that_fails_leaves_the_one_before(store, make, before, dependencies, says):
    with pytest.raises(
        EnvironmentBuildError, match=f"(?s)environment 'metal_env' could not be built: .*{says}"
    ) as caught:
        make("metal_env", *dependencies)
    assert store.current("metal_env") == before
    assert parts(store) == [before.folder.name]
    log = store.layout.logs / "metal_env.log"
    assert f"(all of it: {log}; what was built before is still in use)" in str(caught.value)
    assert log.read_text().startswith("$ ")


def fake_uv(tmp_path, monkeypatch, script):
    path = tmp_path / "uv"
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(0o755)
    monkeypatch.setattr(Workplace, "program", lambda self, names: str(path))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            "error: failed to write: No space left on device (os error 28)",
            "the disk is full; make room, then build again",
        ),
        (
            "hint: Packages were unavailable because the\n network was disabled.",
            "no way to the package index from here",
        ),
        ("error: error sending request for url (https://x/)", "no way to the package index from here"),
        ("error: Hash mismatch for `tiny==1.0`", "what was fetched is not what was locked; build again with --upgrade"),
        ("error: Failed to build `old==1.0`", "'old==1.0' could not be built from its source; ask for a version"),
        ("error: something else", "uv ended with 2; see below\n  error: something else"),
        ("error: https://me:s3cret@h.org/simple failed", "https://h.org/simple failed"),
    ],
)
def test_what_uv_says_is_told_with_the_remedy(store, make, tmp_path, monkeypatch, words, says):
    fake_uv(tmp_path, monkeypatch, f"import sys; print({words!r}, file=sys.stderr); sys.exit(2)")
    with pytest.raises(EnvironmentBuildError, match=f"(?s).*{re.escape(says)}") as caught:
        make("metal_env", "ase")
    assert "s3cret" not in str(caught.value) + (store.layout.logs / "metal_env.log").read_text()
    assert parts(store) == []


def test_a_build_that_takes_too_long_is_ended(store, make, tmp_path, monkeypatch):
    fake_uv(tmp_path, monkeypatch, "import time\nprint('begun', flush=True)\ntime.sleep(600)")
    with pytest.raises(EnvironmentBuildError, match="took longer than 1 s; give more with --timeout\n  begun"):
        make("metal_env", "ase", timeout=1.0)
    assert parts(store) == []


def test_without_uv(store, make, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(EnvironmentBuildError, match="it needs uv, which is not there; pip install uv"):
        make("metal_env", "ase")


@pytest.mark.parametrize("moment", ["plan", "measure", "share_tree", "_publish"])
@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device", "/x")])
def test_whatever_ends_a_build_nothing_is_left(store, make, before, monkeypatch, moment, failure):
    def fail(*arguments):
        raise failure

    with monkeypatch.context() as patched:
        patched.setattr(build_module, moment, fail)
        with pytest.raises((KeyboardInterrupt, EnvironmentBuildError), match=r"^$|No space left on device: '/x'"):
            make("metal_env", "ase", "tiny")
    assert store.current("metal_env") == before
    assert parts(store) == [before.folder.name]


def test_a_source_that_was_never_registered(store):
    with pytest.raises(InputError, match="no environment 'x' is registered"):
        build(store, "x", Options(), print)


def test_pythons(store, make, tmp_path):
    found = make("metal_env", "ase", python=sys.executable)[0]
    assert found.facts["python_version"] == ".".join(map(str, sys.version_info[:3]))
    assert make("metal_env", "ase", python=sys.executable) == (found, False)
    with pytest.raises(EnvironmentBuildError, match="no Python '/none' on this machine; name one with --python"):
        make("metal_env", "ase", python="/none")
    path = tmp_path / "late_env.py"
    path.write_text(found.source.text.replace(">=3.9", ">=3.99"))
    store.register(path)
    with pytest.raises(EnvironmentBuildError, match=r"no Python '>=3.99' on this machine.*--download-python"):
        build(store, "late_env", Options(), print)
    with pytest.raises(EnvironmentBuildError, match=r"asks for Python >=3.99, and .* name another --python"):
        build(store, "late_env", Options(python=sys.executable), print)


def test_what_is_built_is_open_to_all_that_may_read_the_root(store, make):
    store.root.chmod(0o2775)
    before = os.umask(0o077)
    try:
        found = make("metal_env", "ase", "tiny")[0]
    finally:
        os.umask(before)
    for path in found.folder.rglob("*"):
        mode = path.stat().st_mode
        assert mode & 0o044 == 0o044, path
        assert not path.is_dir() or mode & 0o075 == 0o075, path


MANIFESTS = {
    "environment.yml": "channels:\n  - conda-forge\ndependencies:\n  - python\n  - ase\n  - numpy\n",
    "pixi.toml": '[workspace]\nchannels = ["conda-forge"]\n\n[dependencies]\nase = "*"\nnumpy = "*"\n',
}


@pytest.mark.parametrize(
    ("program", "manager", "file", "place"),
    [
        ("conda", "conda", "environment.yml", "env"),
        ("mamba", "mamba", "environment.yml", "env"),
        ("micromamba", "mamba", "environment.yml", "env"),
        ("pixi", "pixi", "pixi.toml", ".pixi/envs/default"),
    ],
)
def test_an_environment_of_a_manifest(store, tmp_path, monkeypatch, program, manager, file, place):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / program).symlink_to(FAKES / program)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin")
    (tmp_path / file).write_text(MANIFESTS[file])
    (tmp_path / "metal_env.py").write_text("def setup(model):\n    pass\n")
    store.register(tmp_path / file, "metal_env")
    found, new = build(store, "metal_env", Options(), print)
    assert new
    assert (found.manager, found.python) == (manager, found.folder / place / "bin" / "python")
    assert found.environment.manager == manager
    assert {"ase", "numpy"} <= {package.name for package in found.environment.packages}
    assert (found.folder / "metal_env.py").is_file()
    assert build(store, "metal_env", Options(), print) == (found, False)
    again, new = build(store, "metal_env", Options(force=True), print)
    assert new
    assert again.digest == found.digest
    assert measured_as_built(again) == []


@pytest.mark.parametrize(("name", "text"), [("environment.yml", "dependencies:\n"), ("pixi.toml", "[workspace]\n")])
def test_a_manager_that_is_not_there_is_named(store, tmp_path, monkeypatch, name, text):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / name).write_text(text)
    (tmp_path / "metal_env.py").write_text("def setup(model):\n    pass\n")
    store.register(tmp_path / name, "metal_env")
    with pytest.raises(
        EnvironmentBuildError, match=r"it needs (conda or mamba or micromamba|pixi), which is not there"
    ):
        build(store, "metal_env", Options(), print)


@pytest.mark.parametrize("open_to_others", [True, False])
def test_a_python_that_is_closed_to_others_is_told(store, write_source, tmp_path, monkeypatch, open_to_others):
    store.root.chmod(0o755 if open_to_others else 0o700)
    hidden = tmp_path / "home"
    hidden.mkdir(mode=0o700)
    told = []
    monkeypatch.setattr(build_module.os.path, "realpath", lambda path: str(hidden / "python"))
    work = Workplace(store.layout, tmp_path, read_source(write_source("metal_env", "ase")), Options(), told.append)
    build_module._warn_of_a_closed_python(work, Path("python"))
    assert [line.startswith("warning: metal_env runs on a Python in") for line in told] == [True] * open_to_others


@pytest.mark.parametrize("more", ["", '\n[tool.uv]\nprerelease = "allow"\n'])
def test_a_root_can_be_moved(store, make, tmp_path, wheels, make_wheel, more):
    script = {
        "tiny.py": "def main():\n    print('moved')\n",
        "tiny-3.0.dist-info/entry_points.txt": "[console_scripts]\ntiny = tiny:main\n",
    }
    make_wheel(wheels, "tiny", "3.0", script)
    digest = make("metal_env", "ase", "tiny", more=more)[0].environment.digest
    store.root.rename(tmp_path / "moved")
    found = Store(tmp_path / "moved").current("metal_env")
    assert imported(found, "import tiny; tiny.main()") == "moved"
    assert subprocess.check_output([found.python.with_name("tiny")], text=True) == "moved\n"
    assert measured_as_built(found) == []
    assert found.environment.digest == digest


def test_programs_see_nothing_of_the_caller(store, make, monkeypatch, tmp_path):
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "other"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("UV_PYTHON", "/none")
    assert make("metal_env", "ase")[1]
    assert not (tmp_path / "other").exists()
    assert Path(sys.executable).exists()
