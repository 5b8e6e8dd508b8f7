"""Every example structure is what its table says it is."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import spglib
import spglib.error
from ase.calculators.emt import EMT
from ase.calculators.emt import parameters as emt_parameters
from ase.io import read

FOLDER = Path(__file__).parents[2] / "examples" / "structures"
COLUMNS = ("file", "what", "formula", "frames", "cell", "volume", "group", "known_to", "source")


def table():
    lines = (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    return [dict(zip(COLUMNS, [row[0].strip("`"), *row[1:]], strict=True)) for row in rows]


ROWS = table()


@pytest.fixture(autouse=True)
def spglib_raises(monkeypatch):
    monkeypatch.setattr(spglib.error, "OLD_ERROR_HANDLING", False)


def test_table_and_folder_name_the_same_files():
    files = {path.name for path in FOLDER.iterdir()} - {"README.md", "broken.cif"}
    assert files == {row["file"] for row in ROWS}
    assert len(files) >= 24
    assert len({path.rpartition(".")[2] for path in files}) >= 6


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_file_is_what_the_table_says(row):
    frames = read(FOLDER / row["file"], index=":")
    assert len(frames) == int(row["frames"])
    for atoms in frames:
        assert atoms.get_chemical_formula() == row["formula"]
        if row["volume"] != "–":
            assert atoms.get_volume() / len(atoms) == pytest.approx(float(row["volume"]), abs=2e-4)
        if row["group"] != "–":
            assert atoms.pbc.all()
            assert space_group(atoms) == row["group"]
        known = "EMT" if set(atoms.symbols) <= set(emt_parameters) else "LJ" if set(atoms.symbols) < NOBLE else "–"
        assert known == row["known_to"]


NOBLE = {"Ne", "Ar", "Kr", "Xe"}


def space_group(atoms):
    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    return spglib.get_symmetry_dataset(cell, symprec=1e-4).international


@pytest.mark.parametrize("row", [row for row in ROWS if row["cell"].startswith("a ")], ids=lambda row: row["file"])
def test_cell_is_that_of_the_source(row):
    a, *c = (float(number) for number in re.findall(r"[0-9.]+", row["cell"]))
    lengths = read(FOLDER / row["file"]).cell.lengths()
    assert lengths == pytest.approx([a, a, c[0] if c else a], abs=1e-6)


@pytest.mark.parametrize(
    ("file", "pair", "distance"),
    [
        ("CO.xyz", (0, 1), 1.1283),
        ("N2.xyz", (0, 1), 1.0977),
        ("CO2.xyz", (0, 1), 1.162),
        ("NH3.xyz", (0, 1), 1.012),
        ("CH4.xyz", (0, 1), 1.087),
        ("H2O.pdb", (0, 1), 0.9572),
        ("C6H6.json", (0, 1), 1.397),
        ("C6H6.json", (0, 6), 1.084),
        ("Pt111_CO.json", (12, 16), 1.85),
        ("Pt111_CO.json", (16, 17), 1.15),
    ],
)
def test_bond_is_that_of_the_source(file, pair, distance):
    atoms = read(FOLDER / file)
    bonds = atoms.get_all_distances(mic=True)[pair[0]] if file.startswith("Pt") else atoms.get_all_distances()[pair[0]]
    assert bonds[pair[1]] == pytest.approx(distance, abs=5e-4)


def test_angles_are_those_of_the_sources():
    assert read(FOLDER / "H2O.pdb").get_angle(1, 0, 2) == pytest.approx(104.52, abs=0.1)
    assert read(FOLDER / "NH3.xyz").get_angle(1, 0, 2) == pytest.approx(106.67, abs=0.01)


def test_some_have_work_for_a_relaxation():
    rattled, strained = read(FOLDER / "Cu_rattled.extxyz"), read(FOLDER / "Al_strained.vasp")
    rattled.calc, strained.calc = EMT(), EMT()
    assert np.abs(rattled.get_forces()).max() > 0.5
    assert np.abs(strained.get_stress()).max() > 0.005


def test_the_broken_one_cannot_be_read():
    with pytest.raises(Exception, match="CIF"):
        read(FOLDER / "broken.cif")


def test_no_structure_is_there_twice():
    frames = [atoms for row in ROWS for atoms in read(FOLDER / row["file"], index=":")]
    assert not [(a, b) for i, a in enumerate(frames) for b in frames[:i] if a == b]
