"""What a server says of itself, asked from outside."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from mlipcluster.calculators.connection import ConnectionLostError
from mlipcluster.errors import ServerGoneError
from mlipcluster.serving import address as addresses
from mlipcluster.serving.credentials import client_context
from mlipcluster.serving.dial import HELLO_SECONDS, dial
from mlipcluster.serving.link import checked, unfit
from mlipcluster.serving.remote_calculator import RemoteCalculator
from mlipcluster.socket_worker import wire


def ask(kind: str, address: str | None = None, security: Any = None) -> dict[str, Any]:
    """The server's answer to ``"list"`` or ``"status"``.

    Parameters
    ----------
    kind : str
    address : str, optional
        Of the server; see `RemoteCalculator`.
    security : path or distributed.Security, optional
        Credentials for ``tls://``.

    Raises
    ------
    ServerGoneError
        No server answers.
    InputError
        What answers is no server of ours.
    """
    where = addresses.parse(address)
    connection = dial(where, None if where.path else client_context(security))
    try:
        message = checked(connection.request({"kind": kind}, timeout=HELLO_SECONDS), kind)
        return {name: value for name, value in message.header.items() if name != "kind"}
    except (ConnectionLostError, TimeoutError) as error:
        raise ServerGoneError(f"the server at {where} does not answer ({error}); is it about to end?") from error
    except wire.FrameError as error:
        raise unfit(where, error) from error
    finally:
        connection.close()


class Served(Mapping[str, RemoteCalculator]):
    """The calculators that a server has, by name: ``list(Served())``, ``"emt" in Served()``, ``Served()["emt"]``.

    Parameters
    ----------
    address, **options
        As `RemoteCalculator` takes them.
    """

    def __init__(self, address: str | os.PathLike[str] | None = None, **options: Any) -> None:
        self._address = None if address is None else os.fspath(address)
        self._options = options

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __getitem__(self, name: str) -> RemoteCalculator:
        if name not in self._names():
            raise KeyError(name)
        return RemoteCalculator(name, self._address, **self._options)

    def __repr__(self) -> str:
        return f"Served({str(addresses.parse(self._address))!r})"

    def _names(self) -> list[str]:
        told = ask("list", self._address, self._options.get("security"))
        return [one["name"] for one in told["calculators"]]
