"""The calculator itself: built, brought to a defined state, and asked."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators import calculator as ases
from ase.calculators.calculator import Calculator, PropertyNotImplementedError

from .device import device_argument, device_of
from .factory import find

#: Random generators start from this seed whenever the factory runs, so that every instance is the same.
BUILD_SEED = 0


class Calculation:
    """The calculator of this process.

    Parameters
    ----------
    spec : mapping
        ``factory``, ``args``, ``kwargs``, ``device``, ``threads``, ``state``, ``paths`` of a ``CalculatorSpec``.

    Attributes
    ----------
    spec : mapping
        As given.
    calculator : object
        What the factory returned.
    build_seconds : float
        How long importing and calling the factory took the first time.
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.spec = spec
        sys.path[:0] = [os.path.realpath(path) for path in spec.get("paths", ())]
        started = time.perf_counter()
        self._factory = find(spec["factory"])
        self._device = device_of(self._factory, spec)
        self._build()
        self.build_seconds = time.perf_counter() - started

    def prepare(self, seed: int | None) -> None:
        """Bring the calculator to its defined state and seed this process's random generators with *seed*."""
        if self.rebuilds:
            self._build()
        elif not self._pristine:
            getattr(self.calculator, self.spec["state"])()
            if self._is_usual:
                _forget(self.calculator)
        if seed is not None:
            seed_generators(seed)

    @property
    def rebuilds(self) -> bool:
        """Whether :meth:`prepare` would call the factory."""
        return not self._pristine and self.spec.get("state", "fresh") == "fresh"

    @property
    def implemented_properties(self) -> list[str]:
        """Properties that the calculator says it can compute."""
        declared = getattr(self.calculator, "implemented_properties", None)
        if declared is None:
            declared = [name for name, method in METHODS.items() if hasattr(self.calculator, method)]
        return [str(name) for name in declared]

    def results(self, atoms: Atoms, properties: Sequence[str], changes: list[str]) -> Mapping[str, Any]:
        """Everything the calculator knows of *atoms* after it was asked for *properties*.

        Parameters
        ----------
        changes : list of str
            What changed since the calculator's last call, as ASE names it; exact, so that nothing is compared again.
        """
        self._pristine = False
        calculator = self.calculator
        if not self._is_usual:
            return self._ask_one_by_one(atoms, properties, changes)
        if changes:
            _forget(calculator)
        missing = [name for name in properties if name not in calculator.results]
        if missing:
            calculator.calculate(atoms, missing, changes)
        results: Mapping[str, Any] = calculator.results
        return results

    def _ask_one_by_one(self, atoms: Atoms, properties: Sequence[str], changes: list[str]) -> Mapping[str, Any]:
        """Ask in the calculator's own ways; its other results come along as far as they are surely of *atoms*."""
        calculator = self.calculator
        is_ases = isinstance(calculator, BASE)
        if is_ases and changes:
            _forget(calculator)
        before = {} if is_ases else dict(_results_of(calculator))
        found = {name: value for name in properties if (value := self._ask(atoms, name)) is not None}
        others = {
            name: value
            for name, value in _results_of(calculator).items()
            if name not in self._own_answers and not (name in before and before[name] is value)
        }
        return {**others, **found}

    def _ask(self, atoms: Atoms, name: str) -> Any:
        calculator = self.calculator
        method = getattr(calculator, GETTERS.get(name, ""), None)
        if hasattr(calculator, "get_property") and (method is None or name not in self._own_getters):
            return calculator.get_property(name, atoms)
        if method is None:
            raise PropertyNotImplementedError(f"{name} property not implemented")
        return method(atoms, force_consistent=True) if name == "free_energy" else method(atoms)

    def _build(self) -> None:
        had_torch = "torch" in sys.modules
        seed_generators(BUILD_SEED)
        arguments = dict(self.spec.get("kwargs", {}))
        if self._device is not None:
            arguments[device_argument(self._factory)] = self._device
        self.calculator = self._factory(*self.spec.get("args", ()), **arguments)
        if not any(hasattr(self.calculator, name) for name in ("calculate", "get_property", *METHODS.values())):
            found = type(self.calculator).__name__
            raise TypeError(f"{self.spec['factory']!r} gave a {found}, not a calculator of ASE's")
        # If it has only now loaded torch, it drew from a generator that could not be seeded: `prepare` builds another.
        self._pristine = had_torch or "torch" not in sys.modules
        self._look_at_getters()
        state = self.spec.get("state", "fresh")
        if state != "fresh" and not callable(getattr(self.calculator, state, None)):
            raise AttributeError(f"{type(self.calculator).__name__} has no method {state!r} for its defined state")
        torch = sys.modules.get("torch")
        if torch is not None and hasattr(torch, "set_num_threads"):
            torch.set_num_threads(int(self.spec.get("threads", 1)))

    def _look_at_getters(self) -> None:
        """Find out which properties are the calculator's own to answer.

        For one of ASE's, with ASE's own getters, what these do can be done here, without comparing structures.
        """
        calculator = self.calculator
        self._own_getters = {name for name, method in GETTERS.items() if not _is_ases(calculator, method)}
        asks_itself = not _is_ases(calculator, "get_property")
        self._own_answers = set(ases.all_properties) if asks_itself else self._own_getters
        self._is_usual = isinstance(calculator, Calculator) and not asks_itself and not self._own_getters


METHODS = {
    "energy": "get_potential_energy",
    "forces": "get_forces",
    "stress": "get_stress",
    "stresses": "get_stresses",
    "energies": "get_potential_energies",
    "dipole": "get_dipole_moment",
    "charges": "get_charges",
    "magmom": "get_magnetic_moment",
    "magmoms": "get_magnetic_moments",
}
#: As METHODS, with what ASE asks of the same method by a keyword.
GETTERS = {**METHODS, "free_energy": "get_potential_energy"}
#: What ASE's newer calculators are derived from, beside `Calculator`; ASE before 3.23 has none.
BASE = getattr(ases, "BaseCalculator", Calculator)


def seed_generators(seed: int) -> None:
    """Seed the random generators of the standard library, NumPy and, where it is loaded, torch."""
    random.seed(seed)
    np.random.seed(np.random.SeedSequence(seed).generate_state(4))  # noqa: NPY002 - calculators use these generators
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "manual_seed"):
        torch.manual_seed(seed % 2**63)


def _is_ases(calculator: Any, method: str) -> bool:
    """Whether the calculator has *method* from ASE's base classes, as it is there."""
    own = getattr(getattr(calculator, method, None), "__func__", None)
    return own is not None and own in (getattr(Calculator, method, None), getattr(BASE, method, None))


def _results_of(calculator: Any) -> Mapping[str, Any]:
    results = getattr(calculator, "results", None)
    return results if isinstance(results, Mapping) else {}


def _forget(calculator: Any) -> None:
    """What ASE's ``get_property`` does before it calculates a structure that has changed."""
    calculator.atoms = None
    calculator.results = {}
