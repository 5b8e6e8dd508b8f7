"""The way from a record to the same environment for conda, mamba and pixi, by the scripts and the system's Python.

The managers are the fakes of ``tests/fakes``, found on the PATH; uv and pip are tried for real in
``tests/end_to_end/test_recreate.py``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlipcluster.environments.measure import measure

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = "/usr/bin/python3" if Path("/usr/bin/python3").is_file() else sys.executable
VERSION = ".".join(str(part) for part in sys.version_info[:3])
NAME = "a 'b' \"c\"\nd"
ENVIRONMENT_YML = f"""channels: [conda-forge]
dependencies:
  - python={VERSION}
  - numpy=2.0=py_1
  - pip:
    - tiny-thing==1.5
"""


def conda(machine, folder, *command):
    (folder / "environment.yml").write_text(ENVIRONMENT_YML)
    prefix = folder / NAME
    options = ("--prefix", prefix, "--file", folder / "environment.yml")
    machine.run(machine.programs[command[0]], *command[1:], *options, MAMBA_ALWAYS_YES="true")
    return prefix / "bin" / "python"


def pixi(machine, folder):
    workspace = folder / NAME
    workspace.mkdir()
    (workspace / "pixi.toml").write_text('[workspace]\nchannels = ["conda-forge"]\n[dependencies]\nnumpy = "*"\n')
    machine.run(machine.programs["pixi"], "install", "--manifest-path", workspace)
    return workspace / ".pixi" / "envs" / "default" / "bin" / "python"


MAKE = {
    "conda": lambda machine, folder: conda(machine, folder, "conda", "env", "create"),
    "mamba": lambda machine, folder: conda(machine, folder, "mamba", "env", "create"),
    "pixi": pixi,
}
FILES = {"conda": {"environment.yml", "explicit.txt"}, "pixi": {"pixi.lock", "pixi.toml"}}


@pytest.fixture(params=MAKE)
def dumped(request, machine, tmp_path, make_sealed, write_record):
    """An environment of a manager, and the folder that it was dumped into: manager, measurement, script."""
    python = MAKE[request.param](machine, tmp_path)
    measured = measure(python)
    output = write_record(make_sealed(measured.to_json()), tmp_path / "output.json")

    def script(name, *arguments, **variables):
        return subprocess.run(
            [SYSTEM, "-I", "-S", "-E", ROOT / name, *arguments],
            cwd=tmp_path,
            env={**os.environ, **machine.variables, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    done = script("dump_env_file.py", output, "--env_dir", "new 'env'\n")
    assert (done.returncode, done.stderr) == (0, "")
    return request.param, measured, script


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_it_is_made_as_recorded(dumped, tmp_path):
    manager, measured, script = dumped
    folder = tmp_path / "new 'env'\n"
    before = names(folder)
    assert before == {"environment.json", *FILES.get(manager, FILES["conda"])}
    shown = script("recreate_env.py", "--env_dir", folder, "--dry_run")
    assert shown.returncode == 0
    assert names(folder) == before
    done = script("recreate_env.py", "--env_dir", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"made as recorded: {len(measured.packages)} packages, digest {measured.digest}" in done.stdout
    ran, told = ([line for line in one.stdout.splitlines() if line.startswith("$ ")] for one in (done, shown))
    assert ran == told != []
    assert script("recreate_env.py", "--env_dir", folder, "--force").returncode == 0


def test_a_package_that_is_gone_is_named_and_nothing_left(dumped, tmp_path):
    _, _, script = dumped
    folder = tmp_path / "new 'env'\n"
    before = names(folder)
    done = script("recreate_env.py", "--env_dir", folder, FAKE_CONDA_MISSING="numpy")
    assert done.returncode == 1
    assert "numpy" in done.stderr.partition("Its last words")[0]
    assert "Traceback" not in done.stderr
    assert names(folder) == before


def test_conda_and_mamba_build_from_each_other_s_files(dumped, tmp_path):
    manager, measured, script = dumped
    other = {"conda": "mamba", "mamba": "conda", "pixi": "conda"}[manager]
    done = script("recreate_env.py", "--env_dir", "new 'env'\n", "--env_manager", other)
    if manager == "pixi":
        assert done.returncode == 1
        assert "conda builds from" in done.stderr
        assert "--env_manager pixi" in done.stderr
    else:
        assert done.returncode == 0, done.stdout + done.stderr
        assert measured.digest in done.stdout
