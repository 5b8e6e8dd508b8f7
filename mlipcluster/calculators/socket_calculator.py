"""An ASE calculator whose work is done by a socket worker."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from mlipcluster.calculators.host import WorkerGoneError, WorkerHost
from mlipcluster.calculators.provenance import Provenance
from mlipcluster.calculators.recollection import Recollection
from mlipcluster.calculators.registry import resolve
from mlipcluster.calculators.snapshot import OPTIONAL, Snapshot
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.errors import CalculatorError, InputError, RemoteCalculatorError, WorkerDiedError
from mlipcluster.socket_worker import wire

if TYPE_CHECKING:
    from typing_extensions import Self

#: Asked for together at the first request for a structure: who wants one of them nearly always wants the other.
USUAL = ("energy", "forces")


class SocketCalculator(Calculator):
    """An ASE calculator that runs in a process, and an environment, of its own.

    The process starts at the first calculation and ends with :meth:`close`, at the end of a ``with`` block, or when
    this process ends. Pickles and deep copies hold the spec and the results; they start a process of their own.
    May be used from several threads, one calculation at a time.

    Parameters
    ----------
    calculator : str, mapping or CalculatorSpec
        A model string, ``"emt"``, ``"module:callable"``, a spec's fields, or a spec; see :func:`.registry.resolve`.
    host : WorkerHost, optional
        A host that somebody else owns, in place of one of its own; :meth:`detach` ends the loan.
    **overrides
        Fields of the spec to change, ``python="/path/of/environment"`` for example; ``root=`` or ``cluster=``, where
        the environment of a model string is.

    Attributes
    ----------
    spec : CalculatorSpec
        The calculator.
    results : dict
        Everything that it computed for the last structure, in ASE's units: eV, Å, eV/Å, eV/Å³.
    lost_results : tuple of str
        Names of results that could not travel.
    interrupted : bool
        On loan, whether the process ended after it had calculated: what it remembered is gone, and a new one may
        answer otherwise in the last bits. Reset by :meth:`prepare`.
    """

    def __init__(
        self,
        calculator: str | Mapping[str, Any] | CalculatorSpec,
        *,
        host: WorkerHost | None = None,
        **overrides: Any,
    ) -> None:
        self.spec = resolve(calculator, **overrides)
        self.lost_results: tuple[str, ...] = ()
        self.interrupted = False
        self._calculated = False
        self._prepared: int | None = None
        self._restarts: int | None = None  # of the host, when it last answered
        self._host: WorkerHost | None = host or WorkerHost(self.spec)
        self._owns_host = host is None
        self._token = object()
        self._lock = threading.RLock()
        self._snapshot = Snapshot(self.spec.info_keys)
        self._valid = False  # whether the results are those of the snapshot's structure
        self._asker: Callable[[], Atoms | None] = _nobody  # weak: whose structure that is
        self._earlier = Recollection()
        self._atoms: Atoms | None = None
        self._asked: set[str] = set()
        self._wanted: tuple[str, ...] = ()
        self._heads: dict[Any, bytearray] = {}
        super().__init__()

    # The process

    def close(self) -> None:
        """End the process; results stay, and another calculation starts another process."""
        if self._host is not None and self._owns_host:
            self._host.stop()

    def detach(self) -> None:
        """Give a borrowed host back: results stay, further calculations are refused."""
        with self._lock:
            if not self._owns_host:
                self._host = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def host(self) -> WorkerHost:
        """The process's host."""
        if self._host is None:
            raise CalculatorError(
                f"calculator {self.name!r} was lent for one protocol call, which has ended; its results can still be"
                " read. Calculate inside the protocol, or make a SocketCalculator of your own"
            )
        return self._host

    def prepare(self, seed: int | None = None) -> None:
        """Bring the calculator to its defined state, seed its process's random generators, and forget all results."""
        with self._lock:
            self.reset()
            self.interrupted = self._calculated = False
            self._restarts = None
            self.host.prepare(seed)
            self._prepared = seed

    @property
    def prepared(self) -> int | None:
        """The seed that it was prepared with, if nothing was calculated since."""
        return None if self._calculated else self._prepared

    def provenance(self) -> Provenance:
        """What the calculator's process says of itself: versions, weights, devices."""
        with self._lock:
            return self.host.provenance()

    # What ASE asks of a calculator

    @property
    def implemented_properties(self) -> list[str]:  # type: ignore[override]
        """Properties that the calculator can compute; starts the process if need be."""
        known = self._host.known_properties if self._host is not None else None
        return list(known if known is not None else self.host.start().implemented_properties)

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
        """Refuse: parameters are those of the spec.

        Raises
        ------
        InputError
            Always, where there is something to set.
        """
        if parameters:
            names = ", ".join(f"{name}={value!r}" for name, value in parameters.items())
            raise InputError(
                f"calculator {self.name!r} takes its parameters from its spec, not from set({names}); make another:"
                " SocketCalculator(calculator.spec.replace(kwargs={...}))"
            )
        return {}

    def reset(self) -> None:
        """Forget results and structure; the next calculation sends everything."""
        with self._lock:
            self._drop_results()
            self._earlier.clear()
            self._asked.clear()
            self._forget_sent()

    def todict(self, skip_default: bool = True) -> dict[str, Any]:
        """The spec as a JSON object, without what is secret: ASE writes it into files."""
        return self.spec.recorded()

    def get_spin_polarized(self) -> bool:
        """As every calculator of ASE answers that does not know; on the class, for ASE would make a cycle of it."""
        return bool(self._deprecated_get_spin_polarized())

    def _get_name(self) -> str:
        return self.spec.label.lower()

    def __repr__(self) -> str:
        return f"SocketCalculator({self.spec.label!r})"

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {"spec": self.spec, "results": self.results, "atoms": self.atoms, "parameters": self.parameters}

    def __setstate__(self, state: dict[str, Any]) -> None:
        SocketCalculator.__init__(self, state["spec"])
        self.parameters = state["parameters"]
        if state["atoms"] is not None:
            self._snapshot.take(state["atoms"], self._snapshot.changes(state["atoms"]))
            self.results, self._valid = state["results"], True

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
        self._snapshot = Snapshot(self.spec.info_keys)
        self._heads.clear()
        if self._host is not None and self._host.user is self._token:
            self._host.user = None

    def _may_calculate(self, name: str, allow_calculation: bool) -> bool:
        """Whether to go on; raises where ASE does. What was asked for once is asked for together from then on."""
        if name not in self._asked:
            known = allow_calculation or (self._host is not None and self._host.known_properties is not None)
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
                if len(atoms) != len(self._snapshot.arrays.get("numbers", ())):
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

    def _evaluate(self, changes: list[str], properties: tuple[str, ...]) -> None:
        """Ask the worker, a second time if it died, and keep what it answers.

        On loan, one that has calculated before is not asked a second time: see `interrupted`.
        """
        host = self.host
        with host.lock:  # until the answer is copied: the next one overwrites it
            try:
                host.start()
                if host.restarts != self._restarts:
                    self._meet_another(host)
                message = self._exchange(host, changes, properties)
            except WorkerGoneError as gone:
                raise host.died(gone) from gone
            except RemoteCalculatorError:
                self._calculated = True  # far enough to remember something
                raise
            except BaseException:
                host.user = None  # what the worker knows of the structure is uncertain now
                raise
            self._keep(message)

    def _exchange(self, host: WorkerHost, changes: list[str], properties: tuple[str, ...]) -> wire.Message:
        try:
            return host.exchange(*self._frame(host, changes, properties))
        except WorkerGoneError:
            self._restarts = None
            if self._calculated and not self._owns_host:
                self.interrupted = True
                raise
            host.restart()
            return host.exchange(*self._frame(host, changes, properties))

    def _meet_another(self, host: WorkerHost) -> None:
        """Another worker than last time: on loan an interruption, unless that was told when the last one ended."""
        told, self._restarts = self._restarts is None, host.restarts
        if self._calculated and not self._owns_host and not told:
            self.interrupted = True
            raise WorkerDiedError(
                f"the process of calculator {self.name!r} ended between two calculations of one protocol call;"
                " the call has to begin again, for a new process may answer otherwise in the last bits"
            )

    def _frame(self, host: WorkerHost, changes: list[str], properties: tuple[str, ...]) -> tuple[bytearray, list[Any]]:
        """Head and body of the request: what changed, or everything if the worker does not know this structure."""
        arrays = self._snapshot.arrays
        header: dict[str, Any] = {"kind": "calculate", "properties": properties}
        if host.user is not self._token:
            host.user = self._token
            self._heads.clear()
            header["whole"] = True
            changes = [*arrays, "info"]
        sent = {name: arrays[name] for name in changes if name in arrays}
        key = properties, tuple(changes)
        head = self._heads.get(key)
        if head is None:
            header["removed"] = [name for name in changes if name in OPTIONAL and name not in arrays]
            if "info" in changes:
                header["info"], more = self._snapshot.split_info()
                sent.update(more)
            head = wire.head(header, sent)
            if all(name in ("positions", "cell") for name in changes):  # of one shape as long as the atoms are
                self._heads[key] = head
        return head, wire.body(sent)

    def _keep(self, message: wire.Message) -> None:
        header = message.header
        if header["kind"] != "results":
            raise CalculatorError(f"calculator {self.name!r} answered {header['kind']!r} to a calculation; close() it")
        scalars = header.get("scalars", {})
        results: dict[str, Any] = {}
        for name, array in message.arrays.items():
            kind = scalars.get(name)
            results[name] = array.copy() if kind is None else array.item() if kind == "float" else array[()]
        results.update(header.get("values", ()))
        self.results = results
        self.lost_results = tuple(header.get("lost", ()))
        self._atoms, self._valid, self._calculated = None, True, True


def _nobody() -> None:
    return None
