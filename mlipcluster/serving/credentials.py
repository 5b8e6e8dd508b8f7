"""Credentials of the run, as a socket takes them."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING, Any

from mlipcluster.errors import InputError
from mlipcluster.settings.values import setting

if TYPE_CHECKING:
    from distributed.security import Security


def client_context(security: Any) -> ssl.SSLContext | None:
    """For who asks a server; those of ``serve.tls`` of the settings, if none are given, or None."""
    return _context(setting("serve.tls").value if security is None else security, "client", listens=False)


def worker_context(security: Any) -> ssl.SSLContext | None:
    """For who brings a worker."""
    return _context(security, "worker", listens=False)


def server_context(security: Any) -> ssl.SSLContext | None:
    """For the server, which takes nobody without a certificate of the same authority."""
    return _context(security, "scheduler", listens=True)


def _context(security: Any, role: str, *, listens: bool) -> ssl.SSLContext | None:
    if security is None:
        return None
    found = _security(security, role)
    made = found.get_listen_args(role) if listens else found.get_connection_args(role)
    context = made.get("ssl_context")
    if not isinstance(context, ssl.SSLContext):
        raise InputError(f"security={security!r:.80} has no certificate for the {role}; `mlipcluster tls new DIR` does")
    return context


def _security(security: Any, role: str) -> Security:
    from distributed.security import Security

    from mlipcluster.deploy.credentials_folder import read_folder
    from mlipcluster.deploy.vetting import check

    if isinstance(security, (str, os.PathLike)):
        return read_folder(security, (role,))
    if not isinstance(security, Security):
        raise InputError(
            f"security={security!r:.80}: give a folder that `mlipcluster tls new DIR` made, or a distributed.Security"
        )
    check(security, (role,))
    return security
