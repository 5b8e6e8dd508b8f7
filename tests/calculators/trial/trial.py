"""Calculators that misbehave, or tell what they were given. Imported by socket workers, through ``paths``."""

from __future__ import annotations

import ctypes
import os
import random
import sys
import time
from pathlib import Path

import numpy as np
from ase.calculators.calculator import BaseCalculator, Calculator, SCFError, all_changes
from ase.calculators.lj import LennardJones


class Trial(Calculator):
    """Energy and forces: the sum of all coordinates, minus one in each direction."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.work(atoms, properties, system_changes)
        self.results.update(energy=float(atoms.positions.sum()), forces=np.full((len(atoms), 3), -1.0))

    def work(self, atoms, properties, system_changes):
        """What the calculators below do."""


class Segfault(Trial):
    def work(self, *_):
        ctypes.string_at(0)


class HardExit(Trial):
    def work(self, *_):
        print("about to go")
        os._exit(3)


class SysExit(Trial):
    def work(self, *_):
        sys.exit("enough")


class Sleeps(Trial):
    def __init__(self, seconds=3600.0):
        super().__init__()
        self.seconds = seconds

    def work(self, *_):
        time.sleep(self.seconds)


class BuildsSlowly(Trial):
    def __init__(self, seconds):
        super().__init__()
        time.sleep(seconds)


class Fails(Trial):
    """Tells how often it was asked, which is once."""

    calls = 0

    def work(self, *_):
        self.calls += 1
        raise ValueError(f"asked {self.calls} times")


class SleepsHoldingTheLock(Trial):
    """Not even another thread of this process can run meanwhile."""

    def work(self, *_):
        ctypes.PyDLL(None).sleep(3600)


class Chatty(Trial):
    def __init__(self, megabytes=50):
        super().__init__()
        self.megabytes = megabytes

    def work(self, *_):
        for _ in range(self.megabytes):
            os.write(1, b"x" * (1 << 20))
        print("\nlast words", file=sys.stderr)


class DiesOnce(Trial):
    """Ends its process at the first calculation ever; *marker* remembers."""

    def __init__(self, marker, calls=1):
        super().__init__()
        self.marker, self.calls = Path(marker), calls

    def work(self, *_):
        self.calls -= 1
        if self.calls == 0 and not self.marker.exists():
            self.marker.touch()
            os._exit(9)


ERRORS = {
    "KeyError": KeyError("He"),
    "OSError": FileNotFoundError(2, "No such file or directory", "weights.pt"),
    "SCFError": SCFError("did not converge"),
    "own": type("OwnError", (ZeroDivisionError,), {})("my own"),
    "mute": type("Mute", (Exception,), {"__str__": lambda self: 1 / 0})(),
}


class Raises(Trial):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def work(self, *_):
        raise ERRORS[self.error]


class Tells(Trial):
    """Results of all sorts, and what it was given."""

    implemented_properties = ("energy", "forces", "stress", "magmoms", "charges", "dipole", "polarization", "told")

    def work(self, atoms, properties, system_changes):
        arrays = {name: array.tolist() for name, array in atoms.arrays.items()}
        self.results = {
            "told": {
                "arrays": arrays,
                "info": {key: getattr(value, "tolist", lambda v=value: v)() for key, value in atoms.info.items()},
                "types": {key: type(value).__name__ for key, value in atoms.info.items()},
                "cell": atoms.cell.array.tolist(),
                "pbc": atoms.pbc.tolist(),
                "properties": list(properties),
                "changes": sorted(system_changes),
            },
            "magmoms": atoms.get_initial_magnetic_moments().astype(np.float32),
            "charges": np.asfortranarray(np.arange(6.0).reshape(2, 3))[:, ::2],
            "dipole": np.array([1.5, -0.0, np.nan]).astype(">f8"),
            "stress": np.eye(3),
            "half": np.float16(0.5),
            "whole": 7,
            "complex": np.array([1 + 2j]),
            "switch": np.array([True, False]),
            "text": "ä",
            "nothing": None,
            "negative zero": -0.0,
            "infinite": float("inf"),
            "empty": np.zeros((0, 3)),
            "zero dimensions": np.array(3.25),
            "object": object(),
            "objects": np.array([object()]),
            "long double": np.array([1.0], np.longdouble),
        }


class FailsForStress(Trial):
    implemented_properties = ("energy", "forces", "stress")

    def work(self, atoms, properties, system_changes):
        if "stress" in properties and not atoms.pbc.all():
            raise ValueError("no stress without periodicity")
        if "stress" in properties:
            self.results["stress"] = np.ones(6)


class Counts(Trial):
    """Its energy is the number of its calculations: the worst kind of state."""

    implemented_properties = ("energy",)

    def __init__(self):
        super().__init__()
        self.count = 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        self.count += 1
        self.results = {"energy": float(self.count)}

    def start_over(self):
        self.count = 0


class Draws(Trial):
    """Energy and forces from random generators, and a weight drawn when it was built."""

    implemented_properties = ("energy", "forces")

    def __init__(self):
        super().__init__()
        self.weight = random.random() + np.random.random()  # noqa: NPY002 - the generators that calculators use

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        forces = np.random.random((len(atoms), 3))  # noqa: NPY002
        self.results = {"energy": self.weight + random.random(), "forces": forces}


class ReadsWeights(Trial):
    def __init__(self, file, lazily=False):
        super().__init__()
        self.file = file
        if not lazily:
            self.work()

    def work(self, *_):
        self.weights = Path(self.file).read_bytes()


class WritesAndReads(Trial):
    """As those do that run a program: in and out through files."""

    def __init__(self, file):
        super().__init__()
        self.file = Path(file)

    def work(self, atoms, *_):
        self.file.write_text(str(atoms.positions.sum()))
        self.file.read_text()


class Cached(BaseCalculator):
    """One that leaves bookkeeping to ASE's newer base class."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms, properties, system_changes):
        self.results = {"energy": float(len(atoms)), "forces": np.zeros((len(atoms), 3))}


