"""Structures and records as a run would make them, without running anything."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from mlipcluster.records.canonical import digest
from mlipcluster.records.packing import encode, freeze

LOCK = "numpy==2.4.6 \\\n    --hash=sha256:0123\nase==3.29.0 # \"quoted\" 'single'\n" * 10


def make_record(atoms: Atoms, name: str = "Cu4-0123") -> dict:
    packed = encode(atoms)
    return {
        "schema": 1,
        "instance": {
            "tasks": {"structure": encode(atoms.copy()), "kwargs": {}, "source": "Cu.cif#0"},
            "nstruct": 1,
            "replicate": 0,
            "seed": 7,
            "seeds": [3],
            "output_ids": [0],
            "protocols": ["protocols:relax"],
            "calculators": {"": {"factory": "ase.calculators.emt:EMT"}},
            "calculator": "",
            "sha1": "a" * 40,
            "environment": LOCK,
            "environment_digest": "b" * 64,
            "author": 'Zoë \\ "Q" <z@example.org>',
        },
        "metadata": {
            "output_name": name,
            "step": 0,
            "identity": "c" * 32,
            "toml": "[project]\nname = 'x'\n",
            "toml_format": "pyproject.toml",
            "environment_manager": "uv",
            "environment": {"python": "3.11.9", "packages": []},
            "calculators": {},
            "machine": {"host": "node1"},
            "protocols": [
                {
                    "module": "protocols",
                    "name": "relax",
                    "digest": "d" * 64,
                    "text": 'def relax(atoms):\n    return "a\\n"\n',
                }
            ],
            "git": None,
            "times": {"started": "2026-01-01T00:00:00Z", "seconds": [0.25]},
            "result": {"atoms": packed, "digest": digest(packed)},
        },
        "scores": {"energy": -1.5, "barrier": float("nan")},
    }


@pytest.fixture
def make():
    return make_record


@pytest.fixture
def atoms(cu) -> Atoms:
    """Copper with energy, forces and stress of EMT."""
    cu.calc = EMT()
    cu.get_potential_energy()
    cu.get_forces()
    cu.get_stress()
    cu.info["barrier"] = 0.25
    return freeze(cu)


@pytest.fixture
def rich() -> Atoms:
    """Everything at once: magnetic moments, charges, tags, momenta, constraints, results of all shapes."""
    from ase.constraints import FixAtoms, FixCartesian, Hookean

    atoms = Atoms("OH2X", positions=np.arange(12.0).reshape(4, 3) / 7, cell=[3, 4, 5], pbc=[True, False, True])
    atoms.set_tags([1, 2, 3, 4])
    atoms.set_momenta(np.ones((4, 3)) / 3)
    atoms.set_initial_magnetic_moments([0.5, 0, 0, 1])
    atoms.set_initial_charges([0.1, 0.2, -0.3, 0])
    atoms.set_array("shift", np.full((4, 2), 0.1))
    atoms.set_array("flags", np.array([True, False, True, False]))
    atoms.set_array("label", np.array(["a", "bb", "c", "d"]))
    atoms.set_constraint([FixAtoms([0]), FixCartesian(1, [True, False, True]), Hookean(1, 2, 5.0, rt=1.0)])
    atoms.calc = SinglePointCalculator(atoms)
    atoms.calc.results = {
        "energy": -1.25,
        "free_energy": -1.5,
        "forces": np.arange(12.0).reshape(4, 3) / 3,
        "stress": np.arange(6.0) / 3,
        "magmom": 1.5,
        "magmoms": np.array([0.5, 0, 0, 1]),
        "charges": np.array([0.1, 0.2, -0.3, 0.0]),
        "dipole": np.array([1.0, 2.0, 3.0]),
        "energies": np.arange(4.0),
        "descriptors": np.ones((4, 7)),
    }
    return atoms


@pytest.fixture(scope="session")
def small_outputs(tmp_path_factory):
    """One small output of each format and compression: path and bytes by suffix."""
    from mlipcluster.outputs.output import write_output

    folder = tmp_path_factory.mktemp("small")
    atoms = Atoms("CuZn", positions=[[0, 0, 0.1], [1.5, 1, 2]], cell=[3, 3, 3], pbc=True, info={"a": "b\\c", "x": 0.5})
    atoms.calc = SinglePointCalculator(atoms, energy=-1.25, forces=np.ones((2, 3)) / 3)
    record = make_record(atoms)
    found = {}
    for form in ("extxyz", "json"):
        for compression in ("", "gz", "bz2", "xz"):
            path = write_output(folder, atoms, record, format=form, compression=compression)
            found[f"{form}.{compression}".rstrip(".")] = (path, path.read_bytes())
    return found
