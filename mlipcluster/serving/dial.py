"""A connection to a server of calculators: over its Unix socket, or over TLS."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import Any

from mlipcluster.calculators.connection import Connection, ConnectionLostError
from mlipcluster.errors import InputError, ServerGoneError
from mlipcluster.serving import address as addresses
from mlipcluster.serving.address import Address
from mlipcluster.serving.stream import prepare_far
from mlipcluster.socket_worker import wire

#: How long a server may take to be reached, and to greet.
HELLO_SECONDS = 20.0


class TlsConnection(Connection):
    """A connection over TLS, which takes one buffer at a time."""

    def _send(self, buffers: list[Any], deadline: float | None) -> None:
        if self.closed:
            raise ConnectionLostError("closed")
        self._wait_until(deadline)
        self.socket.sendall(b"".join(buffers))

    def exchange(self, head: bytearray, body: Sequence[Any], timeout: float | None = None) -> wire.Message:
        """As that of every connection; that TLS was refused or broken is its loss."""
        try:
            return super().exchange(head, body, timeout)
        except TimeoutError:
            raise
        except OSError as error:
            raise ConnectionLostError(str(error) or type(error).__name__) from error


def dial(address: Address, context: ssl.SSLContext | None = None, timeout: float = HELLO_SECONDS) -> Connection:
    """A new connection to a server.

    Raises
    ------
    ServerGoneError
        None answers within *timeout* seconds, or not to these credentials.
    InputError
        Credentials are needed.
    """
    if address.path:
        sock = addresses.connect(address.path, timeout, queue_seconds=timeout)
        sock.settimeout(None)
        return Connection(sock)
    if context is None:
        raise InputError(
            f"{address} needs credentials; give security=, or serve.tls in the settings: a folder that"
            " `mlipcluster tls new` made"
        )
    far: socket.socket | None = None
    try:
        far = socket.create_connection((address.host, address.port), timeout=timeout)
        prepare_far(far)
        wrapped = context.wrap_socket(far, server_hostname=address.host if context.check_hostname else None)
        wrapped.settimeout(None)
    except (OSError, ValueError) as error:
        if far is not None:
            far.close()
        raise ServerGoneError(
            f"no server answers at {address} to these credentials ({error}); see that one runs there with"
            " --listen tls://…, and that both have credentials of the same authority"
        ) from error
    return TlsConnection(wrapped)
