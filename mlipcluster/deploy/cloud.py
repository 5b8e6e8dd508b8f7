"""Workers on machines that a cloud starts and ends: what all clouds share.

Here scheduler and workers run in the cloud, from a container image that has the same Python and mlipcluster as the
driver, and Dask's own libraries start them. How many machines there are follows the queue of work, as for batch jobs;
Dask's adaptive scaling would look at what the scheduler holds, which is little more than the workers can do at once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar

import dask
from distributed.deploy.cluster import Cluster

from mlipcluster.deploy.crew import ClusterCrew
from mlipcluster.deploy.deployment import Demand, Deployment, Place, Range, check_whole
from mlipcluster.deploy.scaling import PENDING, WORKING, JobView, Rules, Scaling
from mlipcluster.deploy.signatures import accepted
from mlipcluster.errors import InputError, RunError

COMM = ("default-scheme", "require-encryption", "tls")
"""What dask-cloudprovider sets beneath ``distributed.comm`` of the whole process, for machines still to come."""


@dataclass(frozen=True, kw_only=True)
class Cloud(Deployment):
    """Workers in a cloud.

    Attributes
    ----------
    image : str, optional
        Container image of scheduler and workers, with the Python and the mlipcluster of this process.
    region : str, optional
        Where: what the provider calls region, zone or location.
    machine : str, optional
        Kind of machine: what the provider calls instance type, machine type or size.
    gpus : int
        Of a machine.
    processes : int
        Protocols that a machine runs at once, each in a process of its own.
    min_workers, max_workers : int
        At least and at most so many protocols at once, in whole machines.
    idle_timeout : float
        Seconds without work after which a machine is given back.
    environment : mapping of str to str
        Variables of the workers.
    prologue : sequence of str
        Shell commands of a machine before its worker starts, where the provider's machines take some.
    options : mapping of str to object
        Further arguments of the library's class, as its documentation names them.

    Raises
    ------
    InputError
        A field cannot be meant, the library is not installed, or has no such option.
    """

    package: ClassVar[str] = "dask_cloudprovider"
    extra: ClassVar[str] = "cloud"
    classes: ClassVar[Sequence[str]]
    """The library's class, and those that it hands arguments on to (`mlipcluster.deploy.signatures`)."""
    names: ClassVar[Mapping[str, str]] = {}
    """What the library calls a field; a field that is not there is none of this cloud's."""
    encrypted: ClassVar[bool] = True
    """Whether the library can start a scheduler that speaks TLS."""
    one_by_one: ClassVar[bool] = True
    """Whether a machine can be chosen to be given back; otherwise all are, when there is nothing left to do."""

    image: str | None = None
    region: str | None = None
    machine: str | None = None
    gpus: int = 0
    processes: int = 1
    min_workers: int = 0
    max_workers: int = 1
    idle_timeout: float = 300.0
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)
    prologue: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name, least in (("gpus", 0), ("processes", 1), ("min_workers", 0), ("max_workers", 1)):
            check_whole(name, getattr(self, name), least)
        if self.min_workers > self.max_workers:
            raise InputError(f"min_workers={self.min_workers} is more than max_workers={self.max_workers}; lower it.")
        kind = type(self).__name__
        for name in ("image", "region", "machine", "environment", "prologue"):
            if getattr(self, name) and name not in self.names:
                raise InputError(
                    f"{kind} has no {name}=; see what its options= may be: {', '.join(sorted(self._known))}."
                )
        if unknown := sorted(set(self.arguments()) - self._known):
            raise InputError(
                f"{kind}: the installed {self.package} has no option {', '.join(unknown)}; it has "
                f"{', '.join(sorted(self._known))}."
            )

    @property
    def _known(self) -> frozenset[str]:
        found = accepted(self.package, self.classes)
        if found is None:
            raise InputError(
                f"{type(self).__name__} needs {self.package.replace('_', '-')}, which is not installed: "
                f"pip install 'mlipcluster[{self.extra}]'."
            )
        return found

    @property
    def interpreter(self) -> None:
        """That of the image."""
        return None

    def offers(self) -> Mapping[str, float]:
        """A machine's GPUs."""
        return {"GPU": float(self.gpus)} if self.gpus else {}

    def arguments(self) -> dict[str, Any]:
        """What the library's class is called with, but for credentials."""
        said = {name: getattr(self, name) for name in self.names if getattr(self, name)}
        plain = {name: list(value) if name == "prologue" else value for name, value in said.items()}
        return {
            "n_workers": 0,
            **{self.names[name]: value for name, value in plain.items()},
            **self.machines(),
            **self.options,
        }

    def machines(self) -> dict[str, Any]:
        """Arguments that make a machine run `processes` protocols at once, and tell of its GPUs."""
        return {"worker_options": {"nthreads": self.processes, "memory_limit": 0, "resources": dict(self.offers())}}

    def start(self, place: Place) -> CloudCrew:
        """Start the scheduler's machine; workers come when there is work.

        Raises
        ------
        InputError
            The provider's own package is not installed, or TLS is asked of a library that cannot have it.
        RunError
            The cloud refused; its own words are passed on.
        """
        kind = type(self).__name__
        if place.security is not None and not self.encrypted:
            raise InputError(
                f"{kind}: {self.package} cannot start a scheduler with TLS. What goes from here to there goes through "
                "the provider's own tunnel, but between the machines it is in plain text: if their network may be "
                "trusted, say security=False."
            )
        before = {f"distributed.comm.{name}": dask.config.get(f"distributed.comm.{name}", None) for name in COMM}
        credentials = {"security": place.security or False} if self.encrypted else {}
        try:
            cluster = self._class()(**self.arguments(), **credentials)
        except Exception as error:
            dask.config.set(before)
            if isinstance(error, InputError):
                raise
            raise RunError(
                f"{kind} could not start its scheduler: {type(error).__name__}: {error}. See that the provider's "
                "credentials are set up here and allow that, and the options."
            ) from error
        return CloudCrew(cluster, self, before)

    def _class(self) -> type[Cluster]:
        file, _, name = self.classes[0].partition(":")
        module = f"{self.package}.{file.removesuffix('.py').replace('/', '.')}"
        try:
            found: type[Cluster] = getattr(import_module(module), name)
        except ImportError as error:
            raise InputError(
                f"{type(self).__name__} needs the provider's own package: {error}. Install it: "
                f"pip install 'mlipcluster[{self.extra}]'."
            ) from error
        return found


