"""The workers on the hosts of an `SSH` deployment."""

from __future__ import annotations

import warnings
from typing import Any, cast

from mlipcluster.deploy import calm, tls
from mlipcluster.deploy.crew import ClusterCrew
from mlipcluster.deploy.deployment import Place
from mlipcluster.deploy.handshake import facts_here
from mlipcluster.deploy.job_spec import JobSpec
from mlipcluster.deploy.launcher import PATIENCE, start_scheduler, timeouts
from mlipcluster.deploy.local import QuietCluster
from mlipcluster.deploy.ssh import SSH
from mlipcluster.deploy.ssh_host import Errand, Host
from mlipcluster.errors import MismatchError, RunError

GRACE = 5.0
"""Seconds that workers have for what they do when the driver has ended."""


class SSHCrew(ClusterCrew):
    """The scheduler in this process, and workers on the hosts.

    Parameters
    ----------
    ssh : SSH
    place : Place
    """

    def __init__(self, ssh: SSH, place: Place) -> None:
        self._ssh = ssh
        self._told: set[str] = set()
        place.logs.mkdir(parents=True, exist_ok=True)
        cluster = start_scheduler(cast("Any", ssh), place)
        super().__init__(cluster, ssh.offers())
        try:
            cluster.worker_spec = {host: _worker(ssh, place, number, cluster) for number, host in enumerate(ssh.hosts)}
            cluster.sync(cluster._correct_state)  # noqa: SLF001 - as `SpecCluster.scale` does, for hosts with names
        except BaseException:
            self.close()
            raise

    def look_after(self) -> None:
        """Tell of hosts that take no part; raise when none is left."""
        lost = {str(host.address): host.error for host in self._hosts if host.error is not None}
        if len(lost) == len(self._ssh.hosts):
            text = "; ".join(dict.fromkeys(str(error) for error in lost.values()))
            first = next(iter(lost.values()))
            if isinstance(first, MismatchError):
                raise MismatchError(text, first.differences)
            raise RunError(f"none of the hosts works: {text}")
        for host, error in lost.items():
            if host not in self._told:
                self._told.add(host)
                warnings.warn(f"SSH: a host takes no part, the others go on: {error}", stacklevel=2)

    def waiting(self) -> str:
        """Which hosts have no workers at the moment, and why."""
        return "; ".join(f"{host.address} {host.trouble}" for host in self._hosts if host.trouble)

    def is_blameless(self, worker: str) -> bool:
        """Whether the worker of that name went with the connection to its host."""
        return any(worker.rpartition("-")[0] in host.lost for host in self._hosts)

    @property
    def _hosts(self) -> list[Host]:
        assert isinstance(self.cluster, QuietCluster)
        return [cast("Host", host) for host in self.cluster.workers.values()]


def _worker(ssh: SSH, place: Place, number: int, cluster: QuietCluster) -> dict[str, Any]:
    """A host, as `SpecCluster` starts it."""
    address = cluster.scheduler_address
    paths = {tls.PREFIX + name: file for name, file in tls.FILES.items()} if place.security else {}
    texts = tls.worker_texts(place.security) if place.security else {}
    spec = JobSpec(
        scheduler=address,
        processes=ssh.workers_each,
        cores=ssh.cores or ssh.workers_each,
        gpus=ssh.gpus,
        grace=GRACE,
        margin=0.0,
        patience=PATIENCE,
        scratch=ssh.scratch,
        same_versions=ssh.same_versions,
        variables={
            **calm.VARIABLES,
            **calm.as_variables(timeouts()),
            "DASK_LOGGING__DISTRIBUTED": "warning",
            **(tls.settings(place.security) if place.security else {}),
            **ssh.environment,
        },
        driver=facts_here(environment=False).to_json(),
    )
    everywhere = ssh.host is None and ssh.interface is None
    errand = Errand(
        spec,
        tag=f"ssh{place.number}-{number}",
        files={tls.FILES[name]: text for name, text in texts.items()},
        paths=paths,
        port=int(address.rpartition(":")[2]) if everywhere else None,
    )
    said = {"username": ssh.user, "port": ssh.port}
    return {
        "cls": Host,
        "options": {
            "address": ssh.hosts[number],
            "connect_options": {**{k: v for k, v in said.items() if v is not None}, **ssh.connect_options},
            "remote_python": ssh.interpreter,
            "errand": errand,
            "log": place.logs / f"ssh-{number}-{ssh.hosts[number].replace('/', '_')}.log",
        },
    }
