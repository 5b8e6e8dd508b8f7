"""Each worker that somebody else started, held against this process when it is first seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from distributed import Client

from mlipcluster.deploy.handshake import WIRE, Facts, check, facts_from_dask, facts_here, facts_once, told
from mlipcluster.errors import MismatchError


@dataclass(frozen=True)
class Terms:
    """What a worker has to meet, beside what everything depends on.

    Attributes
    ----------
    same_versions : bool
        It has the same versions of Python and of what crosses the wire.
    environment : str, optional
        Digest of its environment, or the beginning of that.
    """

    same_versions: bool = False
    environment: str | None = None


class Arrivals:
    """Looks at new workers of a client; what differs and is let pass is said once."""

    def __init__(self, client: Client, terms: Terms) -> None:
        self._client = client
        self._terms = terms
        self._met: set[str] = set()
        self._said: set[str] = set()
        self._driver: Facts | None = None

    def look(self) -> list[str]:
        """Hold those who are new against this process; what differs, one line for each kind of worker.

        Raises
        ------
        MismatchError
            One cannot be worked with.
        """
        new = [address for address in self._client.nthreads() if address not in self._met]
        if not new:
            return []
        here = self._driver = self._driver or facts_here()
        # What Dask itself asks a worker takes no pickles, so that any Python answers.
        answers = cast("dict[str, Any]", self._client.get_versions(packages=list(WIRE)))["workers"]
        for address in new:
            if answers.get(address):
                self._check(here, facts_from_dask(answers[address]), address)
        asked = self._client.run(facts_once, workers=new, on_error="return")
        lines = (self._check(here, said, address) for address, said in asked.items())
        self._met.update(new)
        return [line for line in dict.fromkeys(lines) if line and not self._is_known(line)]

    def _check(self, here: Facts, said: Facts | Exception, address: str) -> str:
        who, terms = f"the worker {address}", self._terms
        if isinstance(said, OSError):  # it has gone meanwhile
            return ""
        if isinstance(said, Exception):
            if terms.environment is not None:
                raise MismatchError(f"{who} cannot tell its environment, so nothing of it is known: {said}") from said
            return f"environment: not known ({said})"
        who += f" on {said.host}" if said.host else ""
        return told(check(here, said, who, same_versions=terms.same_versions, environment=terms.environment))

    def _is_known(self, line: str) -> bool:
        known = line in self._said
        self._said.add(line)
        return known
