"""An ASE calculator whose work is done by a socket worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlipcluster.calculators.host import WorkerGoneError, WorkerHost
from mlipcluster.calculators.ipi import IPICalculator
from mlipcluster.calculators.provenance import Provenance
from mlipcluster.calculators.registry import resolve
from mlipcluster.calculators.snapshot import OPTIONAL
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.calculators.wire_calculator import WireCalculator
from mlipcluster.errors import CalculatorError, RemoteCalculatorError, WorkerDiedError
from mlipcluster.socket_worker import wire


class SocketCalculator(WireCalculator):
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
        self.interrupted = False
        self._calculated = False
        self._prepared: int | None = None
        self._restarts: int | None = None  # of the host, when it last answered
        self._host: WorkerHost | None = host or WorkerHost(self.spec)
        self._owns_host = host is None
        self._token = object()
        self._heads: dict[Any, bytearray] = {}
        super().__init__(self.spec.info_keys)

    @staticmethod
    def from_ipi(unixsocket: str | None = None, port: int | None = None, **options: Any) -> IPICalculator:
        """Any i-PI client as a calculator (LAMMPS' ``fix ipi``, DFT codes); *options* are :class:`.IPICalculator`'s."""
        return IPICalculator(unixsocket, port, **options)

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

    @property
    def implemented_properties(self) -> list[str]:  # type: ignore[override]
        """Properties that the calculator can compute; starts the process if need be."""
        known = self._host.known_properties if self._host is not None else None
        return list(known if known is not None else self.host.start().implemented_properties)

    @property
    def _known_properties(self) -> tuple[str, ...] | None:
        return self._host.known_properties if self._host is not None else None

    def _instead_of_set(self) -> str:
        return "make another: SocketCalculator(calculator.spec.replace(kwargs={...}))"

    def todict(self, skip_default: bool = True) -> dict[str, Any]:
        """The spec as a JSON object, without what is secret: ASE writes it into files."""
        return self.spec.recorded()

    def _get_name(self) -> str:
        return self.spec.label.lower()

    def __repr__(self) -> str:
        return f"SocketCalculator({self.spec.label!r})"

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {"spec": self.spec, **self._state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        SocketCalculator.__init__(self, state["spec"])
        self._take_state(state)

    # One calculation

    def _forget_sent(self) -> None:
        super()._forget_sent()
        self._heads.clear()
        if self._host is not None and self._host.user is self._token:
            self._host.user = None

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
            self._calculated = True

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
