from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

import pytest

from mlipcluster.cli.app import app


@dataclass(frozen=True)
class Ran:
    exit_code: int
    stdout: str
    stderr: str


def call(*arguments) -> Ran:
    """Run the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        app([str(argument) for argument in arguments], prog_name="mlipcluster")
    return Ran(ended.value.code or 0, out.getvalue(), err.getvalue())


@pytest.fixture
def cli():
    return call


@pytest.fixture(scope="session")
def relaxed(tmp_path_factory):
    """A small run, made by the command line itself: its folder, and what it printed."""
    from ase.build import bulk

    folder = tmp_path_factory.mktemp("relaxed")
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=1)
    atoms.write(folder / "Cu.extxyz")
    (folder / "broken.cif").write_text("data_broken\n_cell_length_a x\n")
    ran = call(
        *("run", "relax", folder / "Cu.extxyz", folder / "broken.cif", "--calculator", "emt", "-o", folder / "run"),
        *("--seed", "3", "--param", "fmax=0.05", "--then", "single_point", "-O", "author=Ada Lovelace"),
        *("-j", "1", "--no-progress"),
    )
    return folder / "run", ran


@pytest.fixture(scope="session")
def output_file(relaxed):
    return next((relaxed[0] / "outputs").rglob("*.extxyz"))
