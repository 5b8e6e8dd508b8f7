"""What every deployment is: a small frozen value that says where workers run, and starts them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from mlipcluster.errors import InputError

if TYPE_CHECKING:
    from distributed.security import Security

    from mlipcluster.deploy.crew import Crew


def check_whole(name: str, value: object, least: int) -> None:
    """See that a field is a whole number that is large enough.

    Raises
    ------
    InputError
        It is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name}={value!r}: give a whole number, {least} or more.")


class Range(NamedTuple):
    """How many workers: at least, and at most; between the two their number follows the queue of work."""

    least: int
    most: int


@dataclass(frozen=True)
class Demand:
    """How much work waits or runs at this moment.

    Attributes
    ----------
    calls : float
        Calls that could run at once, if there were a worker for each; ``inf`` where nobody knows their end yet.
    seconds : float, optional
        What they take together, where that is known.
    need : float
        Seconds that a worker has to be there yet for the shortest of those that were given to the scheduler; ``inf``
        where only a fresh one will do.
    """

    calls: float = 0.0
    seconds: float | None = None
    need: float = 0.0


@dataclass(frozen=True)
class Place:
    """What a run lends a deployment that it starts.

    Attributes
    ----------
    token : str
        Names the run's jobs; the same again when the run folder is gone on with.
    number : int
        Of the deployment among those of the run, from 0.
    logs : pathlib.Path
        Folder for what workers say of themselves.
    private : pathlib.Path
        For this deployment's keys; made with mode 0700 by whoever needs it (`tls.make_private`), gone when the run
        ends. Nodes have to see it.
    jobs : pathlib.Path
        File that submitted jobs are noted in, one JSON object a line, before anything else is done with them.
    security : distributed.Security, optional
        TLS between driver, scheduler and workers.
    dashboard_address : str
        Where Dask's dashboard listens.
    """

    token: str
    number: int
    logs: Path
    private: Path
    jobs: Path
    security: Security | None = None
    dashboard_address: str = "127.0.0.1:0"


class Deployment(ABC):
    """Where workers run; its classes are frozen dataclasses, so that a value can be compared, kept and shown.

    Attributes
    ----------
    kind : str
        Its name in :data:`mlipcluster.deploy.table.DEPLOYMENTS`.
    remote : bool
        Whether workers are on other machines, so that TLS is on unless somebody says otherwise.
    roles : sequence of str
        Whose certificates it needs for that.
    """

    kind: ClassVar[str]
    remote: ClassVar[bool] = True
    roles: ClassVar[Sequence[str]] = ("scheduler", "worker", "client")

    @abstractmethod
    def start(self, place: Place) -> Crew:
        """Start the scheduler, and workers or what will start them."""

    @property
    @abstractmethod
    def interpreter(self) -> str | None:
        """The Python that runs the workers, as they see it; None where nobody here knows."""

    def offers(self) -> Mapping[str, float]:
        """Dask's resources that each worker will have."""
        return {}

    def resources(self) -> list[dict[str, float]]:
        """What each worker has or will have, as far as that differs; nothing where nobody knows yet."""
        return [dict(self.offers())]
