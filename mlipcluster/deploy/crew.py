"""The workers behind one Dask client, however they came to be."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from distributed import Client, Scheduler
from distributed.deploy.cluster import Cluster

from mlipcluster.deploy.deployment import Demand

CLOSE_SECONDS = 2
"""How long a client may take to take its leave of a scheduler that does not answer."""


class Crew:
    """Workers behind a client that somebody else started, and will close.

    Parameters
    ----------
    client : distributed.Client
    offers : mapping of str to float, optional
        Resources of the workers that are still to come.
    closes : bool
        Whether `close` closes the client.

    Attributes
    ----------
    client : distributed.Client
    own : bool
        Whether `close` ends the workers.
    checked : bool
        Whether its workers were held against this process before they joined (`mlipcluster.deploy.handshake`).
    found : str
        What it found of a run before, such as jobs that it cancelled, as one line for people.
    timed : bool
        Whether its workers say as the resource ``seconds`` how long they will be there, so that a call goes only to
        one that will finish it.
    """

    own = False
    checked = False
    found = ""
    timed = False

    def __init__(self, client: Client, offers: Mapping[str, float] | None = None, *, closes: bool = False) -> None:
        self.client = client
        self._offers = dict(offers or {})
        self._closes = closes

    def slots(self) -> int:
        """How many protocols the workers can run at once; 0 while there are none."""
        return sum(self.client.nthreads().values())

    def resources(self) -> list[dict[str, float]]:
        """What each worker has; what they will have while there are none, or nothing if that is not known."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        return [worker["resources"] for worker in workers] or ([self._offers] if self.own else [])

    def want(self, demand: Demand) -> None:
        """Tell how much work there is: where the number of workers follows it."""

    def look_after(self) -> None:
        """Called every second or so while the run waits.

        Raises
        ------
        RunError
            There are no workers and there will be none; the message says why.
        """

    def waiting(self) -> str:
        """What is waited for, as one line for people; ``""`` when all is as it should be."""
        if self.own or self.slots():
            return ""
        return f"{address_of(self.client)} has no workers; start some"

    def is_blameless(self, worker: str) -> bool:
        """Whether the worker of that address or name ended for reasons of its own: walltime, preemption, its node."""
        return False

    def close(self) -> None:
        """End what was started for this crew."""
        if self._closes:
            with contextlib.suppress(TimeoutError):
                self.client.close(timeout=CLOSE_SECONDS)


def address_of(client: Client) -> str:
    """A client's scheduler, for people."""
    return f"the scheduler at {client.scheduler.address}" if client.scheduler is not None else "the scheduler"


class ClusterCrew(Crew):
    """Workers of a Dask cluster that is closed with the run."""

    own = True

    def __init__(self, cluster: Cluster, offers: Mapping[str, float] | None = None, **client: Any) -> None:
        super().__init__(Client(cluster, set_as_default=False, **client), offers)
        self.cluster = cluster
        if isinstance(scheduler := getattr(cluster, "scheduler", None), Scheduler):
            # Whoever waits for it decides what is done again, and from where: Dask would begin at the beginning.
            scheduler.allowed_failures = 0

    def close(self) -> None:
        """Close client and cluster; whatever one of them raises, the other is closed too."""
        with contextlib.ExitStack() as stack:
            # On a busy machine they may take longer than that; the workers end with this process at the latest.
            stack.enter_context(contextlib.suppress(TimeoutError))
            stack.callback(self.cluster.close, timeout=10)
            stack.callback(self.client.close, timeout=CLOSE_SECONDS)
