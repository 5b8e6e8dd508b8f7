from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mlipcluster.environments.environment import Package, difference
from mlipcluster.environments.lock import LOCK_FILES
from mlipcluster.environments.managers import MANAGERS, OVERRIDE
from mlipcluster.environments.measure import interpreter, measure
from mlipcluster.errors import InputError, MeasureError


def _packages(environment):
    return {package.name: package for package in measure(environment.python).packages}


def test_this_environment():
    here = measure()
    assert here.python.rstrip("td").split("rc")[0] == ".".join(map(str, sys.version_info[:3]))
    assert here.prefix == sys.prefix
    versions = {package.name: package.version for package in here.packages}
    import ase
    import numpy as np

    assert (versions["ase"], versions["numpy"]) == (ase.__version__, np.__version__)
    assert f"\nnumpy=={np.__version__}" in here.lock or here.lock_name != "requirements.txt"
    assert measure(sys.executable).digest == here.digest
    assert measure(sys.prefix).digest == here.digest
    assert measure(lock=False).digest == here.digest


def test_packages_and_where_they_came_from(environment):
    environment.install("Some.Package_x", "1.0")
    environment.install(
        "from-git", "2", url="https://me:secret@h.org/r", vcs_info={"vcs": "git", "commit_id": "a" * 40}
    )
    environment.install("archive", "3", url="https://h.org/a.whl?sig=secret", archive_info={"hashes": {"sha256": "b"}})
    environment.install("wheel", "4", url="file:///home/me/w/wheel-4.whl", archive_info={"hash": "sha256=c"})
    environment.install("folder", "5", url="file:///home/me/folder", dir_info={}, record="folder/a.py,sha256=x,1\n")
    environment.install("editable", "6", url="file:///nowhere/editable", dir_info={"editable": True})
    packages = _packages(environment)
    assert packages["some-package-x"] == Package("some-package-x", "1.0", "index")
    assert packages["from-git"].source == f"git+https://h.org/r@{'a' * 40}"
    assert packages["archive"].source == "https://h.org/a.whl#sha256=b"
    assert packages["wheel"].source == "file:wheel-4.whl#sha256=c"
    assert packages["folder"].source.startswith("file:folder#sha256=")
    assert packages["editable"].source == "editable:editable"
    text = str(measure(environment.python).to_json())
    assert "secret" not in text
    assert "/home/me" not in text


def test_a_repository_on_this_machine_is_told_by_its_name_and_commit(environment):
    vcs = {"vcs": "git", "commit_id": "a" * 40}
    environment.install("forked", "2", url="file:///home/me/forked.git", vcs_info=vcs)
    assert _packages(environment)["forked"].source == f"git+file:forked.git@{'a' * 40}"
    assert f"forked @ git+file:///home/me/forked.git@{'a' * 40}\n" in measure(environment.python).lock


def test_an_archive_is_the_same_whether_or_not_its_hash_was_kept(make_environment):
    """By pip it is, by uv it is not."""
    kept, lost = make_environment("kept"), make_environment("lost")
    archive = {"url": "https://h.org/a.zip", "subdirectory": "py", "record": "a.py,sha256=x,1\n"}
    kept.install("archive", "3", archive_info={"hashes": {"sha256": "b"}}, **archive)
    lost.install("archive", "3", archive_info={}, **archive)
    one, other = measure(kept.python), measure(lost.python)
    assert one.digest == other.digest
    assert "archive @ https://h.org/a.zip#sha256=b&subdirectory=py\n" in one.lock
    assert "archive @ https://h.org/a.zip#subdirectory=py\n" in other.lock


def test_a_folder_installed_again_with_other_content_is_another_package(environment):
    record = "folder/a.py,sha256=x,1\n../../../bin/tool,sha256=p,1\nfolder/a.pyc,,\nfolder-5.dist-info/RECORD,,\n"
    installed = environment.install("folder", "5", url="file:///a/folder", dir_info={}, record=record)
    before = measure(environment.python).digest
    (installed / "RECORD").write_text(record.replace("sha256=p", "sha256=q"))
    assert measure(environment.python).digest == before
    (installed / "RECORD").write_text(record.replace("sha256=x", "sha256=y"))
    assert measure(environment.python).digest != before


def test_the_digest_does_not_depend_on_the_place(make_environment, monkeypatch):
    one, other = make_environment("one"), make_environment("another place")
    names = ["aa", "bb", "cc"]
    for environment, order in ((one, names), (other, reversed(names))):
        for name in order:
            environment.install(name, "1", url=f"file://{environment.prefix}/{name}", dir_info={"editable": True})
    monkeypatch.setenv("USER", "somebody")
    assert measure(one.python).digest == measure(other.python).digest
    assert measure(one.python).prefix != measure(other.python).prefix
    other.install("dd", "1")
    assert measure(one.python).digest != measure(other.python).digest
    assert difference(measure(one.python), measure(other.python)) == ["only here: dd 1"]


