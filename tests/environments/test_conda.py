from __future__ import annotations

import hypothesis.strategies as st
import pytest
import rattler
import yaml
from hypothesis import example, given

from mlipcluster.environments import conda
from mlipcluster.environments.conda import channel_of
from mlipcluster.environments.conda_drift import drift
from mlipcluster.environments.environment import Environment, Package
from mlipcluster.environments.steps import Wanted
from mlipcluster.errors import EnvironmentBuildError


def _entry(name, version="1", build="h0", channel="conda-forge", **more):
    url = f"https://conda.anaconda.org/{channel}/linux-64/{name}-{version}-{build}.conda"
    entry = {"name": name, "version": version, "build": build, "url": url, "channel": "", "md5": "", "depends": []}
    return {**entry, **more}


def _measured(*entries, history=""):
    return {
        "python": "3.11.7",
        "platform": "linux-x86_64",
        "prefix": "/nowhere/env",
        "base_prefix": "/nowhere",
        "packages": [],
        "conda": list(entries),
        "history": history,
    }


# conda's pip would take a user's own packages for what is wanted.
ALONE = {"PIP_USER": "0", "PYTHONNOUSERSITE": "1", "PYTHONPATH": ""}


@pytest.mark.parametrize(
    ("command", "mamba"),
    [
        ("/opt/conda/bin/conda create -n x", False),
        ("/opt/mamba/bin/conda create -p /envs/mamba python", False),
        ("conda create -p /envs/mamba", False),
        ("/opt/conda/bin/conda-env create -n mamba", False),
        ("/opt/conda/lib/python3.11/site-packages/conda/__main__.py create mamba", False),
        ("rattler", False),
        ("/opt/my conda/bin/mamba create -n x", True),
        ("/opt/conda/bin/mamba-env create", True),
        ("micromamba create -n x", True),
        ("/home/me/.local/bin/micromamba env create", True),
        ("C:\\Users\\me\\mamba.exe create", True),
    ],
)
def test_who_made_it_is_told_by_its_history(command, mamba):
    history = f"# cmd: {command}\n# cmd: {'conda' if mamba else 'mamba'} install numpy"
    assert conda.made_by_mamba(_measured(_entry("python"), history=history)) is mamba
    assert not conda.made_by_mamba(_measured(history=history))
    assert not conda.made_by_mamba(_measured(_entry("python")))


def test_of_a_package_that_was_installed_from_a_file_no_channel_is_known():
    tool = _entry("tool", url="file:///home/me/tool-1-h0.conda", channel="<unknown>")
    lock = conda.lock(_measured(_entry("python"), tool), ())
    assert "unknown" not in lock.text
    assert "  - tool=1=h0\n" in lock.text


def test_packages_of_another_channel_say_so():
    measured = _measured(_entry("python"), _entry("numpy"), _entry("tool", channel="lab/label/dev"))
    lock = conda.lock(measured, ())
    assert "channels:\n  - conda-forge\n  - lab/label/dev\n  - nodefaults\n" in lock.text
    assert '  - python=1=h0\n  - numpy=1=h0\n  - "lab/label/dev::tool=1=h0"\n' in lock.text


def test_a_list_for_pip_of_comments_alone_is_a_comment():
    added = (Package("mine", "1", "editable:mine@" + "a" * 40),)
    text = conda.lock(_measured(_entry("python")), added).text
    assert text.endswith(
        f"  # pip:\n      # mine 1: editable, from a git checkout at {'a' * 40}; install it from there\n"
    )


@example(["true", "1.0", "#", "a: b", "\x85\u2028😀"], "No")
@given(st.lists(st.text(min_size=1, max_size=8), max_size=3, unique=True), st.text(max_size=8))
def test_whatever_packages_and_channels_are_called_it_is_yaml(names, channel):
    entries = [{**_entry(name, url=""), "channel": channel} for name in names]
    found = yaml.safe_load(conda.lock(_measured(*entries), (Package("ase", "3"),)).text)
    place = channel_of({"url": "", "channel": channel})
    assert found["channels"] == [*([place] if place and names else []), "nodefaults"]
    specs = [f"{name}=1=h0" for name in names] or ["python=3.11.7", "pip"]
    assert found["dependencies"] == [*specs, {"pip": ["ase==3"]}]


