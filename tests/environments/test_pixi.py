from __future__ import annotations

import json

import hypothesis.strategies as st
import pytest
import yaml
from hypothesis import given

from mlipcluster.environments import pixi
from mlipcluster.environments.environment import Environment, Package
from mlipcluster.environments.managers import OVERRIDE
from mlipcluster.environments.measure import measure
from mlipcluster.environments.pixi_lock import drift, local_packages, subdir
from mlipcluster.environments.steps import Wanted
from mlipcluster.errors import EnvironmentBuildError, MeasureError

FORGE = "https://conda.anaconda.org/conda-forge"
# As pixi 0.40 and later write it …
V6 = f"""version: 6
environments:
  cuda:
    channels:
    - url: {FORGE}/
    packages:
      linux-64:
      - conda: {FORGE}/linux-64/python-3.12.1-h9.conda
  default:
    channels:
    - url: {FORGE}/
    indexes:
    - https://me:s3cret@pypi.example.org:8443/simple
    packages:
      linux-64:
      - conda: {FORGE}/linux-64/python-3.11.7-h0_cpython.conda
      - conda: {FORGE}/noarch/tzdata-2024a-h0c530f3_0.tar.bz2
      - pypi: https://files.example.org/a/My_Tool-1.0-py3-none-any.whl
      - pypi: ./
      osx-arm64:
      - conda: {FORGE}/osx-arm64/python-3.11.6-h7.conda
packages:
- conda: {FORGE}/linux-64/python-3.11.7-h0_cpython.conda
  build_number: 1
  sha256: {"0" * 64}
  depends:
  - tzdata
- conda: {FORGE}/noarch/tzdata-2024a-h0c530f3_0.tar.bz2
  sha256: {"1" * 64}
- pypi: ./
  name: mine
  version: '0.1'
  sha256: {"2" * 64}
  editable: true
- pypi: https://files.example.org/a/My_Tool-1.0-py3-none-any.whl
  name: my-tool
  version: 1.0
  sha256: {"3" * 64}
  requires_dist:
  - ase>=3
"""
# … and those before it, with names of kinds in front.
V5 = "version: 5\n" + V6.partition("\n")[2].partition("\npackages:\n")[0] + "\npackages:\n"
V5 += (
    V6.partition("\npackages:\n")[2]
    .replace("- conda:", "- kind: conda\n  name: x\n  url:")
    .replace("- pypi: .", "- kind: pypi\n  path: .")
    .replace("- pypi:", "- kind: pypi\n  url:")
)
INSTALLED = (
    Package("mine", "0.1", "editable:mine"),
    Package("my-tool", "1.0"),
    Package("python", "3.11.7", "conda", "h0_cpython", "conda-forge"),
    Package("tzdata", "2024a", "conda", "h0c530f3_0", "conda-forge"),
)


@pytest.mark.parametrize("text", [V6, V5], ids=["6", "5"])
def test_a_lock_of_either_form_agrees_with_what_is_installed(text):
    assert drift(text, "default", "linux-x86_64", INSTALLED) == ()
    assert local_packages(text, "default") == ["mine"]
    assert local_packages(text, "cuda") == []


def test_each_difference_is_one_line():
    installed = (*INSTALLED[:2], Package("extra", "1"), Package("python", "3.11.7", "conda", "h1", "conda-forge"))
    assert drift(V6, "default", "linux-x86_64", installed) == (
        "extra 1 is installed but not in pixi.lock",
        "python 3.11.7 (h1) is installed, pixi.lock says h0_cpython",
        "tzdata 2024a is in pixi.lock but not installed",
    )
    line = f"1 packages are not described, the first is '{FORGE}/osx-arm64/python-3.11.6-h7.conda'"
    assert line in drift(V6, "default", "macosx-11.0-arm64", INSTALLED[2:3])[0]


def test_platforms_with_names_of_their_own():
    """Two are of this machine's kind; that which agrees is the one that was installed."""
    block = V6[V6.index("      linux-64:\n", V6.index("  default:")) : V6.index("      osx-arm64")]
    old, gpu = block.replace("linux-64:\n", "old:\n").replace("2024a", "2023a"), block.replace("linux-64:\n", "gpu:\n")
    old_platform, gpu_platform = (f"- name: {name}\n  subdir: linux-64\n" for name in ("old", "gpu"))
    text = V6.replace(block, old + gpu).replace("version: 6\n", f"version: 7\nplatforms:\n{old_platform}{gpu_platform}")
    assert drift(text, "default", "linux-x86_64", INSTALLED) == ()
    without = drift(text.replace(gpu_platform, ""), "default", "linux-x86_64", INSTALLED)
    assert "tzdata 2024a is installed, pixi.lock says 2023a" in without


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "cut short"),
        ("version: 6\n", "cut short"),
        ("version: 99\nenvironments:\n", "version 99, which is not known here"),
        ("version: 6\nenvironments:\npackages:\n", "no packages of environment 'default' for linux-64"),
        (V6.replace("linux-64:\n", "linux-aarch64:\n"), "no packages of environment 'default'"),
        (V6.partition("packages:\n- ")[0], "4 packages are not described"),
        ("<<<<<<< HEAD\n" + V6.replace("version: 6", "version:"), "cut short"),
    ],
)
def test_a_damaged_lock_says_so(text, word):
    lines = drift(text, "default", "linux-x86_64", INSTALLED)
    assert word in lines[0]


