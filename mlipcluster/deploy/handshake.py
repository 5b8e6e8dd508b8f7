"""What worker and driver tell each other before the first task: Python, versions of what crosses the wire, environment.

Cloudpickle sends functions as bytecode, which another minor version of Python cannot run; and what travels beside them
are values of ours, which only the same version of ours is sure to read. Such workers are refused. Whatever else differs
may give other numbers: it is told, and refused where that is asked for.
"""

from __future__ import annotations

import platform
import socket
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mlipcluster.environments.measure import measure
from mlipcluster.errors import MismatchError

WIRE = ("mlipcluster", "distributed", "dask", "cloudpickle", "numpy", "ase", "blosc", "msgpack")
"""Distributions whose values, or whose format, cross between driver and workers."""
OURS = "mlipcluster"


@dataclass(frozen=True)
class Facts:
    """What a process says of itself.

    Attributes
    ----------
    python : str
        ``"3.12.1"``.
    packages : mapping of str to str
        Version of each of :data:`WIRE`; ``""`` of one that is not there.
    environment : str
        Digest of its environment; ``""`` where it was not measured.
    host, interpreter : str
        Where it runs, and the Python that runs it, as it sees that; ``""`` where that was not told.
    """

    python: str
    packages: Mapping[str, str] = field(default_factory=dict)
    environment: str = ""
    host: str = ""
    interpreter: str = ""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Facts:
        """The reverse of `to_json`."""
        return cls(**told)


@dataclass(frozen=True)
class Difference:
    """One thing in which a worker differs from the driver.

    Attributes
    ----------
    name : str
        ``"python"``, ``"environment"`` or a distribution.
    driver, worker : str
        What each has; ``""`` for nothing.
    fatal : bool
        Whether nothing that is sent to such a worker can be relied on.
    """

    name: str
    driver: str
    worker: str
    fatal: bool = False

    def __str__(self) -> str:
        shorten = 16 if self.name == "environment" else None
        here, there = (one[:shorten] or "none" for one in (self.driver, self.worker))
        return f"{self.name}: {here} -> {there}"


def facts_here(*, environment: bool = True) -> Facts:
    """What this process is.

    Parameters
    ----------
    environment : bool
        Whether to measure the environment too, which takes up to a second.

    Raises
    ------
    MeasureError
        The environment could not be measured.
    """
    return Facts(
        python=platform.python_version(),
        packages={name: _version(name) for name in WIRE},
        environment=measure(lock=False).digest if environment else "",
        host=socket.gethostname(),
        interpreter=sys.executable,
    )


@lru_cache(maxsize=1)
def facts_once() -> Facts:
    """`facts_here`, for a worker that several drivers ask."""
    return facts_here()


def compare(driver: Facts, worker: Facts) -> tuple[Difference, ...]:
    """Everything in which the two differ, the worst first."""
    found = [Difference("python", driver.python, worker.python, _minor(driver.python) != _minor(worker.python))]
    for name in WIRE:
        there = worker.packages.get(name, "")
        found.append(Difference(name, driver.packages.get(name, ""), there, not there or name == OURS))
    if driver.environment and worker.environment:
        found.append(Difference("environment", driver.environment, worker.environment))
    return tuple(sorted((one for one in found if one.driver != one.worker), key=lambda one: not one.fatal))


def check(
    driver: Facts, worker: Facts, who: str, *, same_versions: bool = False, environment: str | None = None
) -> tuple[Difference, ...]:
    """Refuse a worker that cannot be worked with; otherwise give what differs all the same.

    Parameters
    ----------
    who : str
        What an error calls the worker, for example its address.
    same_versions : bool
        Refuse also any other version of Python, or of what crosses the wire.
    environment : str, optional
        Digest, or its beginning, that its environment must have.

    Raises
    ------
    MismatchError
        It is refused; the message says why, and what to do.
    """
    differences = compare(driver, worker)
    refused = [one for one in differences if one.fatal or (same_versions and one.name != "environment")]
    if refused:
        raise MismatchError(_why(refused, driver, worker, who), tuple(map(str, refused)))
    if environment is not None and worker.environment and not (environment and _begins(worker, environment)):
        raise MismatchError(
            f"the environment of {who} has the digest {worker.environment[:16]}…, not {environment!r} as asked; "
            "install what the run is meant to have, or leave out environment=.",
            (f"environment: {environment} -> {worker.environment}",),
        )
    return differences


def facts_from_dask(said: Mapping[str, Any]) -> Facts:
    """What ``Client.get_versions`` tells of a worker, asked for :data:`WIRE`: any Dask worker can answer that."""
    python = ".".join(str(said["host"]["python"]).split(".")[:3])
    return Facts(python, {name: said["packages"].get(name) or "" for name in WIRE})


def told(differences: Iterable[Difference]) -> str:
    """Differences as one line."""
    return ", ".join(map(str, differences))


def _begins(worker: Facts, environment: str) -> bool:
    return worker.environment.startswith(environment)


def _why(refused: list[Difference], driver: Facts, worker: Facts, who: str) -> str:
    """Why a worker is refused: the worst, with its remedy."""
    worst = refused[0]
    of = f" ({worker.interpreter})" if worker.interpreter else ""
    if worst.name == "python" and worst.fatal:
        return (
            f"{who} runs Python {worker.python}{of}, this process {driver.python}; functions cannot be sent between "
            "the two. Start the workers, or this process, with the other's Python."
        )
    if not worst.worker:
        return (
            f"{who} has no {worst.name}{of}; its Python needs the same mlipcluster as this process, with what that "
            f"depends on ({worst.name} {worst.driver} here). Install it there."
        )
    if worst.fatal:
        return (
            f"{who} has {worst.name} {worst.worker}{of}, this process {worst.driver}; what they send each other is of "
            "one version. Install the same in both."
        )
    return (
        f"{who} has other versions{of} than this process: {told(refused)}. Install the same in both, or leave out "
        "same_versions=True to have the difference recorded instead."
    )


def _minor(python: str) -> list[str]:
    return python.split(".")[:2]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
