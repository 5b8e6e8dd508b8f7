"""Dask's dashboard: on this machine's own address alone, for it asks nobody who they are."""

from __future__ import annotations

import getpass
import ipaddress
import socket
from contextlib import AbstractContextManager
from typing import Any

import dask

from mlipcluster.errors import InputError

LOOPBACK = "127.0.0.1"
_ORIGINS = "distributed.scheduler.dashboard.bokeh-application.allow_websocket_origin"
_OPEN = ["*"]
_OWN: list[str] = []
"""Means to Bokeh: only the dashboard's own pages, under ``localhost`` and its own port, may ask it for data."""


def loopback(address: Any) -> str:
    """Where the dashboard is to listen, with this machine's own address where none was said.

    Parameters
    ----------
    address : str or int
        ``"127.0.0.1:8787"``, ``":8787"`` or ``8787``; port 0: any that is free.

    Raises
    ------
    InputError
        It is no address, or one that other machines reach.
    """
    host, _, port = str(address).rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise InputError(f"dashboard_address={address!r:.80}: give {LOOPBACK}:PORT, with 0 for any port that is free.")
    if host in ("", "localhost") or _is_loopback(host):
        return f"{host or LOOPBACK}:{port}"
    raise InputError(
        f"dashboard_address={address!r:.80} could be seen by other machines, and Dask's dashboard asks nobody who they "
        f"are. Give {LOOPBACK}:{port}; from another machine it is reached with `{tunnel(int(port) or 8787)}`."
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def closed_to_strangers() -> AbstractContextManager[object]:
    """A scheduler made inside has a dashboard that pages of other origins cannot ask; the user's own setting stands."""
    open_to_all = dask.config.get(_ORIGINS, _OPEN) == _OPEN
    return dask.config.set({_ORIGINS: _OWN} if open_to_all else {})


def link(port: int) -> str:
    """Where to look, on this machine or at the near end of a `tunnel`: the one name that is not a stranger's."""
    return f"http://localhost:{port}/status"


def tunnel(port: int) -> str:
    """The command that makes the dashboard visible on another machine of the user's."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in some containers
        user = "USER"
    return f"ssh -L {port}:{LOOPBACK}:{port} {user}@{socket.gethostname()}"
