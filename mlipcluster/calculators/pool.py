"""Warm calculators of one process, lent one protocol call at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mlipcluster.calculators.host import WorkerHost
from mlipcluster.calculators.provenance import Provenance
from mlipcluster.calculators.socket_calculator import SocketCalculator
from mlipcluster.calculators.spec import CalculatorSpec

if TYPE_CHECKING:
    from typing_extensions import Self


class CalculatorPool:
    """Hosts of socket workers, kept warm between protocol calls. A context manager; may be used from several threads.

    Parameters
    ----------
    keep : int
        How many idle workers to keep; the one that was idle longest ends first.
    """

    def __init__(self, keep: int = 4) -> None:
        self._keep = keep
        self._idle: list[WorkerHost] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def lease(self, spec: CalculatorSpec, seed: int | None = None) -> Iterator[SocketCalculator]:
        """A calculator in its defined state (``spec.state``), its process's random generators seeded with *seed*.

        A warm one and a cold one answer bit for bit alike. After the ``with`` block its results can still be read.
        Two leases at a time get two workers.

        Raises
        ------
        CalculatorStartError
            It could not be started.
        """
        host = self._take(spec)
        calculator = SocketCalculator(host.spec, host=host)
        try:
            calculator.prepare(seed)
            yield calculator
        finally:
            calculator.detach()
            self._give_back(host)

    def provenance(self, spec: CalculatorSpec) -> Provenance:
        """What the calculator's process says of itself; starts it if need be."""
        host = self._take(spec)
        try:
            return host.provenance()
        finally:
            self._give_back(host)

    def close(self) -> None:
        """End all idle workers; those on loan end when they are given back."""
        with self._lock:
            self._keep = 0
            idle, self._idle = self._idle, []
        for host in idle:
            host.stop()

    def _take(self, spec: CalculatorSpec) -> WorkerHost:
        with self._lock:
            for index in reversed(range(len(self._idle))):
                if self._idle[index].spec == spec:
                    return self._idle.pop(index)
        return WorkerHost(spec)

    def _give_back(self, host: WorkerHost) -> None:
        with self._lock:
            self._idle.append(host)
            surplus = self._idle[: max(0, len(self._idle) - self._keep)]
            del self._idle[: len(surplus)]
        for old in surplus:
            old.stop()
