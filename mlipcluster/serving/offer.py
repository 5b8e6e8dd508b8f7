"""What a server serves: some calculators by name, or all that are known."""

from __future__ import annotations

import difflib
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mlipcluster.errors import InputError

if TYPE_CHECKING:
    from mlipcluster.calculators.known import Known


class Offer:
    """Calculators by name, and what has joined beside them.

    Parameters
    ----------
    known : mapping of str to Known
        What can be started.
    names : sequence of str, optional
        Only these of them. Default: all.

    Attributes
    ----------
    info_keys : dict of str to list of str
        Entries of ``atoms.info`` that calculators read whose workers have joined.
    joined : dict of str to int
        How many workers are there that joined by themselves.
    awaited : dict of str to float
        Until when such ones are awaited that are being started again by whoever looks after them, monotonic s.

    Raises
    ------
    InputError
        One of *names* is not known.
    """

    def __init__(self, known: Mapping[str, Known], names: Sequence[str] = ()) -> None:
        self._known = dict(known)
        self._complaints: list[str] = list(getattr(known, "complaints", ()))
        self.joined: dict[str, int] = {}
        self.info_keys: dict[str, list[str]] = {}
        self.awaited: dict[str, float] = {}
        if names:
            self._known = {name: self.find(name) for name in names}

    def names(self) -> list[str]:
        """What is served, sorted."""
        return sorted({*self._known, *filter(self.has_joined, {*self.joined, *self.awaited})})

    def has_joined(self, name: str) -> bool:
        """Whether a worker has joined by itself and is there, or about to be there again."""
        return bool(self.joined.get(name)) or time.monotonic() < self.awaited.get(name, 0.0)

    def is_left_to_others(self, name: str) -> bool:
        """Whether nobody here can start a worker of this calculator, and others have."""
        return name not in self._known and self.has_joined(name)

    def get(self, name: str) -> Known | None:
        """How to start a calculator; None of one that only joins."""
        return self._known.get(name)

    def info_keys_of(self, name: str) -> list[str] | None:
        """Entries of ``atoms.info`` that a calculator reads; None as long as only its worker could tell."""
        known = self._known.get(name)
        if known is not None and known.spec is not None:
            return list(known.spec.info_keys)
        return self.info_keys.get(name)

    def find(self, name: str) -> Known:
        """How to start a calculator.

        Raises
        ------
        InputError
            It is not served; the message lists what is.
        """
        found = self._known.get(name)
        if found is None:
            raise InputError(self.unknown(name))
        return found

    def check(self, name: str) -> None:
        """See that a calculator is served.

        Raises
        ------
        InputError
            It is not; the message lists what is.
        """
        if name not in self._known and not self.has_joined(name):
            raise InputError(self.unknown(name))

    def unknown(self, name: str) -> str:
        """What is said of a calculator that is not served."""
        close = difflib.get_close_matches(name, self.names(), n=1)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        said = f"no calculator {name!r:.200} is served here; served: {', '.join(self.names()) or 'none'}.{meant}"
        return " ".join([said, *(f"Not looked at: {one}." for one in self._complaints)])
