"""A run in an environment; a year later an output, a checkout and the system's Python: the same again, to the bit."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlipcluster.environments.measure import measure

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = "/usr/bin/python3" if Path("/usr/bin/python3").is_file() else sys.executable
RUN = """
from ase.build import bulk

from mlipcluster import MLIPCluster
from mlipcluster.protocols import relax

if __name__ == "__main__":
    crystals = [bulk(name, cubic=True) for name in ("Cu", "Al")]
    for crystal in crystals:
        crystal.rattle(0.05, seed=1)
    tasks = [{"atoms": crystal, "fmax": 0.05} for crystal in crystals]
    options = {"output_path": "run", "seed": 7, "progress": False, "max_workers": 1, "compression": "gz"}
    print(MLIPCluster(tasks, "emt", **options).distribute(relax))
"""


def call(*command, cwd, **variables):
    """Run a command as a user's shell would, without what pytest's own environment sets; its output."""
    foreign = {"VIRTUAL_ENV", "PYTHONPATH", "UV"}
    kept = {name: value for name, value in os.environ.items() if name not in foreign}
    links = os.environ.get("PIP_FIND_LINKS", "")
    done = subprocess.run(
        [os.fspath(word) for word in command],
        cwd=cwd,
        # "0" is how pip is told so by a variable: compiling what is not imported takes it longer than all else.
        env={"UV_FIND_LINKS": links.replace(" ", ","), "PIP_NO_COMPILE": "0", **kept, **variables},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def uv():
    beside = Path(sys.executable).parent / "uv"
    return os.fspath(beside) if beside.is_file() else shutil.which("uv")


@pytest.fixture
def checkout(tmp_path):
    """A clean checkout of what is here, at a commit of its own."""
    place = tmp_path / "the checkout"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    for name in filter(None, listed):
        if name.startswith(("mlipcluster/", "pyproject", "README", "LICENSE", "dump_env", "recreate_env")):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / name)
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "All of it"]):
        subprocess.run(["git", *command], cwd=place, check=True)
    return place


def venv_of_uv(uv, checkout, folder):
    call(uv, "venv", "--python", sys.executable, folder / "made", cwd=folder)
    call(uv, "pip", "install", "--python", folder / "made" / "bin" / "python", "--editable", checkout, cwd=folder)
    return folder / "made" / "bin" / "python"


def venv_of_pip(uv, checkout, folder):
    """uv says which versions, which pip takes minutes for; pip installs them, but for what nothing here imports."""
    call(sys.executable, "-m", "venv", folder / "made", cwd=folder)
    call(uv, "pip", "compile", "--python", sys.executable, "-o", "pins.txt", checkout / "pyproject.toml", cwd=folder)
    pins = (folder / "pins.txt").read_text()
    (folder / "pins.txt").write_text(
        re.sub(r"(?m)^(matplotlib|pillow|fonttools|contourpy|kiwisolver|pandas)==.*\n", "", pins)
    )
    pip = (folder / "made" / "bin" / "python", "-m", "pip", "install", "--no-deps")
    call(*pip, "--requirement", "pins.txt", "--editable", checkout, cwd=folder)
    return folder / "made" / "bin" / "python"


def project_of_uv(uv, checkout, folder):
    project = folder / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[project]\nname = "study"\nversion = "1"\nrequires-python = ">=3.10"\ndependencies = ["mlipcluster"]\n'
        f"[tool.uv.sources]\nmlipcluster = {{ path = {json.dumps(os.fspath(checkout))}, editable = true }}\n"
    )
    call(uv, "sync", "--python", sys.executable, cwd=project)
    return project / ".venv" / "bin" / "python"


@pytest.mark.parametrize(
    ("make", "files"),
    [
        (venv_of_uv, {"requirements.txt"}),
        (venv_of_pip, {"requirements.txt"}),
        (project_of_uv, {"uv.lock", "pyproject.toml", "requirements.txt"}),
    ],
)
def test_from_an_output_alone_to_the_same_bits(make, files, uv, checkout, tmp_path):
    python = make(uv, checkout, tmp_path)
    (tmp_path / "relaxations.py").write_text(RUN)
    call(python, "relaxations.py", cwd=tmp_path)
    output = min((tmp_path / "run" / "outputs").rglob("*.extxyz.gz"))
    before = measure(python)

    later = tmp_path / "a year later"
    later.mkdir()
    shutil.copy(output, later)
    shutil.rmtree(tmp_path / "run")
    said = call(SYSTEM, "-I", "-S", "-E", checkout / "dump_env_file.py", output.name, cwd=later)
    sha1 = call("git", "rev-parse", "HEAD", cwd=checkout).strip()
    assert f"package mlipcluster 0.1.0: from a checkout at {sha1}" in said
    assert {path.name for path in (later / "env").iterdir()} == {*files, "environment.json"}

    said = call(
        SYSTEM,
        "-I",
        "-S",
        "-E",
        checkout / "recreate_env.py",
        cwd=later,
        PATH=f"{Path(uv).parent}:{os.environ['PATH']}",
    )
    assert f"made as recorded: {len(before.packages)} packages, digest {before.digest}" in said
    new = later / "env" / "bin" / "python"
    assert measure(new).digest == before.digest
    shutil.rmtree(python.parents[1])  # the first environment is gone for good

    verdict = call(new, "-m", "mlipcluster", "reproduce", output.name, cwd=later)
    assert verdict.startswith("identical")
    assert "environment, code, seeds as recorded" in verdict
