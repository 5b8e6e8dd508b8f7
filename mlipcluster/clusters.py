"""Which workers a run uses, and whose root: what ``cluster=``, ``clusters=``, ``client=`` and ``clients=`` say."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from distributed import Client

from mlipcluster.deploy.batch import Batch
from mlipcluster.deploy.configured import deployment
from mlipcluster.deploy.deployment import Deployment, Range
from mlipcluster.deploy.given import TAKEN, Given
from mlipcluster.deploy.local import Local
from mlipcluster.errors import InputError
from mlipcluster.options import Compute
from mlipcluster.settings.files import user_file
from mlipcluster.store.sites import PathLike, cluster_fields, cluster_names, cluster_roots, known_root
from mlipcluster.store.store import Store

OWN = ("max_workers", "min_workers", "cores")
"""Options that are those of a deployment's own."""


@dataclass(frozen=True)
class Clusters:
    """What a user said of workers; at most one of the four, but the name of a cluster that only has a root.

    Attributes
    ----------
    cluster : object, optional
        A deployment, the name of a configured cluster, a Dask cluster or client, an address, or a function that makes
        one of these three.
    clusters : sequence of these, optional
    client, clients : distributed.Client or sequence of them, optional

    Raises
    ------
    InputError
        Something else was given, or too much.
    """

    cluster: Any = None
    clusters: Sequence[Any] | None = None
    client: Any = None
    clients: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        for one, several in (("client", "clients"), ("cluster", "clusters")):
            if None not in (getattr(self, one), getattr(self, several)):
                raise InputError(f"{one} and {several} are both given; give one of them.")
            object.__setattr__(self, several, _listed(several, getattr(self, several)))
        said = [_deployed(one) for one in self._said]
        if [_client(client) for client in self._handed_in] and (self.clusters or any(said)):
            raise InputError("cluster (or clusters) and client (or clients) are both given; give one of them.")
        if self.clusters and not all(said):
            bare = next(name for name, found in zip(self._said, said, strict=True) if found is None)
            raise InputError(f"clusters: {bare!r} has a root of environments, but does not say where workers run.")

    @property
    def elsewhere(self) -> bool:
        """Whether other workers are meant than such as a run starts on this machine."""
        said = map(_deployed, self._said)
        return bool(self._handed_in) or any(one is not None and not isinstance(one, Local) for one in said)

    @property
    def anywhere(self) -> bool:
        """Whether anything is said of where workers run."""
        return bool(self._handed_in) or any(_deployed(one) is not None for one in self._said)

    def deployments(self, compute: Compute, root: PathLike | None = None) -> list[Deployment]:
        """Where workers run; this machine where nothing is said.

        Parameters
        ----------
        compute : Compute
            What is said beside them.
        root : path, optional
            Where an environment that runs workers is looked up by its name. Default: the named cluster's own root, else
            what `mlipcluster.store.sites.known_root` says.

        Raises
        ------
        InputError
            An option of *compute* cannot be meant for them, or contradicts them.
        """
        found: list[Deployment] = [Given(client) for client in self._handed_in]
        for one in self._said:
            if (said := _deployed(one)) is not None:
                own = cluster_roots().get(one) if isinstance(one, str) else None
                found.append(with_environment(said, root or (own.value if own is not None else None)))
        options = {name: value for name in OWN if (value := getattr(compute, name)) is not None}
        if not found:
            return [Local(**options)]
        if all(isinstance(one, Given) for one in found):
            _check_foreign(compute)
        if len(found) > 1 and options:
            name, value = next(iter(options.items()))
            raise InputError(f"{name}={value} of several clusters: say it for each, e.g. Slurm({name}={value}).")
        return [_with_options(found[0], options, named=isinstance(self.cluster, str))] if options else found

    def where(self, root: PathLike | None) -> dict[str, Any]:
        """Where model strings are looked up, as `mlipcluster.calculators.registry.resolve` takes it.

        Raises
        ------
        InputError
            Clusters are named that have several roots.
        """
        roots = cluster_roots() if any(isinstance(one, str) for one in self._said) else {}
        named = {one: roots[one].value for one in self._said if isinstance(one, str) and one in roots}
        if root is not None:  # beside a name that is nothing but a root, that is a contradiction
            only = next((name for name in named if _deployed(name) is None), None)
            return {"root": root, "cluster": only}
        if len(set(named.values())) > 1:
            listed = ", ".join(f"{name} ({value})" for name, value in named.items())
            raise InputError(f"the clusters have several roots of environments: {listed}. Say which: root=…")
        return {"root": None, "cluster": next(iter(named), None)}

    @property
    def _said(self) -> tuple[Any, ...]:
        return tuple(self.clusters or (() if self.cluster is None else (self.cluster,)))

    @property
    def _handed_in(self) -> tuple[Any, ...]:
        return tuple(self.clients or (() if self.client is None else (self.client,)))


