"""The deployments, by name: a new one is one new file and one row."""

from __future__ import annotations

from importlib import import_module

from mlipcluster.deploy.deployment import Deployment
from mlipcluster.errors import InputError

DEPLOYMENTS = {
    "local": "mlipcluster.deploy.local:Local",
    "slurm": "mlipcluster.deploy.slurm:Slurm",
    "pbs": "mlipcluster.deploy.pbs:PBS",
    "sge": "mlipcluster.deploy.sge:SGE",
    "lsf": "mlipcluster.deploy.lsf:LSF",
    "htcondor": "mlipcluster.deploy.htcondor:HTCondor",
    "oar": "mlipcluster.deploy.oar:OAR",
    "moab": "mlipcluster.deploy.moab:Moab",
    "ssh": "mlipcluster.deploy.ssh:SSH",
    "kubernetes": "mlipcluster.deploy.clouds:Kubernetes",
    "ec2": "mlipcluster.deploy.clouds:EC2",
    "ecs": "mlipcluster.deploy.clouds:ECS",
    "fargate": "mlipcluster.deploy.clouds:Fargate",
    "gcp": "mlipcluster.deploy.clouds:GCP",
    "azure": "mlipcluster.deploy.clouds:Azure",
    "digitalocean": "mlipcluster.deploy.clouds:DigitalOcean",
    "hetzner": "mlipcluster.deploy.clouds:Hetzner",
    "openstack": "mlipcluster.deploy.clouds:OpenStack",
}
"""``"module:class"`` of each; imported when it is used."""


def deployment_class(kind: str) -> type[Deployment]:
    """The class of a kind of deployment.

    Raises
    ------
    InputError
        The kind is unknown; the message lists what is known.
    """
    if kind not in DEPLOYMENTS:
        raise InputError(f"deployment {kind!r:.80} is unknown; known: {', '.join(DEPLOYMENTS)}.")
    module, _, name = DEPLOYMENTS[kind].partition(":")
    found: type[Deployment] = getattr(import_module(module), name)
    return found
