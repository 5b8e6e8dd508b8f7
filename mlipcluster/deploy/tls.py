"""TLS between driver, scheduler and workers."""

from __future__ import annotations

from typing import Any

from distributed.security import Security

from mlipcluster.deploy.deployment import Place


def choose(security: Any, place: Place, *, remote: bool) -> Security | None:
    """The credentials of a deployment that is about to start.

    Parameters
    ----------
    security : bool, distributed.Security or None
        What the user said; None leaves it to *remote*.
    """
    del place, remote
    found: Security | None = Security.temporary() if security is True else security or None
    return found