@pytest.mark.parametrize("text", [V6, V5], ids=["6", "5"])
def test_locks_here_are_yaml(text):
    found = yaml.safe_load(text)
    assert len(found["environments"]["default"]["packages"]["linux-64"]) == len(found["packages"]) == 4


@given(st.lists(st.sampled_from(V6.splitlines(keepends=True)) | st.text(max_size=9)).map("".join), st.text(max_size=5))
def test_no_text_is_an_error(text, name):
    for environment in ("default", name):
        for line in drift("version: 6\nenvironments:\n" + text, environment, "linux-x86_64", INSTALLED):
            assert "pixi.lock" in line
        local_packages(text, environment)


def test_platforms():
    known = {
        "linux-x86_64": "linux-64",
        "linux-aarch64": "linux-aarch64",
        "linux-ppc64le": "linux-ppc64le",
        "linux-i686": "linux-32",
        "macosx-10.9-x86_64": "osx-64",
        "macosx-11.0-arm64": "osx-arm64",
        "macosx-10.9-universal2": "osx-arm64",
        "win-amd64": "win-64",
        "win-arm64": "win-arm64",
        "win32": "win-32",
    }
    assert {platform: subdir(platform) for platform in known} == known


# --- which workspace -------------------------------------------------------------------------------------------------


def _workspace(make_environment, folder, manifest="pixi.toml", text="[workspace]\n", name="default"):
    environment = make_environment(name, folder / ".pixi" / "envs")
    environment.conda("python", "3.11.7", "h0_cpython", url=f"{FORGE}/linux-64/python-3.11.7-h0_cpython.conda")
    (folder / manifest).write_text(text)
    (folder / "pixi.lock").write_text(V6)
    return environment


@pytest.mark.parametrize(
    ("manifest", "text"),
    [
        ("pixi.toml", '[workspace]\nchannels = ["https://me:s3cret@h:8443/t/s3cret/forge"]\n'),
        ("pyproject.toml", '[tool.pixi.workspace]\nchannels = ["https://s3cret@h/forge"]\n'),
        ("pyproject.toml", '[ tool . "pixi" . workspace ]\n'),
    ],
)
def test_the_workspace_is_told_by_the_place(make_environment, tmp_path, manifest, text):
    folder = tmp_path / "work 'space'"
    measured = measure(_workspace(make_environment, folder, manifest, text).prefix)
    assert (measured.manager, measured.lock_name, measured.toml_format) == ("pixi", "pixi.lock", manifest)
    assert "s3cret" not in str(measured.to_json())
    assert "pypi.example.org:8443/simple" in measured.lock


def test_a_place_of_its_own_is_told_by_pixis_own_file(make_environment, tmp_path):
    folder = tmp_path / "workspace"
    _workspace(make_environment, folder)
    elsewhere = make_environment("cuda", tmp_path / "elsewhere")
    elsewhere.conda("python", "3.12.1", "h9")
    about = elsewhere.prefix / "conda-meta" / "pixi"
    about.write_text(json.dumps({"manifest_path": str(folder / "pixi.toml"), "environment_name": "cuda"}))
    measured = measure(elsewhere.prefix)
    assert (measured.manager, measured.lock) == ("pixi", V6.replace("me:s3cret@", ""))
    far = json.dumps({"manifest_path": f"/{'x' * 5000}/pixi.toml"})
    for text in ("{", "[]", '{"manifest_path": 3}', '{"manifest_path": "/nowhere/pixi.toml"}', far, "[" * 100_000):
        about.write_text(text)
        assert measure(elsewhere.prefix).manager == "conda"


