"""Workers of the user's own: behind a Dask cluster, a client, an address, or whatever a function makes of these."""

from __future__ import annotations

import re
import socket
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import dask
import psutil
from distributed import Client
from distributed.deploy.cluster import Cluster
from distributed.security import Security

from mlipcluster.deploy.crew import ClusterCrew, Crew, address_of
from mlipcluster.deploy.deployment import Deployment, Place
from mlipcluster.errors import InputError, RunError

_ADDRESS = re.compile(r"(tcp|tls|ws|wss|ucx|ucxx|inproc)://\S+")
TAKEN = (
    "a deployment such as Slurm(…) or Local(…), the name of a configured cluster, a Dask cluster or client, an address "
    "such as 'tcp://host:8786', or a function that makes one of these three"
)
"""What ``cluster=`` may be, for people."""
_KINDS = (Client, Cluster, str)


@dataclass(frozen=True)
class Given(Deployment):
    """Workers that somebody else starts and looks after.

    Attributes
    ----------
    what : distributed.Client, Cluster, str or callable
        A client or cluster, which is not closed; the address of a scheduler; or a function without arguments that
        makes one of these when it is needed. What it made is closed at the end: of a client the client alone.

    Raises
    ------
    InputError
        It is none of these, was closed already, or is asynchronous.
    """

    kind: ClassVar[str] = "given"
    remote: ClassVar[bool] = False
    roles: ClassVar[Sequence[str]] = ("client",)

    what: Client | Cluster | str | Callable[[], Any]

    def __post_init__(self) -> None:
        _check(self.what)

    @property
    def interpreter(self) -> None:
        """Nobody here knows."""
        return None

    def start(self, place: Place) -> Crew:
        """Connect; nothing is started but what a function makes.

        Raises
        ------
        RunError
            No scheduler answers at the address.
        InputError
            The function made something else.
        """
        crew = self._start(place)
        _warn_of_plain_text(crew)
        return crew

    def _start(self, place: Place) -> Crew:
        if isinstance(self.what, _KINDS):
            return _crew(self.what, place, made=False)
        made, name = self.what(), getattr(self.what, "__name__", repr(self.what))
        if not isinstance(made, _KINDS):
            raise InputError(f"cluster={name:.80}: it made {made!r:.80}; make a Dask cluster, a client or an address.")
        _check(made)
        return _crew(made, place, made=True)

    def resources(self) -> list[dict[str, float]]:
        """What the workers have that are there; nothing where that cannot be known before `start`."""
        if isinstance(self.what, Client):
            return Crew(self.what).resources()
        if isinstance(self.what, Cluster):
            return [dict(worker["resources"]) for worker in self.what.scheduler_info["workers"].values()]
        return []


def _crew(what: Client | Cluster | str, place: Place, *, made: bool) -> Crew:
    if isinstance(what, Client):
        return Crew(what, closes=made)
    if isinstance(what, str):
        return Crew(connect(what, place.security), closes=True)
    return ClusterCrew(what) if made else Crew(Client(what, set_as_default=False), closes=True)


def connect(address: str, security: Security | None) -> Client:
    """A client of the scheduler at an address.

    Raises
    ------
    RunError
        None answers there within Dask's ``distributed.comm.timeouts.connect``.
    """
    credentials = {"security": security} if address.startswith(("tls:", "wss:")) and security else {}
    try:
        return Client(address, set_as_default=False, **credentials)
    except (OSError, TimeoutError) as error:
        seconds = dask.config.get("distributed.comm.timeouts.connect")
        raise RunError(
            f"no scheduler answers at {address} within {seconds} ({error}). See that it runs and can be reached from "
            "here, that it speaks TLS just where its address begins with tls://, and with credentials of the same "
            "authority (security=)."
        ) from error


def _warn_of_plain_text(crew: Crew) -> None:
    """Say that what goes to another machine can be read, and changed, on the way there."""
    address = crew.client.scheduler.address if crew.client.scheduler is not None else None
    protocol, _, place = str(address).partition("://")
    if protocol in {"tcp", "ws"} and place.rpartition(":")[0].strip("[]") not in _own_addresses():
        warnings.warn(
            f"{address_of(crew.client)} is reached without encryption: whoever can reach that network can read what is "
            "sent, and have code run. Start it with TLS (distributed.Security) and give security= as well.",
            stacklevel=2,
        )


def _own_addresses() -> set[str]:
    return {"localhost", socket.gethostname(), *(a.address for many in psutil.net_if_addrs().values() for a in many)}


def _check(what: Any) -> None:
    if isinstance(what, str):
        if not _ADDRESS.fullmatch(what):
            raise InputError(f"{what!r:.80} is no address; give one such as 'tcp://host:8786' or 'tls://host:8786'.")
    elif isinstance(what, (Client, Cluster)):
        name, status = type(what).__name__, getattr(what.status, "name", what.status)
        if what.asynchronous:
            raise InputError(f"the {name} is asynchronous; make it without asynchronous=True.")
        if status in {"closed", "closing", "failed"}:
            raise InputError(f"the {name} is {status}; hand in one that is open.")
    elif isinstance(what, type) and issubclass(what, Deployment):
        raise InputError(f"{what.__name__} is a class; give a value of it: {what.__name__}(…).")
    elif not callable(what):
        raise InputError(f"{what!r:.80} is no cluster; give {TAKEN}.")
