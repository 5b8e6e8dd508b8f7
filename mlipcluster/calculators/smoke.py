"""Smoke tests: energy and forces of a reference cell, kept as the known answer of a model in a build.

The first test of a model in a build writes the answer down, later ones are held against it. The file of an environment,
``<root>/smoke/<name>.json``::

    {"schema": 1,
     "answers": {"<digest of the build>": {"<model string>": {
        "cell": "Cu", "energy": -0.1, "forces": [[…], …], "devices": ["cpu"], "when": "2026-11-28T09:00:00+00:00",
        "last": {"verdict": "identical", "energy": 0.0, "forces": 0.0, "seconds": 1.0, "devices": […], "when": "…"}}}}}

in eV and eV/Å; ``last`` holds the last test's differences.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule

from mlipcluster.calculators import notes
from mlipcluster.calculators.socket_calculator import SocketCalculator
from mlipcluster.calculators.stored import Stored
from mlipcluster.errors import InputError, RecordError, RemoteCalculatorError
from mlipcluster.store.layout import owner
from mlipcluster.store.store import Store

FIRST, IDENTICAL, WITHIN, DIFFERENT = "first", "identical", "within tolerance", "different"
#: eV an atom and eV/Å: more than single precision and another device change, less than other weights do.
TOLERANCE = {"energy": 1e-4, "forces": 1e-3}
#: Tried in this order until the model knows the elements.
CELLS: dict[str, Callable[[], Atoms]] = {
    "Cu": lambda: bulk("Cu", "fcc", a=3.6, cubic=True),
    "NaCl": lambda: bulk("NaCl", "rocksalt", a=5.64, cubic=True),
    "Si": lambda: bulk("Si", "diamond", a=5.43, cubic=True),
    "H2O": lambda: molecule("H2O"),
}


@dataclass(frozen=True)
class Answer:
    """What a model says of a reference cell.

    Attributes
    ----------
    cell : str
        Which: a key of :data:`CELLS`.
    energy : float
        eV.
    forces : tuple of tuple of float
        eV/Å, shape (atoms, 3).
    """

    cell: str
    energy: float
    forces: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Smoke:
    """The outcome of one smoke test.

    Attributes
    ----------
    model, environment, build : str
        Model string, name of the environment, digest of its build.
    verdict : str
        ``"first"``: there was no known answer, now there is; ``"identical"``: bit for bit; ``"within tolerance"``, see
        :data:`TOLERANCE`; ``"different"``.
    answer : Answer
        This time's.
    energy, forces : float
        Largest differences from the known answer, in eV an atom and eV/Å.
    seconds : float
        From the start of the process to the answer.
    devices : tuple of str
        Where it computed.
    """

    model: str
    environment: str
    build: str
    verdict: str
    answer: Answer
    energy: float
    forces: float
    seconds: float
    devices: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the answer is not another one than the known."""
        return self.verdict != DIFFERENT


def smoke(store: Store, one: Stored, device: str | None = None) -> Smoke:
    """Test a model of a root, and keep its answer if it is the first; where the root is read-only, only compare.

    Raises
    ------
    InputError
        There is no known answer, and none can be kept.
    CalculatorError
        It does not start, or calculates none of the reference cells.
    """
    spec = one.test_spec if device is None else one.test_spec.replace(device=device)
    path = store.smoke_file(one.environment)
    known = known_answers(path).get(one.build.digest, {}).get(one.model)
    keeps = os.access(path.parent, os.W_OK | os.X_OK)
    if known is None and not keeps:
        raise InputError(
            f"there is no known answer of {one.model!r} in this build yet, and {str(path.parent)!r} cannot be written"
            f" by you; ask its owner, {owner(path.parent)}, to run the test"
        )
    started = time.perf_counter()
    with SocketCalculator(spec) as calculator:
        answer = ask(calculator, [known["cell"]] if known else list(CELLS))
        seconds = time.perf_counter() - started
        devices = calculator.provenance().devices
    energy, forces, verdict = compare(answer, known)
    found = Smoke(one.model, one.environment, one.build.digest, verdict, answer, energy, forces, seconds, devices)
    if keeps and (known is not None or found.passed):  # what is no number is nothing to hold others against
        _keep(store, found)
    return found


def ask(calculator: SocketCalculator, cells: Sequence[str]) -> Answer:
    """Energy and forces of the first of the reference cells that *calculator* can calculate."""
    errors = []
    for name in cells:
        atoms = reference_cell(name)
        atoms.calc = calculator
        try:
            energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        except RemoteCalculatorError as error:
            errors.append(error)
        else:
            return Answer(name, float(energy), tuple(tuple(map(float, row)) for row in forces))
    raise errors[0]


def reference_cell(name: str) -> Atoms:
    """A reference cell, its atoms moved a little off their places: by the same in every version of NumPy."""
    atoms = CELLS[name]()
    atoms.positions += 0.03 * np.sin(1.7 * np.arange(3 * len(atoms)) + 0.3).reshape(-1, 3)
    return atoms


def compare(answer: Answer, known: Mapping[str, Any] | None) -> tuple[float, float, str]:
    """Differences in energy (eV an atom) and forces (eV/Å) from the known answer, and the verdict."""
    ours = np.array(answer.forces)
    if known is None:
        is_number = np.isfinite(answer.energy) and np.isfinite(ours).all()
        return (0.0, 0.0, FIRST) if is_number else (np.nan, np.nan, DIFFERENT)
    theirs = np.array(known["forces"])
    energy = abs(answer.energy - known["energy"]) / len(ours)
    forces = float(abs(ours - theirs).max())
    if energy == forces == 0.0:
        return energy, forces, IDENTICAL
    within = energy <= TOLERANCE["energy"] and forces <= TOLERANCE["forces"]  # never with NaN
    return energy, forces, WITHIN if within else DIFFERENT


def known_answers(path: Path) -> dict[str, dict[str, Any]]:
    """The answers in the file of an environment, by build and model; none if there is no such file."""
    found = notes.read(path).get("answers", {})
    try:
        for answers in found.values():
            for known in answers.values():
                _check(known)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{str(path)!r} holds answers that are none; remove it, and it is made anew") from error
    return dict(found)


def _check(known: Mapping[str, Any]) -> None:
    """Raise one of Python's errors where a known answer cannot be one."""
    if np.shape(known["forces"]) != reference_cell(known["cell"]).positions.shape:
        raise ValueError("forces of another cell")
    float(known["energy"])


def _keep(store: Store, found: Smoke) -> None:
    said = {"devices": list(found.devices), "when": notes.now()}
    last = {"verdict": found.verdict, "energy": found.energy, "forces": found.forces, "seconds": found.seconds, **said}
    path = store.smoke_file(found.environment)
    with notes.alone(path):
        answers = known_answers(path)  # as they are now: others may have been tested meanwhile
        known = answers.setdefault(found.build, {}).setdefault(found.model, {**asdict(found.answer), **said})
        known["last"] = last
        notes.write(store.layout, path, {"answers": answers})
