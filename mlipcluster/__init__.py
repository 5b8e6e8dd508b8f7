"""Distribute, record and reproduce calculations with machine-learned interatomic potentials.

The public names are loaded when first used: ``import mlipcluster`` imports neither Dask nor pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlipcluster.calculators.socket_calculator import SocketCalculator
    from mlipcluster.calculators.spawn import SpawnConfig
    from mlipcluster.calculators.spec import CalculatorSpec
    from mlipcluster.deploy.clouds import EC2, ECS, GCP, Azure, DigitalOcean, Fargate, Hetzner, Kubernetes, OpenStack
    from mlipcluster.deploy.credentials_folder import generate_dask_tls_security
    from mlipcluster.deploy.deployment import Range
    from mlipcluster.deploy.htcondor import HTCondor
    from mlipcluster.deploy.local import Local
    from mlipcluster.deploy.lsf import LSF
    from mlipcluster.deploy.moab import Moab
    from mlipcluster.deploy.oar import OAR
    from mlipcluster.deploy.pbs import PBS
    from mlipcluster.deploy.sge import SGE
    from mlipcluster.deploy.slurm import Slurm
    from mlipcluster.deploy.ssh import SSH
    from mlipcluster.errors import MLIPClusterError
    from mlipcluster.front import MLIPCluster
    from mlipcluster.outputs.output import Output, read_output
    from mlipcluster.outputs.results import Results
    from mlipcluster.reproduction.audit import Audit
    from mlipcluster.reproduction.rerun import reproduce
    from mlipcluster.serving.asking import Served
    from mlipcluster.serving.choice import get_calculator
    from mlipcluster.serving.remote_calculator import RemoteCalculator

__version__ = "0.1.0"

_HOMES = {
    "Audit": "mlipcluster.reproduction.audit",
    "Azure": "mlipcluster.deploy.clouds",
    "CalculatorSpec": "mlipcluster.calculators.spec",
    "DigitalOcean": "mlipcluster.deploy.clouds",
    "EC2": "mlipcluster.deploy.clouds",
    "ECS": "mlipcluster.deploy.clouds",
    "Fargate": "mlipcluster.deploy.clouds",
    "GCP": "mlipcluster.deploy.clouds",
    "HTCondor": "mlipcluster.deploy.htcondor",
    "Hetzner": "mlipcluster.deploy.clouds",
    "Kubernetes": "mlipcluster.deploy.clouds",
    "LSF": "mlipcluster.deploy.lsf",
    "Local": "mlipcluster.deploy.local",
    "MLIPCluster": "mlipcluster.front",
    "MLIPClusterError": "mlipcluster.errors",
    "Moab": "mlipcluster.deploy.moab",
    "OAR": "mlipcluster.deploy.oar",
    "OpenStack": "mlipcluster.deploy.clouds",
    "Output": "mlipcluster.outputs.output",
    "PBS": "mlipcluster.deploy.pbs",
    "Range": "mlipcluster.deploy.deployment",
    "RemoteCalculator": "mlipcluster.serving.remote_calculator",
    "Results": "mlipcluster.outputs.results",
    "SGE": "mlipcluster.deploy.sge",
    "SSH": "mlipcluster.deploy.ssh",
    "Served": "mlipcluster.serving.asking",
    "Slurm": "mlipcluster.deploy.slurm",
    "SocketCalculator": "mlipcluster.calculators.socket_calculator",
    "SpawnConfig": "mlipcluster.calculators.spawn",
    "generate_dask_tls_security": "mlipcluster.deploy.credentials_folder",
    "get_calculator": "mlipcluster.serving.choice",
    "read_output": "mlipcluster.outputs.output",
    "reproduce": "mlipcluster.reproduction.rerun",
}

__all__ = [
    "EC2",
    "ECS",
    "GCP",
    "LSF",
    "OAR",
    "PBS",
    "SGE",
    "SSH",
    "Audit",
    "Azure",
    "CalculatorSpec",
    "DigitalOcean",
    "Fargate",
    "HTCondor",
    "Hetzner",
    "Kubernetes",
    "Local",
    "MLIPCluster",
    "MLIPClusterError",
    "Moab",
    "OpenStack",
    "Output",
    "Range",
    "RemoteCalculator",
    "Results",
    "Served",
    "Slurm",
    "SocketCalculator",
    "SpawnConfig",
    "generate_dask_tls_security",
    "get_calculator",
    "read_output",
    "reproduce",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
