from __future__ import annotations

import pytest
from typer.testing import CliRunner

from mlipcluster.cli.app import app


@pytest.fixture
def cli():
    """Run the command line in this process; give its exit status, stdout and stderr."""

    def cli(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="mlipcluster")

    return cli


@pytest.fixture(scope="session")
def relaxed(tmp_path_factory):
    """A small run, made by the command line itself: its folder, and what it printed."""
    from ase.build import bulk

    folder = tmp_path_factory.mktemp("relaxed")
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=1)
    atoms.write(folder / "Cu.extxyz")
    (folder / "broken.cif").write_text("data_broken\n_cell_length_a x\n")
    arguments = ["run", "relax", str(folder / "Cu.extxyz"), str(folder / "broken.cif"), "--calculator", "emt"]
    arguments += ["-o", str(folder / "run"), "--seed", "3", "--param", "fmax=0.05", "--then", "single_point"]
    arguments += ["-O", "author=Ada Lovelace", "-j", "1", "--no-progress"]
    return folder / "run", CliRunner().invoke(app, arguments, prog_name="mlipcluster")


@pytest.fixture(scope="session")
def output_file(relaxed):
    return next((relaxed[0] / "outputs").rglob("*.extxyz"))
