"""Distribute, record and reproduce calculations with machine-learned interatomic potentials.

The public names are loaded when first used: ``import mlipcluster`` imports neither Dask nor pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlipcluster.calculators.socket_calculator import SocketCalculator
    from mlipcluster.calculators.spec import CalculatorSpec
    from mlipcluster.deploy.credentials_folder import generate_dask_tls_security
    from mlipcluster.deploy.deployment import Range
    from mlipcluster.deploy.local import Local
    from mlipcluster.errors import MLIPClusterError
    from mlipcluster.front import MLIPCluster
    from mlipcluster.outputs.output import Output, read_output
    from mlipcluster.outputs.results import Results
    from mlipcluster.reproduction.audit import Audit
    from mlipcluster.reproduction.rerun import reproduce

__version__ = "0.1.0"

_HOMES = {
    "Audit": "mlipcluster.reproduction.audit",
    "CalculatorSpec": "mlipcluster.calculators.spec",
    "Local": "mlipcluster.deploy.local",
    "MLIPCluster": "mlipcluster.front",
    "MLIPClusterError": "mlipcluster.errors",
    "Output": "mlipcluster.outputs.output",
    "Range": "mlipcluster.deploy.deployment",
    "Results": "mlipcluster.outputs.results",
    "SocketCalculator": "mlipcluster.calculators.socket_calculator",
    "generate_dask_tls_security": "mlipcluster.deploy.credentials_folder",
    "read_output": "mlipcluster.outputs.output",
    "reproduce": "mlipcluster.reproduction.rerun",
}

__all__ = [
    "Audit",
    "CalculatorSpec",
    "Local",
    "MLIPCluster",
    "MLIPClusterError",
    "Output",
    "Range",
    "Results",
    "SocketCalculator",
    "generate_dask_tls_security",
    "read_output",
    "reproduce",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
