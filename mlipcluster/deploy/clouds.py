"""The clouds: each is what Dask's library calls things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlipcluster.deploy.cloud import Cloud

_MACHINES = "generic/vmcluster.py:VMCluster"
_COMMON = {"image": "docker_image", "environment": "env_vars", "prologue": "extra_bootstrap"}


@dataclass(frozen=True, kw_only=True)
class EC2(Cloud):
    """Workers on Amazon's EC2; ``options={"spot": True}`` for spot instances.

    Fields are those of `Cloud`; options those of ``dask_cloudprovider.aws.EC2Cluster``.
    """

    kind: ClassVar[str] = "ec2"
    extra: ClassVar[str] = "ec2"
    classes: ClassVar[Sequence[str]] = ("aws/ec2.py:EC2Cluster", _MACHINES)
    names: ClassVar[Mapping[str, str]] = {**_COMMON, "region": "region", "machine": "instance_type"}


@dataclass(frozen=True, kw_only=True)
class GCP(Cloud):
    """Workers on Google's Compute Engine; *region* is a zone.

    Fields are those of `Cloud`; options those of ``dask_cloudprovider.gcp.GCPCluster``.
    """

    kind: ClassVar[str] = "gcp"
    extra: ClassVar[str] = "gcp"
    classes: ClassVar[Sequence[str]] = ("gcp/instances.py:GCPCluster", _MACHINES)
    names: ClassVar[Mapping[str, str]] = {**_COMMON, "region": "zone", "machine": "machine_type", "gpus": "ngpus"}


@dataclass(frozen=True, kw_only=True)
class Azure(Cloud):
    """Workers on Azure's virtual machines; ``resource_group``, ``vnet`` and ``security_group`` are options.

    Fields are those of `Cloud`; options those of ``dask_cloudprovider.azure.AzureVMCluster``.
    """

    kind: ClassVar[str] = "azure"
    extra: ClassVar[str] = "azure"
    classes: ClassVar[Sequence[str]] = ("azure/azurevm.py:AzureVMCluster", _MACHINES)
    names: ClassVar[Mapping[str, str]] = {**_COMMON, "region": "location", "machine": "vm_size"}


@dataclass(frozen=True, kw_only=True)
class DigitalOcean(Cloud):
    """Workers on DigitalOcean's droplets.

    Fields are those of `Cloud`; options those of ``dask_cloudprovider.digitalocean.DropletCluster``.
    """

    kind: ClassVar[str] = "digitalocean"
    extra: ClassVar[str] = "digitalocean"
    classes: ClassVar[Sequence[str]] = ("digitalocean/droplet.py:DropletCluster", _MACHINES)
    names: ClassVar[Mapping[str, str]] = {**_COMMON, "region": "region", "machine": "size"}


@dataclass(frozen=True, kw_only=True)
class Hetzner(Cloud):
    """Workers on Hetzner's virtual servers.

    Fields are those of `Cloud`; options those of ``dask_cloudprovider.hetzner.HetznerCluster``.
    """

    kind: ClassVar[str] = "hetzner"
    extra: ClassVar[str] = "hetzner"
    classes: ClassVar[Sequence[str]] = ("hetzner/vserver.py:HetznerCluster", _MACHINES)
    names: ClassVar[Mapping[str, str]] = {**_COMMON, "region": "location", "machine": "server_type"}


@dataclass(frozen=True, kw_only=True)
class OpenStack(Cloud):
    """Workers on an OpenStack cloud.

    Fields are those of `Cloud`; options those of ``dask_cloudprovider.openstack.OpenStackCluster``.
    """

    kind: ClassVar[str] = "openstack"
    extra: ClassVar[str] = "openstack"
    classes: ClassVar[Sequence[str]] = ("openstack/instances.py:OpenStackCluster", _MACHINES)
    names: ClassVar[Mapping[str, str]] = {**_COMMON, "region": "region", "machine": "size"}


@dataclass(frozen=True, kw_only=True)
class ECS(Cloud):
    """Workers as tasks of Amazon's container service; sizes are options (``worker_cpu``, ``worker_mem``).

    Fields are those of `Cloud`; options those of ``dask_cloudprovider.aws.ECSCluster``.
    """

    kind: ClassVar[str] = "ecs"
    extra: ClassVar[str] = "ec2"
    classes: ClassVar[Sequence[str]] = ("aws/ecs.py:ECSCluster",)
    names: ClassVar[Mapping[str, str]] = {
        "image": "image",
        "environment": "environment",
        "region": "region_name",
        "gpus": "worker_gpu",
    }

    def machines(self) -> dict[str, Any]:
        """Arguments that make a task run `processes` protocols at once, and tell of its GPUs."""
        resources = ["--resources", f"GPU={self.gpus}"] if self.gpus else []
        return {
            "worker_nthreads": self.processes,
            "worker_extra_args": ["--memory-limit", "0", *resources],
        }


@dataclass(frozen=True, kw_only=True)
class Fargate(ECS):
    """The same on Fargate, where nobody keeps machines.

    Fields are those of `Cloud`; options those of ``dask_cloudprovider.aws.FargateCluster``.
    """

    kind: ClassVar[str] = "fargate"
    classes: ClassVar[Sequence[str]] = ("aws/ecs.py:FargateCluster", "aws/ecs.py:ECSCluster")


@dataclass(frozen=True, kw_only=True)
class Kubernetes(Cloud):
    """Workers in a Kubernetes cluster that has Dask's operator; ``namespace`` and ``resources`` are options.

    Fields are those of `Cloud`; options those of ``dask_kubernetes.operator.KubeCluster``. The operator cannot have TLS
    between scheduler and workers: this takes ``security=False``.
    """

    kind: ClassVar[str] = "kubernetes"
    package: ClassVar[str] = "dask_kubernetes"
    extra: ClassVar[str] = "kubernetes"
    classes: ClassVar[Sequence[str]] = ("operator/kubecluster/kubecluster.py:KubeCluster",)
    names: ClassVar[Mapping[str, str]] = {"image": "image", "environment": "env"}
    encrypted: ClassVar[bool] = False
    one_by_one: ClassVar[bool] = False

    def machines(self) -> dict[str, Any]:
        """Arguments that make a pod run `processes` protocols at once, and tell of its GPUs."""
        gpus = [f"--resources=GPU={self.gpus}"] if self.gpus else []
        limits = {"resources": {"limits": {"nvidia.com/gpu": str(self.gpus)}}} if self.gpus else {}
        command = ["dask", "worker", f"--nthreads={self.processes}", "--memory-limit=0", *gpus]
        return {"worker_command": command, **limits}
