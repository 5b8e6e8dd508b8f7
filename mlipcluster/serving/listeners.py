"""Where a server listens: a Unix socket in a folder of its own, and, if it is told to, at hosts' ports over TLS."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import ssl
from collections.abc import Callable
from functools import partial

from mlipcluster.errors import InputError
from mlipcluster.serving import address as addresses
from mlipcluster.serving.loop import Loop

log = logging.getLogger("mlipcluster")

#: Connections that may wait to be taken, and how many are taken at once.
BACKLOG = 512
AT_ONCE = 64


class Listeners:
    """The sockets that a server listens at.

    Parameters
    ----------
    loop : Loop
    address : path, optional
        Of the Unix socket; see `mlipcluster.serving.address`.
    meet : callable
        Gets each new connection, and the context of TLS or None; that it raises `OSError` ends the connection.

    Attributes
    ----------
    path : str
        Of the Unix socket.
    tls_addresses : list of str
        ``tls://HOST:PORT`` each.

    Raises
    ------
    InputError
        It cannot listen there.
    """

    def __init__(
        self,
        loop: Loop,
        address: str | os.PathLike[str] | None,
        meet: Callable[[socket.socket, ssl.SSLContext | None], None],
    ) -> None:
        told = addresses.parse(address)
        if not told.path:
            raise InputError(f"{told}: a server listens at a Unix socket as well; give the path of that as address")
        self.path = told.path
        self.tls_addresses: list[str] = []
        self._loop = loop
        self._meet = meet
        self._sockets: list[socket.socket] = []
        self._made = not os.path.isdir(os.path.dirname(self.path))
        self._listen(addresses.bind(self.path), None)
        self._identity = os.stat(self.path)

    def listen_tls(self, host: str, port: int, context: ssl.SSLContext) -> str:
        """Listen for others than this machine's as well. The address there, ``tls://HOST:PORT``.

        Parameters
        ----------
        host, port : str, int
            Port 0 takes a free one.
        context : ssl.SSLContext
            Whom it takes; see `mlipcluster.serving.credentials`.

        Raises
        ------
        InputError
            It cannot listen there.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as error:
            raise InputError(
                f"tls://{host}:{port} cannot be listened at: {error.strerror or error}; give a host name or address of"
                " this machine, and a port that is free (0 takes one)"
            ) from error
        self._listen(listener, context)
        self.tls_addresses.append(str(addresses.Address(host=host, port=listener.getsockname()[1])))
        return self.tls_addresses[-1]

    def close(self) -> None:
        """Listen no more; the socket's file goes, and so does its folder if that was made for it."""
        for listener in self._sockets:
            listener.close()
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(self.path), self._identity):
                os.unlink(self.path)
            if self._made:
                os.rmdir(os.path.dirname(self.path))

    def _listen(self, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        listener.setblocking(False)
        self._sockets.append(listener)
        self._loop.watch(listener, partial(self._accept, listener, context))

    def _accept(self, listener: socket.socket, context: ssl.SSLContext | None, _: int) -> None:
        for _ in range(AT_ONCE):
            try:
                sock, _ = listener.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):  # it would be told again at once, for ever
                    log.warning("no more clients can be taken for now: %s", error.strerror)
                    self._loop.pause(listener)
                return
            try:
                self._meet(sock, context)
            except OSError as error:
                log.warning("a client could not be taken: %s", error)
                sock.close()
