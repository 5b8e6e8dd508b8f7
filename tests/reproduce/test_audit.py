from __future__ import annotations

import pytest
from ase.build import bulk

from mlipcluster.outputs.output import Output
from mlipcluster.reproduction.audit import Audit
from mlipcluster.reproduction.checks import Difference
from mlipcluster.reproduction.comparison import Quantity, Tolerance

FORCE, ENERGY = Tolerance(1e-4, "eV/Å"), Tolerance(1e-6, "eV/atom", per_atom=True)
SAME = tuple(Quantity(name, "identical", 0.0, 0, ENERGY) for name in ("energy", "positions", "cell"))

RECORD = {
    "schema": 1,
    "digest": "d" * 64,
    "instance": {
        "tasks": {"structure": None, "kwargs": {"fmax": 0.01}, "source": "Cu.cif#0"},
        "nstruct": 1,
        "replicate": 2,
        "seed": 7,
        "seeds": [11, 13],
        "output_ids": [0, 3],
        "protocols": ["mine:rattle", "mine:anneal"],
        "calculators": {"mace": {"factory": "models:load", "args": ["small"], "device": "cuda"}},
        "calculator": "mace",
        "author": "Ada",
        "email": "ada@example.org",
        "version": "0.1.0",
    },
    "metadata": {
        "protocols": [{"module": "mine", "name": "rattle", "digest": "a" * 64}],
        "git": {"sha1": "c" * 40, "remote": "https://example.org/mine.git", "dirty": True},
        "machine": {"hostname": "node7", "cpu": "EPYC", "system": "Linux", "kernel": "6.1", "libc": "glibc 2.36"},
        "environment": {"python": "3.11.7", "manager": "uv", "packages": [{}, {}], "digest": "e" * 64},
        "calculators": {
            "mace": {
                "provenance": {"weights": [{"path": "/w/small.pt", "size": 5, "sha256": "f" * 64}]},
                "environment": {"python": "3.10.1", "manager": "uv", "packages": [], "digest": "9" * 64},
            }
        },
        "times": {"started": "2026-01-01T00:00:00+00:00", "seconds": [1.5, 60.25]},
        "result": {"digest": "1" * 64},
    },
    "scores": {},
}


def audit(verdict="identical", quantities=SAME, differences=(), checked=("environment", "code", "weights", "seeds")):
    output = Output("Cu4-1a2b", bulk("Cu"), {}, RECORD, None)
    return Audit(verdict, quantities, differences, checked, ("machine: cpu: EPYC -> Xeon",), output, output)


def test_the_headline_of_an_identical_output():
    everything = tuple(
        Quantity(name, "identical") for name in ("energy", "forces", "stress", "positions", "cell", "pbc")
    )
    assert audit(quantities=everything).headline == (
        "identical: energy, forces, stress, positions, cell (bit for bit); "
        "environment, code, weights, seeds as recorded"
    )


def test_the_headline_tells_numbers_of_what_is_not_identical():
    forces = Quantity("forces", "within tolerance", 2.5e-9, 12, FORCE)
    tag = Quantity("info.tag", "different", note="'b', recorded 'a'")
    energy = Quantity("energy", "different", 0.125, 99, ENERGY)
    found = audit("different", (*SAME[1:], forces, tag, energy), (Difference("code", "git commit a -> b"),))
    assert found.headline == (
        "different: info.tag ('b', recorded 'a'), energy (0.12 eV/atom, tolerance 1e-06); "
        "within tolerance: forces (2.5e-09 eV/Å); identical: positions, cell (bit for bit); "
        "environment, weights, seeds as recorded; NOT as recorded: code"
    )


def test_many_quantities_are_counted():
    many = tuple(Quantity(f"info.x{number}", "different", note="?") for number in range(9))
    assert "and 4 more" in audit("different", many).headline


@pytest.mark.parametrize(("verdict", "status"), [("identical", 0), ("within tolerance", 3), ("different", 4)])
def test_the_exit_status(verdict, status):
    assert audit(verdict).exit_status == status


def test_the_page_holds_all_that_a_reviewer_asks_for():
    found = audit(differences=(Difference("environment", "numpy", ("numpy 2 -> 1",)),))
    page = found.text()
    assert page == str(found)
    assert page.splitlines()[0] == found.headline
    for text in (
        *(
            "Cu.cif#0",
            "fmax=0.01",
            "mine:rattle, mine:anneal",
            "mace models:load('small') on cuda",
            "11, 13 (root seed 7)",
        ),
        *("replicate 2, output 0, 3", "Ada ada@example.org", "2026-01-01T00:00:00+00:00, 1.5 + 60.2 s", "node7: EPYC"),
        *(
            "c" * 40,
            "with uncommitted changes",
            "a" * 64,
            "e" * 64,
            "9" * 64,
            "f" * 64,
            "/w/small.pt, 5 bytes",
            "1" * 64,
        ),
        *("numpy 2 -> 1", "machine: cpu: EPYC -> Xeon", "largest difference"),
    ):
        assert text in page, text


def test_the_repr_is_one_line():
    assert repr(audit()).startswith("<Audit of Cu4-1a2b: identical: energy, positions, cell (bit for bit)")
    assert "\n" not in repr(audit())