def test_a_copy_of_a_workspace_has_its_own_lock(make_environment, tmp_path):
    (tmp_path / "first").mkdir()
    for name in ("pixi.toml", "pixi.lock"):
        (tmp_path / "first" / name).write_text("[workspace]\n")
    environment = _workspace(make_environment, tmp_path / "copy")
    about = environment.prefix / "conda-meta" / "pixi"
    about.write_text(json.dumps({"manifest_path": str(tmp_path / "first" / "pixi.toml")}))
    assert measure(environment.prefix).lock == V6.replace("me:s3cret@", "")
    (tmp_path / "copy" / "pyproject.toml").write_text("[tool.pixi.workspace]\n")
    about.write_text(json.dumps({"manifest_path": str(tmp_path / "copy" / "pyproject.toml")}))
    assert measure(environment.prefix).toml_format == "pyproject.toml"


def test_no_secret_variables_of_a_manifest(make_environment, tmp_path):
    text = """[workspace]
[activation.env]
HF_TOKEN = "s3cret"
"WANDB_API_KEY" = 's3cr"et'
DEEP = { AWS_SECRET_ACCESS_KEY = "s3\\"cret", MODEL = "kept" }
LONG_PASSWORD = \"\"\"
s3cret\"\"\"
GIVEN_TOKEN = "$GIVEN_TOKEN"
[dependencies]
tokenizers = ">=0.15"
"""
    toml = measure(_workspace(make_environment, tmp_path / "w", text=text).prefix).toml
    assert "cret" not in toml.replace("AWS_SECRET", "")
    assert toml.splitlines()[2:6] == [
        'HF_TOKEN = ""',
        '"WANDB_API_KEY" = ""',
        'DEEP = { AWS_SECRET_ACCESS_KEY = "", MODEL = "kept" }',
        'LONG_PASSWORD = ""',
    ]
    assert toml.splitlines()[6:] == text.splitlines()[7:]


def test_without_a_lock_it_is_condas(make_environment, tmp_path, monkeypatch):
    environment = _workspace(make_environment, tmp_path / "home")
    (tmp_path / "home" / "pixi.lock").unlink()
    assert measure(environment.prefix).lock_name == "environment.yml"
    monkeypatch.setenv(OVERRIDE, "pixi")
    measured = measure(environment.prefix)
    assert (measured.manager, measured.lock_name) == ("pixi", "environment.yml")
    assert measured.drift == ("there is no pixi.lock that it was made from",)


def test_a_lock_that_is_no_text_is_named(make_environment, tmp_path):
    environment = _workspace(make_environment, tmp_path / "w")
    (tmp_path / "w" / "pixi.lock").write_bytes(b"\xff")
    with pytest.raises(MeasureError, match=r"pixi.lock' cannot be read"):
        measure(environment.prefix)


# --- steps -----------------------------------------------------------------------------------------------------------


def _wanted(folder, prefix="/w/.pixi/envs/cuda", packages=(), **more):
    return Wanted(folder, "/a/pixi", environment=Environment("pixi", prefix, "3", "linux-x86_64", packages), **more)


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("/w/.pixi/envs/cuda-12", "cuda-12"),
        ("/w/envs/../..", "default"),
        ("C:\\w\\.pixi\\envs\\a\\", "a"),
        ("", "default"),
    ],
)
def test_the_name_of_an_environment_is_its_folders(tmp_path, prefix, name):
    wanted = _wanted(tmp_path, prefix)
    assert pixi.interpreter(wanted) == tmp_path / ".pixi" / "envs" / name / "bin" / "python"
    assert pixi.interpreter(Wanted(tmp_path, "pixi")).parts[-3] == "default"


def test_one_environment_is_installed_frozen_and_what_is_local_left_out(tmp_path):
    (tmp_path / "pixi.lock").write_text(V6)
    with pytest.raises(EnvironmentBuildError, match=r"no pixi.toml"):
        pixi.steps(_wanted(tmp_path))
    (tmp_path / "pyproject.toml").write_text("[tool.pixi.workspace]\n")
    manifest = ("--manifest-path", str(tmp_path / "pyproject.toml"))
    (step,) = pixi.steps(_wanted(tmp_path))
    assert step.command == ("/a/pixi", "install", "--frozen", *manifest, "--environment", "cuda")
    mine = {"prefix": "/w/default", "local": {"mine": tmp_path / "my own"}}
    with pytest.raises(EnvironmentBuildError, match="mine cannot be installed: the environment has no pip"):
        pixi.steps(_wanted(tmp_path, **mine))
    packages = (Package("pip", "24", "conda"), Package("mine", "0.1", "editable:mine"))
    first, last = pixi.steps(_wanted(tmp_path, packages=packages, **mine))
    assert first.command[-4:] == ("--environment", "default", "--skip", "mine")
    assert last.command[-2:] == ("--editable", str(tmp_path / "my own"))