class CloudCrew(ClusterCrew):
    """Machines of a cloud, whose number follows the work.

    Parameters
    ----------
    before : mapping
        Dask's settings as they were, to be put back at the end.
    """

    def __init__(self, cluster: Cluster, cloud: Cloud, before: Mapping[str, Any]) -> None:
        super().__init__(cluster, cloud.offers())
        self._cloud = cloud
        self._before = dict(before)
        limits = Range(cloud.min_workers, max(cloud.max_workers, cloud.processes))
        self._scaling = Scaling(Rules(limits, cloud.processes, idle_timeout=cloud.idle_timeout))
        self._asked = 0
        self._idle_since: dict[str, float] = {}
        self._given_back: set[str] = set()
        self._there: set[str] = set()
        self._is_short = False
        """Whether machines were taken away, such as spot instances, and are not replaced yet."""

    def want(self, demand: Demand) -> None:
        """Ask for as many machines as the work needs; give back those that have none."""
        now = time.monotonic()
        views = self._views(now)
        plan = self._scaling.plan(demand, [*views, *[JobView("", PENDING)] * (self._asked - len(views))], now)
        if plan.submit:
            self._scale(self._asked + plan.submit)
        elif plan.retire and (self._cloud.one_by_one or not demand.calls):
            self._give_back([view.tag for view in views if view.tag in plan.retire])
        elif self._is_short and demand.calls and self._asked > len(views):
            self._scale(self._asked)  # Dask starts those again that it has found to be gone, which takes it a while

    def waiting(self) -> str:
        """Machines that were asked for and are not there."""
        missing = self._asked - len(self.client.nthreads())
        kind = type(self._cloud).__name__
        return f"{missing} {kind} machine{'s' * (missing > 1)} on the way" if missing > 0 else ""

    def is_blameless(self, worker: str) -> bool:
        """Whether it was given back."""
        return worker in self._given_back

    def close(self) -> None:
        """End all machines."""
        try:
            super().close()
        finally:
            dask.config.set(self._before)

    def _views(self, now: float) -> list[JobView]:
        """The machines that are there, and for how long each has had nothing to do."""
        there = [address for address in self.client.nthreads() if address not in self._given_back]
        busy = {address for address, keys in self.client.processing().items() if keys}
        self._idle_since = {one: self._idle_since.get(one, now) for one in there if one not in busy}
        self._asked = max(self._asked, len(there))
        self._is_short = len(there) < self._asked and (self._is_short or not self._there <= set(there))
        self._there = set(there)
        return [JobView(one, WORKING, now - self._idle_since.get(one, now)) for one in there]

    def _scale(self, machines: int) -> None:
        self._asked = machines
        self.cluster.scale(machines)

    def _give_back(self, addresses: Sequence[str]) -> None:
        self._given_back.update(addresses)
        self._there -= self._given_back
        self._asked -= len(addresses)
        if not self._cloud.one_by_one:
            self._scale(self._asked)
            return
        workers: Mapping[Any, Any] = getattr(self.cluster, "workers", {})
        told = self.client.scheduler_info(n_workers=-1)["workers"]
        names = {told[address]["name"] for address in addresses if address in told}
        mine = [key for key, machine in workers.items() if getattr(machine, "name", key) in names or key in names]
        self.cluster.sync(self.cluster.scale_down, mine)  # type: ignore[attr-defined]
