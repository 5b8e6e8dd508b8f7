"""What all calculators have in common whose answers come over the wire: ASE's half of them."""

from __future__ import annotations

import threading
import weakref
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from mlipcluster.calculators.recollection import Recollection
from mlipcluster.calculators.snapshot import Snapshot
from mlipcluster.errors import CalculatorError, InputError, MLIPClusterError, RemoteCalculatorError
from mlipcluster.socket_worker import wire

if TYPE_CHECKING:
    from typing_extensions import Self

#: Asked for together at the first request for a structure: who wants one of them nearly always wants the other.
USUAL = ("energy", "forces")


class WireCalculator(Calculator):
    """An ASE calculator whose answers come over the wire: what is asked, what has changed, and what is known already.

    May be used from several threads, one calculation at a time. Pickles and deep copies hold the results, but nothing
    that leads to a process.

    Parameters
    ----------
    info_keys : sequence of str
        Entries of ``atoms.info`` that count.

    Attributes
    ----------
    results : dict
        Everything that was computed for the last structure, in ASE's units: eV, Å, eV/Å, eV/Å³.
    lost_results : tuple of str
        Names of results that could not travel.
    """

    def __init__(self, info_keys: Sequence[str]) -> None:
        self.lost_results: tuple[str, ...] = ()
        self._lock = threading.RLock()
        self._snapshot = Snapshot(info_keys)
        self._valid = False  # whether the results are those of the snapshot's structure
        self._asker: Callable[[], Atoms | None] = _nobody  # weak: whose structure that is
        self._earlier = Recollection()
        self._atoms: Atoms | None = None
        self._asked: set[str] = set()
        self._wanted: tuple[str, ...] = ()
        super().__init__()

    # What is left to those that know whom to ask

    @abstractmethod
    def close(self) -> None:
        """Let go of whoever answers; results stay."""

    @property
    @abstractmethod
    def _known_properties(self) -> tuple[str, ...] | None:
        """What can be computed, where that is known already."""

    @abstractmethod
    def _evaluate(self, changes: list[str], properties: tuple[str, ...]) -> None:
        """Ask for *properties* of the snapshot, of which *changes* are new, and :meth:`_keep` the answer."""

    @abstractmethod
    def _instead_of_set(self) -> str:
        """What to do where somebody wants to change a parameter."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What ASE asks of a calculator

    @property
    def atoms(self) -> Atoms | None:
        """Copy of the structure that the results belong to; None when there are none."""
        if self._atoms is None and self._valid:
            self._atoms = self._snapshot.to_atoms()
        return self._atoms

    @atoms.setter
    def atoms(self, atoms: Atoms | None) -> None:
        if atoms is None:
            self._valid = False
        self._atoms = atoms

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """A property of *atoms*, or of the last structure.

        Raises
        ------
        PropertyNotImplementedError
            The calculator does not compute it; nothing is ever replaced by zeros.
        StructureError
            No calculator can take *atoms*.
        CalculatorError
            The calculator raised, took too long, or its process ended twice; see :mod:`mlipcluster.errors`.
        """
        with self._lock:
            if atoms is not None and self._asker() is not atoms:
                self._turn_to(atoms)
            changes = self._snapshot.changes(atoms) if atoms is not None else []
            if changes and (allow_calculation or changes != ["tags"]):
                self._drop_results()
            if not self._valid or name not in self.results:
                if not self._may_calculate(name, allow_calculation):
                    return None
                self._calculate(atoms, changes, self._wanted, (name,))
            if name not in self.results:
                raise PropertyNotImplementedError(f"{name} not present in this calculation of {self.name!r}")
            result = self.results[name]
            return result.copy() if isinstance(result, np.ndarray) else result

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Calculate *properties* of *atoms* now; what changed is found out exactly, whatever *system_changes* says."""
        with self._lock:
            if atoms is not None and self._asker() is not atoms:
                self._turn_to(atoms)
            changes = self._snapshot.changes(atoms) if atoms is not None else []
            self._drop_results()
            self._calculate(atoms, changes, tuple(properties), tuple(properties))

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """What of *atoms* differs from the structure that the results belong to; compared bit for bit.

        Tags are sent, and their change is a reason to calculate again when that is asked for; but results that are
        there already stay those of *atoms*, as with every calculator of ASE.
        """
        with self._lock:
            changes = self._snapshot.changes(atoms) if self._valid else list(all_changes)
            return [name for name in changes if name != "tags"]

    def calculation_required(self, atoms: Atoms, properties: Sequence[str]) -> bool:
        """Whether any of *properties* would have to be calculated for *atoms*."""
        return bool(self.check_state(atoms)) or any(name not in self.results for name in properties)

    def recall(self, atoms: Atoms) -> dict[str, Any] | None:
        """Results of this very object, if others came after it and it has not changed since.

        One calculator may serve a list of structures; what it found for each is kept as long as that one lives.
        """
        with self._lock:
            return self._earlier.recall(atoms)

    def set(self, **parameters: Any) -> dict[str, Any]:
        """Refuse: parameters are those that it was built with.

        Raises
        ------
        InputError
            Always, where there is something to set.
        """
        if parameters:
            names = ", ".join(f"{name}={value!r}" for name, value in parameters.items())
            raise InputError(
                f"calculator {self.name!r} takes no parameters from set({names}); {self._instead_of_set()}"
            )
        return {}

    def reset(self) -> None:
        """Forget results and structure; the next calculation sends everything."""
        with self._lock:
            self._drop_results()
            self._earlier.clear()
            self._asked.clear()
            self._forget_sent()

    def get_spin_polarized(self) -> bool:
        """As every calculator of ASE answers that does not know; on the class, for ASE would make a cycle of it."""
        return bool(self._deprecated_get_spin_polarized())

    def _state(self) -> dict[str, Any]:
        """Results and their structure, for a pickle."""
        keys = self._snapshot.info_keys
        return {"results": self.results, "atoms": self.atoms, "parameters": self.parameters, "info_keys": keys}

    def _take_state(self, state: dict[str, Any]) -> None:
        self.parameters = state["parameters"]
        self._snapshot.info_keys = state["info_keys"]  # a server may have told of others than there are at first
        if state["atoms"] is not None:
            self._snapshot.take(state["atoms"], self._snapshot.changes(state["atoms"]))
            self.results, self._valid = state["results"], True

    def evaluate(
        self, structures: Iterable[Atoms], properties: Sequence[str] = USUAL, *, errors: str = "raise"
    ) -> list[dict[str, Any]]:
        """Results of many structures, in their order, as :attr:`results` has them for one.

        Parameters
        ----------
        structures : iterable of ase.Atoms
            They are not changed, and keep their own calculators.
        properties : sequence of str
            What is asked for; what else the calculator computes with it comes along.
        errors : str
            ``"raise"`` raises the first one's, when all have been tried; ``"return"`` puts each into the list in
            place of results.

        Raises
        ------
        InputError
            *errors* is something else.
        MLIPClusterError
            As :meth:`get_property`.
        """
        if errors not in ("raise", "return"):
            raise InputError(f"errors={errors!r}; give 'raise' or 'return'")
        found = self._evaluate_all(list(structures), tuple(properties))
        for one in found:
            if errors == "raise" and isinstance(one, MLIPClusterError):
                raise one
        return found

    def _evaluate_all(self, structures: list[Atoms], properties: tuple[str, ...]) -> list[Any]:
        """Results or error of each."""
        return [self._evaluate_one(atoms, properties) for atoms in structures]

    def _evaluate_one(self, atoms: Atoms, properties: tuple[str, ...]) -> Any:
        with self._lock:
            try:
                self.calculate(atoms, properties)
            except MLIPClusterError as error:
                return error
            return dict(self.results)

    # One calculation

    def _turn_to(self, atoms: Atoms) -> None:
        """Another object is asked for: keep what is known of the last one, as long as somebody has it."""
        if self._valid and (last := self._asker()) is not None:
            self._earlier.keep(last, self._snapshot, self.results)
        self._asker = weakref.ref(atoms)

    def _drop_results(self) -> None:
        self.results: dict[str, Any] = {}
        self._atoms, self._valid = None, False

    def _forget_sent(self) -> None:
        self._snapshot = Snapshot(self._snapshot.info_keys)

    def _may_calculate(self, name: str, allow_calculation: bool) -> bool:
        """Whether to go on; raises where ASE does. What was asked for once is asked for together from then on."""
        if name not in self._asked:
            known = allow_calculation or self._known_properties is not None
            implemented = self.implemented_properties if known else [name]
            if name not in implemented:
                raise PropertyNotImplementedError(f"{name} property not implemented by calculator {self.name!r}")
            if allow_calculation:
                self._asked.add(name)
                usual = [name for name in USUAL if name in implemented]
                self._wanted = (*usual, *sorted(self._asked.difference(USUAL)))
        return allow_calculation

    def _calculate(
        self, atoms: Atoms | None, changes: list[str], wanted: tuple[str, ...], needed: tuple[str, ...]
    ) -> None:
        if atoms is None and not self._snapshot.arrays:
            raise InputError(f"calculator {self.name!r} has no structure yet; give atoms")
        try:
            if atoms is not None and changes:
                kept, positions = self._snapshot.arrays.get("positions"), atoms.positions
                if kept is None or kept.shape != positions.shape or kept.dtype != positions.dtype:
                    self._forget_sent()
                    changes = self._snapshot.changes(atoms)
                self._snapshot.take(atoms, changes)
            self._evaluate(changes, wanted)
        except RemoteCalculatorError as error:
            # Something that nobody asked for now may be what cannot be computed here. A calculation that simply fails
            # is not tried twice: it may have taken long.
            more = set(wanted).difference(needed)
            if not more or (more <= set(USUAL) and not isinstance(error, NotImplementedError)):
                raise
            self._asked.clear()
            self._evaluate([], needed)
        except BaseException:  # refused, or interrupted on the way: what was sent is not what is known here
            self._forget_sent()
            raise

    def _keep(self, message: wire.Message) -> None:
        self.results = unpacked(message, self.name)
        self.lost_results = tuple(message.header.get("lost", ()))
        self._atoms, self._valid = None, True


def unpacked(message: wire.Message, name: str) -> dict[str, Any]:
    """The results in an answer of calculator *name*, copied."""
    header = message.header
    if header.get("kind") != "results":
        raise CalculatorError(f"calculator {name!r} answered {header.get('kind')!r} to a calculation; close() it")
    scalars = header.get("scalars", {})
    results: dict[str, Any] = {}
    for key, array in message.arrays.items():
        kind = scalars.get(key)
        results[key] = array.copy() if kind is None else array.item() if kind == "float" else array[()]
    results.update(header.get("values", ()))
    return results


def _nobody() -> None:
    return None