class OldStyle:
    """No base class at all."""

    def get_potential_energy(self, atoms, force_consistent=False):
        return float(atoms.positions.sum())

    def get_forces(self, atoms):
        return np.full((len(atoms), 3), -1.0)


class ReadsCharge(Trial):
    """Its energy is the charge; ASE does not notice that one changes."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        Calculator.calculate(self, atoms, properties, system_changes)
        self.results = {"energy": float(atoms.info.get("charge", 0)), "forces": np.zeros((len(atoms), 3))}


class AsksItself(ReadsCharge):
    def get_property(self, name, atoms=None, allow_calculation=True):
        return super().get_property(name, atoms, allow_calculation)


class Shifted(Trial):
    """Answers otherwise than its results say, as one does that adds a reference energy."""

    implemented_properties = ("energy", "free_energy", "forces", "stress")

    def work(self, *_):
        self.results.update(stress=np.ones(6), free_energy=0.0)

    def get_potential_energy(self, atoms=None, force_consistent=False):
        return 100.0 + super().get_potential_energy(atoms, force_consistent)


class FillsLazily:
    """No base class; its results are those of whatever it was asked for last."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self):
        self.results = {}

    def get_property(self, name, atoms=None, allow_calculation=True):
        total = atoms.positions.sum()
        self.results[name] = {"energy": total, "forces": atoms.positions * 1.0, "stress": np.full(6, total)}[name]
        return self.results[name]


class ManyResults(Trial):
    """More than one frame carries, at its first calculation."""

    calls = 0

    def work(self, *_):
        self.calls += 1
        if self.calls == 1:
            self.results = {f"array {number}": np.zeros(1) for number in range(2000)}


class OddResults(Trial):
    def work(self, *_):
        self.results = {"by number": {1: 2.0}, ("a", "tuple"): 3.0, "pair": [(1, 2)], "plain": {"one": [2.0, None]}}


class WaitsFor(Trial):
    """Says that it has begun, and goes on when *file* is there."""

    def __init__(self, file):
        super().__init__()
        self.file = Path(file)

    def work(self, *_):
        self.file.with_suffix(".begun").touch()
        while not self.file.exists():
            time.sleep(0.01)


class SleepsAtReset(Trial):
    def start_over(self):
        time.sleep(3600)


class RaisesThenDiesOnce(DiesOnce):
    """Raises at its first calculation; the next one ends its process, if it is the first ever."""

    def work(self, *_):
        self.calls -= 1
        if self.calls == 1:
            raise ValueError("once")
        if self.calls == 0 and not self.marker.exists():
            self.marker.touch()
            os._exit(9)


class NeedsToken(Trial):
    def work(self, *_):
        if os.environ.get("TRIAL_TOKEN") != "open sesame":
            raise PermissionError("a gated model")


def with_device(device="cpu"):
    return _named(f"device={device}")


def with_use_device(use_device="cpu"):
    return _named(f"use_device={use_device}")


def with_threads():
    return _named(os.environ["OMP_NUM_THREADS"] + os.environ.get("TRIAL", ""))


def _named(device):
    calculator = LennardJones()
    calculator.device = device
    return calculator


class HashOfText(Trial):
    """Its energy depends on the order of a set of strings, as a model's might that sums over its elements' names."""

    def work(self, *_):
        # The order is what is tested.
        self.results["order"] = " ".join({"hydrogen", "helium", "lithium", "beryllium", "boron", "carbon"})