def _git(folder, *arguments):
    subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=True)


def test_an_editable_checkout_is_told_by_its_commit(environment, tmp_path):
    checkout = tmp_path / "check out"
    project = checkout / "sub"
    project.mkdir(parents=True)
    (project / "mine.py").write_text("x = 1\n")
    (checkout / "notes.txt").write_text("a\n")
    _git(checkout, "init", "-q")
    _git(checkout, "add", ".")
    _git(checkout, "commit", "-q", "-m", "first")
    sha1 = subprocess.check_output(["git", "-C", str(checkout), "rev-parse", "HEAD"], text=True).strip()
    environment.install("mine", "1", url=project.as_uri(), dir_info={"editable": True})
    clean = measure(environment.python)
    assert clean.packages[0].source == f"editable:mine@{sha1}"
    assert f"# mine 1: editable, from a git checkout at {sha1}" in clean.lock
    (project / "untracked.py").write_text("")
    (checkout / "notes.txt").write_text("outside the project\n")
    assert measure(environment.python).digest == clean.digest
    (project / "mine.py").write_text("x = 2\n")
    dirty = measure(environment.python)
    assert dirty.packages[0].source == f"editable:mine@{sha1}+dirty"
    assert difference(clean, dirty) == [f"mine 1: editable:mine@{sha1} -> editable:mine@{sha1}+dirty"]


def test_what_older_setuptools_left_in_development_mode_is_a_checkout_too(environment, tmp_path):
    checkout = tmp_path / "check out"
    (checkout / "mine.egg-info").mkdir(parents=True)
    (checkout / "mine.egg-info" / "PKG-INFO").write_text("Name: mine\nVersion: 1\n")
    (checkout / "mine.py").write_text("x = 1\n")
    _git(checkout, "init", "-q")
    _git(checkout, "add", ".")
    _git(checkout, "commit", "-q", "-m", "first")
    (environment.site / "easy-install.pth").write_text(f"{checkout}\n")
    clean = _packages(environment)["mine"].source
    assert len(clean) == len("editable:mine@") + 40
    (checkout / "mine.py").write_text("x = 2\n")
    assert _packages(environment)["mine"].source == f"{clean}+dirty"


def test_eggs_are_packages(environment):
    egg = environment.site / "Old_Thing-1.0-py3.egg"
    (egg / "EGG-INFO").mkdir(parents=True)
    (egg / "EGG-INFO" / "PKG-INFO").write_text("Name: Old_Thing\nVersion: 1.0\n")
    (environment.site / "easy-install.pth").write_text(f"./{egg.name}\n")
    assert measure(environment.python).packages == (Package("old-thing", "1.0"),)


def test_a_checkout_that_git_cannot_compare_is_not_called_clean(environment, tmp_path):
    checkout = tmp_path / "check out"
    checkout.mkdir()
    _git(checkout, "init", "-q")
    _git(checkout, "commit", "-q", "--allow-empty", "-m", "first")
    (checkout / ".git" / "index").write_bytes(b"no index")
    environment.install("mine", "1", url=checkout.as_uri(), dir_info={"editable": True})
    assert _packages(environment)["mine"].source.endswith("+dirty")


@pytest.mark.parametrize(
    "damage",
    [
        {"metadata": "\xff\xfe no fields"},
        {"metadata": "Name: x"},
        {"url": 3},
        {"url": "file:///x", "dir_info": 3},
        {"url": "file:///x", "dir_info": {}, "subdirectory": []},
        {"url": "file:///x", "vcs_info": "x", "archive_info": []},
    ],
)
def test_damaged_metadata_is_no_stop(environment, damage):
    environment.install("good", "1")
    environment.install("x", "1", **damage)
    (environment.site / "~ood-0.9.dist-info").mkdir()
    (environment.site / "~ood-0.9.dist-info" / "METADATA").write_text("Name: good\nVersion: 0.9\n")
    (environment.site / "empty-1.dist-info").mkdir()
    assert _packages(environment)["good"].version == "1"


def test_what_comes_first_on_the_path_counts(environment, tmp_path):
    other = tmp_path / "more"
    folder = other / "twice-2.egg-info"
    folder.mkdir(parents=True)
    (folder / "PKG-INFO").write_text("Name: twice\nVersion: 2\n")
    (environment.site / "more.pth").write_text(f"{other}\n")
    assert _packages(environment)["twice"].version == "2"
    environment.install("twice", "1")
    assert _packages(environment)["twice"].version == "1"


def test_variables_of_the_user_do_not_matter(environment, tmp_path, monkeypatch):
    (tmp_path / "p" / "odd-1.dist-info").mkdir(parents=True)
    (tmp_path / "p" / "odd-1.dist-info" / "METADATA").write_text("Name: odd\nVersion: 1\n")
    before = measure(environment.python).digest
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "p"))
    monkeypatch.chdir(tmp_path / "p")
    assert measure(environment.python).digest == before


