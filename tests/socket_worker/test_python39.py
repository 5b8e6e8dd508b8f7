"""The worker's folder must run in the Python of an old model."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import mlipcluster.socket_worker

FOLDER = Path(mlipcluster.socket_worker.__file__).parent
FILES = sorted(FOLDER.glob("*.py"))
ALLOWED = {"numpy", "ase"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_grammar_of_python_3_9(file):
    ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 9))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_of_mlipcluster_is_imported(file):
    import sys

    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        for name in names:
            root = name.partition(".")[0]
            assert root in sys.stdlib_module_names or root in ALLOWED, f"{file.name} imports {name}"


def test_a_real_python_3_9_serves(tmp_path):
    """With ``MLIPCLUSTER_TEST_PYTHON39``, an interpreter of Python 3.9 that has NumPy and ASE."""
    python = os.environ.get("MLIPCLUSTER_TEST_PYTHON39", "")
    if not shutil.which(python):
        pytest.skip("set MLIPCLUSTER_TEST_PYTHON39 to a Python 3.9 that has NumPy and ASE")
    from ase.build import bulk
    from ase.calculators.emt import EMT

    from mlipcluster.calculators.socket_calculator import SocketCalculator

    version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout
    assert version.startswith("Python 3.9")
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    with SocketCalculator("emt", python=python) as calculator:
        atoms.calc = calculator
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        assert calculator.provenance().python.startswith("3.9")
    atoms.calc = EMT()
    assert abs(energy - atoms.get_potential_energy()) < 1e-10
    assert abs(forces - atoms.get_forces()).max() < 1e-10
