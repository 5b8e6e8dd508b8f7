"""The calculator itself: built, brought to a defined state, and asked."""

from __future__ import annotations

import importlib
import inspect
import os
import random
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError

#: What factories call the argument that says where to compute, in the order in which they are tried.
DEVICE_ARGUMENTS = ("device", "use_device")
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
        sys.path[:0] = [os.path.abspath(path) for path in spec.get("paths", ())]
        started = time.perf_counter()
        self._factory = _find(spec["factory"])
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
            return self._ask_one_by_one(atoms, properties)
        if changes:
            _forget(calculator)
        missing = [name for name in properties if name not in calculator.results]
        if missing:
            calculator.calculate(atoms, missing, changes)
        results: Mapping[str, Any] = calculator.results
        return results

    def _ask_one_by_one(self, atoms: Atoms, properties: Sequence[str]) -> Mapping[str, Any]:
        found: dict[str, Any] = {}
        for name in properties:
            if hasattr(self.calculator, "get_property"):
                value = self.calculator.get_property(name, atoms)
            else:
                method = getattr(self.calculator, METHODS.get(name, ""), None)
                if method is None:
                    raise PropertyNotImplementedError(f"{name} property not implemented")
                value = method(atoms)
            if value is not None:
                found[name] = value
        known = getattr(self.calculator, "results", None)
        return {**known, **found} if isinstance(known, Mapping) else found

    def _build(self) -> None:
        seed_generators(BUILD_SEED)
        arguments = dict(self.spec.get("kwargs", {}))
        device = self.spec.get("device")
        if device is not None:
            arguments[_device_argument(self._factory)] = device
        self.calculator = self._factory(*self.spec.get("args", ()), **arguments)
        if not any(hasattr(self.calculator, name) for name in ("calculate", "get_property", *METHODS.values())):
            found = type(self.calculator).__name__
            raise TypeError(f"{self.spec['factory']!r} gave a {found}, not a calculator of ASE's")
        self._pristine = True
        # One of ASE's, with ASE's own get_property: then what that does can be done here, without comparing structures.
        self._is_usual = (
            isinstance(self.calculator, Calculator) and type(self.calculator).get_property is Calculator.get_property
        )
        state = self.spec.get("state", "fresh")
        if state != "fresh" and not callable(getattr(self.calculator, state, None)):
            raise AttributeError(f"{type(self.calculator).__name__} has no method {state!r} for its defined state")
        torch = sys.modules.get("torch")
        if torch is not None and hasattr(torch, "set_num_threads"):
            torch.set_num_threads(int(self.spec.get("threads", 1)))


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


def seed_generators(seed: int) -> None:
    """Seed the random generators of the standard library, NumPy and, where it is loaded, torch."""
    random.seed(seed)
    np.random.seed(np.random.SeedSequence(seed).generate_state(4))  # noqa: NPY002 - calculators use these generators
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "manual_seed"):
        torch.manual_seed(seed % 2**63)


def _find(factory: str) -> Any:
    module, _, names = factory.partition(":")
    found: Any = importlib.import_module(module)
    for name in names.split("."):
        found = getattr(found, name)
    return found


def _device_argument(factory: Any) -> str:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return DEVICE_ARGUMENTS[0]
    return next((name for name in DEVICE_ARGUMENTS if name in parameters), DEVICE_ARGUMENTS[0])


def _forget(calculator: Any) -> None:
    """What ASE's ``get_property`` does before it calculates a structure that has changed."""
    calculator.atoms = None
    calculator.results = {}