_THIS_PROCESS = """
import sys
from mlipcluster.environments.measure import measure
sys.path[:0] = ["", sys.argv[1]]
sys.path.append(sys.argv[2])
looked_for = {"module-of-a-cluster", "numpy", "mine", "vendored"}
print(*(package for package in measure().packages if package.name in looked_for))
"""


def test_what_this_process_imports_from_further_folders_belongs_to_its_environment(tmp_path):
    module = tmp_path / "modules" / "site-packages"
    vendored = module / "tools" / "_vendor"  # setuptools puts its own there into sys.path when it is imported
    for folder, name in (
        (module, "module-of-a-cluster"),
        (module, "numpy"),
        (tmp_path / "mine", "mine"),
        (vendored, "vendored"),
    ):
        (folder / f"{name}-0.1.dist-info").mkdir(parents=True)
        (folder / f"{name}-0.1.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: 0.1\n")
    path = os.pathsep.join([str(module), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-c", _THIS_PROCESS, str(tmp_path / "mine"), str(vendored)]
    done = subprocess.run(command, env=environment, cwd=tmp_path / "mine", capture_output=True, text=True, check=True)
    assert done.stdout == "module-of-a-cluster 0.1 numpy 0.1\n"


@pytest.mark.parametrize("url", ["file:///home/me/w/wheel-4.whl", "https://h.org/wheel-4.whl"])
def test_a_wheel_built_again_is_another_package_where_its_hash_was_not_kept(environment, url):
    record = '"a, b.py",,\nwheel-4.dist-info/RECORD,,\n'
    module = environment.site / "a, b.py"
    module.write_text("x = 1\n")
    installed = environment.install("wheel", "4", url=url, archive_info={}, record=record)
    before = measure(environment.python)
    (installed / "INSTALLER").write_text("uv")
    assert measure(environment.python).digest == before.digest
    module.write_text("x = 2\n")
    again = measure(environment.python)
    assert again.digest != before.digest
    locked = [line for line in again.lock.splitlines() if not line.startswith("#")]
    assert locked == ([f"wheel @ {url}"] if url.startswith("https") else [])  # no hash that the archive does not have
    (installed / "RECORD").write_text("a.py,sha256=x,1\n")
    assert measure(environment.python).digest not in {before.digest, again.digest}


def test_the_environment_may_be_named_by_its_folder(environment):
    assert interpreter(environment.prefix) == environment.python
    assert measure(environment.prefix).digest == measure(environment.python).digest


def test_what_is_no_interpreter_is_named(tmp_path):
    with pytest.raises(MeasureError, match="no interpreter"):
        measure(tmp_path / "nothing")
    with pytest.raises(MeasureError, match="bin/python"):
        measure(tmp_path)
    text = tmp_path / "python"
    text.write_text("not a program")
    with pytest.raises(MeasureError, match="Python >= 3"):
        measure(text)
    for script in ("#!/bin/sh\necho oh no >&2\nexit 3\n", "#!/bin/sh\necho '[]'\n", "#!/bin/sh\necho hello\n"):
        text.write_text(script)
        text.chmod(0o755)
        with pytest.raises(MeasureError, match="could not be measured"):
            measure(text)


def test_the_manager_is_read_off_the_environment(environment, monkeypatch):
    assert measure(environment.python).manager == "pip"
    environment.pyvenv("uv = 0.5.1")
    assert measure(environment.python).manager == "uv"
    environment.conda("python", "3.11.7")
    assert measure(environment.python).manager == "conda"
    (environment.prefix / "conda-meta" / "history").write_text("==> now <==\n# cmd: /opt/bin/micromamba create -n x\n")
    assert measure(environment.python).manager == "mamba"
    for name in MANAGERS:
        monkeypatch.setenv(OVERRIDE, name)
        assert measure(environment.python).manager == name
    monkeypatch.setenv(OVERRIDE, "poetry")
    with pytest.raises(InputError, match="conda, mamba, pip, pixi, uv"):
        measure(environment.python)


@pytest.mark.parametrize("name", MANAGERS)
def test_every_manager_writes_a_lock(environment, monkeypatch, name):
    environment.install("numpy", "2.0")
    monkeypatch.setenv(OVERRIDE, name)
    measured = measure(environment.python)
    assert "numpy==2.0" in measured.lock
    assert set(measured.files()) <= set(LOCK_FILES)
    assert str(environment.prefix) not in measured.lock
    assert measured.lock == measure(environment.python).lock


def test_nothing_is_changed(environment):
    environment.install("numpy", "2.0")
    before = sorted(str(path) for path in environment.prefix.rglob("*"))
    measure(environment.python)
    assert sorted(str(path) for path in environment.prefix.rglob("*")) == before


def test_a_git_that_cannot_be_run_is_no_stop(environment, tmp_path, monkeypatch):
    environment.install("mine", "1", url=tmp_path.as_uri(), dir_info={"editable": True})
    monkeypatch.setenv("PATH", os.devnull)
    assert _packages(environment)["mine"].source == "editable:mine"