def test_the_explicit_list_has_dependencies_first_and_circles_do_not_matter():
    entries = (
        _entry("a", depends=["b", "__glibc", "python"]),
        _entry("b", depends=["c"]),
        _entry("c", depends=["a"]),
        _entry("python", md5="0" * 32),
    )
    platform, _, *lines = conda.lock(_measured(*entries), ()).more_files["explicit.txt"].splitlines()
    assert platform == "# platform: linux-64"
    names = [rattler.MatchSpec.from_url(line.partition("#")[0]).name.normalized for line in lines]
    assert sorted(names) == ["a", "b", "c", "python"]
    assert names.index("python") < names.index("a")
    assert lines[names.index("python")].endswith(f"#{'0' * 32}")


@pytest.mark.parametrize(
    ("specs", "line"),
    [
        ("['numpy=1.26', 'python[version=\\'>=3\\']']", None),
        ("['numpy==1.26.4']", None),
        ("['conda-forge::numpy=1.26.4=py_0']", None),
        ('["numpy=1.26.4.0"]', None),
        ("['numpy=1.2']", "numpy=1.2 was asked for, numpy 1.26.4 (py_0) is installed"),
        ("['numpy==1.26']", "numpy==1.26 was asked for, numpy 1.26.4 (py_0) is installed"),
        ("['numpy=1.26.4=py_1']", "numpy=1.26.4=py_1 was asked for, numpy 1.26.4 (py_0) is installed"),
        ("['scipy=1.2']", "scipy=1.2 was asked for, scipy is not installed"),
        ("['", None),
        ("not a list", None),
    ],
)
def test_drift_from_what_was_asked_for(specs, line):
    measured = _measured(_entry("numpy", "1.26.4", "py_0"), history=f"# update specs: {specs}")
    assert drift(measured, ()) == ((line,) if line else ())


def test_the_last_spec_counts():
    history = "# update specs: ['numpy=1.2', 'scipy=1']\n# update specs: ['numpy']\n# remove specs: ['scipy']"
    assert drift(_measured(_entry("numpy"), history=history), ()) == ()


def test_what_pip_put_over_a_package_is_drift():
    assert drift(_measured(_entry("numpy")), (Package("numpy", "2"), Package("ase", "3"))) == (
        "numpy 2 was installed over conda's 1",
    )


# --- steps -----------------------------------------------------------------------------------------------------------


def _steps(folder, program, **more):
    return conda.steps(Wanted(folder, program, **more))


def test_the_documented_commands(tmp_path):
    (tmp_path / "environment.yml").touch()
    (tmp_path / "explicit.txt").touch()
    place = ("--prefix", str(tmp_path / "env"), "--file", str(tmp_path / "environment.yml"))
    (step,) = _steps(tmp_path, "/opt/mamba/conda")
    assert (step.command, step.variables) == (("/opt/mamba/conda", "env", "create", *place), ALONE)
    (step,) = _steps(tmp_path, "/a/mamba")
    yes = {"MAMBA_ALWAYS_YES": "true"}
    assert (step.command, step.variables) == (("/a/mamba", "env", "create", *place), ALONE | yes)
    (step,) = _steps(tmp_path, "/a/micromamba")
    assert (step.command, step.variables) == (("/a/micromamba", "create", "--yes", *place), ALONE)
    (tmp_path / "environment.yml").unlink()
    (step,) = _steps(tmp_path, "/a/conda")
    assert step.command == ("/a/conda", "create", "--yes", *place[:3], str(tmp_path / "explicit.txt"))


def test_local_packages_come_last_by_the_environments_own_pip(tmp_path):
    (tmp_path / "environment.yml").touch()
    environment = Environment("conda", "/x", "3.11.7", "linux-x86_64", (Package("mine", "1", "editable:mine"),))
    _, step = _steps(tmp_path, "conda", environment=environment, local={"mine": tmp_path / "my own"})
    assert step.command[:4] == (str(tmp_path / "env" / "bin" / "python"), "-I", "-m", "pip")
    assert step.command[-2:] == ("--editable", str(tmp_path / "my own"))


def test_neither_a_taken_place_nor_an_empty_folder(tmp_path):
    with pytest.raises(EnvironmentBuildError, match=r"no environment.yml and no explicit.txt"):
        _steps(tmp_path, "conda")
    (tmp_path / "environment.yml").touch()
    (tmp_path / "env").symlink_to("nowhere")
    with pytest.raises(EnvironmentBuildError, match="in the way"):
        _steps(tmp_path, "conda")


@given(
    st.lists(st.sampled_from(["# update specs: ", "['numpy=1.26'", "]", '"', "'", "\n", "# cmd: mamba"]) | st.text())
)
def test_no_history_is_an_error(parts):
    measured = _measured(_entry("numpy"), history="".join(parts))
    assert all("numpy" in line or "was asked for" in line for line in drift(measured, ()))
    conda.made_by_mamba(measured)