def _client(one: Any) -> Given:
    if not isinstance(one, Client):
        raise InputError(f"client={one!r:.80}: give a distributed.Client; cluster= takes addresses and whatever else.")
    return Given(one)


def _deployed(one: Any) -> Deployment | None:
    """What *one* says of workers; None for the name of a cluster that has a root alone."""
    if isinstance(one, Deployment):
        return one
    if not isinstance(one, str) or "://" in one:
        return Given(one)
    found = _read(one)
    if found is None and one not in cluster_roots():
        raise InputError(unknown(one))
    return found


def configured(name: str) -> Deployment | None:
    """The deployment of a configured cluster, if it has one.

    Raises
    ------
    InputError
        What a file says of it cannot be used; the file is named.
    """
    found, root = _read(name), cluster_roots().get(name)
    return None if found is None else with_environment(found, None if root is None else root.value)


def _read(name: str) -> Deployment | None:
    return deployment(name, {key: (one.value, one.origin) for key, one in cluster_fields(name).items()})


def with_environment(one: Deployment, root: PathLike | None = None) -> Deployment:
    """The same, with the interpreter of an environment of the root in place of its name.

    Parameters
    ----------
    root : path, optional
        Default: what `mlipcluster.store.sites.known_root` says.

    Raises
    ------
    InputError
        There is no root, or no such environment is built in it.
    """
    name = getattr(one, "python", None)
    if not isinstance(name, str) or os.sep in name:
        return one
    folder = known_root(root)
    if folder is None:
        raise InputError(
            f"python={name!r} names an environment of a root, and no root is named; give root=, write root "
            f'= "…" into {user_file()}, or give the path of the interpreter or of the environment\'s folder.'
        )
    found: Deployment = replace(one, python=str(Store(folder).built(name).python))  # type: ignore[type-var]
    return found


def unknown(name: str) -> str:
    """What is said of a cluster of that name, which there is not."""
    roots = cluster_roots()
    known = (f"{one} ({roots[one].value}, {roots[one].origin})" if one in roots else one for one in cluster_names())
    return (
        f"there is no cluster {name!r:.80}; known: {', '.join(known)}. Add it to {user_file()} under [clusters.NAME], "
        f"or give {TAKEN}."
    )


def _listed(name: str, several: Any) -> tuple[Any, ...] | None:
    if several is None:
        return None
    if isinstance(several, (str, Mapping)) or not isinstance(several, Iterable):
        raise InputError(f"{name}={several!r:.80}: give a list of them, or a single one as {name[:-1]}=.")
    if not (listed := tuple(several)):
        raise InputError(f"{name} is empty; give at least one, or leave it out.")
    return listed


def _check_foreign(compute: Compute) -> None:
    told = compute.dashboard_address
    if told != Compute.dashboard_address:
        raise InputError(f"dashboard_address={told!r}: the scheduler is not this run's to start; leave it out.")
    if compute.security is True:
        raise InputError(
            "security=True makes new credentials, which a scheduler that runs already does not know; give those that "
            "it was started with."
        )


def _with_range(one: Batch, options: Mapping[str, Any]) -> dict[str, Any]:
    """The same options, where a file gives the least and the most number of workers in one."""
    most = options.get("max_workers", one.range.most)
    least = options.get("min_workers", min(one.range.least, most))
    rest = {name: value for name, value in options.items() if name not in {"min_workers", "max_workers"}}
    return {**rest, "workers": Range(least, most)}


def _with_options(one: Deployment, options: Mapping[str, Any], *, named: bool) -> Deployment:
    """A deployment with options that are said beside it: they complete a value, and override a file."""
    if named and isinstance(one, Batch) and one.workers is not None:
        options = _with_range(one, options)
    kind, known = type(one).__name__, {field.name: field for field in fields(one)}  # type: ignore[arg-type]
    for name, value in options.items():
        if isinstance(one, Given):
            raise InputError(f"{name}={value}: the workers are not this run's to start; leave it out.")
        if name not in known:
            raise InputError(f"{name}={value}: {kind} has no such field; it has {', '.join(known)}.")
        said, default = getattr(one, name), known[name].default
        if not named and said not in (value, default, MISSING):
            raise InputError(f"{name}={value} here, but {kind}({name}={said!r}); say it in one place.")
    changed: Deployment = replace(one, **options)  # type: ignore[type-var]
    return changed
