"""What ``mlipcluster serve`` does: brings together all that it was told, and runs a server until a signal ends it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from mlipcluster.calculators.known import Known, known
from mlipcluster.calculators.registry import resolve
from mlipcluster.errors import InputError
from mlipcluster.serving import address as addresses
from mlipcluster.serving.credentials import server_context
from mlipcluster.serving.offer import Offer
from mlipcluster.serving.server import Options, Server
from mlipcluster.settings.values import setting

if TYPE_CHECKING:
    from mlipcluster.serving.nodes import Nodes

FOLDER = "mlipcluster-serve"
LOCAL = "local"


@dataclass(frozen=True)
class Asked:
    """What to serve, and how; None is what the settings say.

    Attributes
    ----------
    names : sequence of str
        These calculators alone; otherwise all that are known.
    tables : sequence of str
        ``FILE.py:NAME``; see `mlipcluster.calculators.known`.
    root : str, optional
        A root of environments.
    cluster : str, optional
        Whose workers host the calculators, and whose root it is; ``"local"``: this machine's.
    address : str, optional
        Path of the Unix socket.
    listen : str, optional
        ``tls://HOST:PORT``, for other machines.
    tls : str, optional
        Folder of credentials.
    folder : str, optional
        For logs and jobs where *cluster* has jobs.
    max_workers, idle_timeout, start_timeout : int, float, float, optional
        See `Options`.
    """

    names: Sequence[str] = ()
    tables: Sequence[str] = ()
    root: str | None = None
    cluster: str | None = None
    address: str | None = None
    listen: str | None = None
    tls: str | None = None
    folder: str | None = None
    max_workers: int | None = None
    idle_timeout: float | None = None
    start_timeout: float | None = None


def serve(asked: Asked, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; a second one does not wait for what runs.

    Parameters
    ----------
    asked : Asked
    say : callable
        Gets a line for people.

    Raises
    ------
    MLIPClusterError
        It cannot be served so; nothing was started.
    """
    with contextlib.ExitStack() as stack:
        server = prepare(asked)
        stack.enter_context(_signals(server, say))
        say(f"serving {', '.join(server.offer.names())} at {server.address}")
        for one in server.listeners.tls_addresses:
            say(f"and at {one}, for other machines")
        say(f"use: RemoteCalculator({next(iter(server.offer.names()), 'NAME')!r}{_address(server)}); end: Ctrl-C")
        server.run()
        say("ended; nothing is left")


def prepare(asked: Asked) -> Server:
    """The server that is asked for, which listens already, and is to be run."""
    cluster = None if asked.cluster == LOCAL else asked.cluster
    nodes = None if cluster is None else _nodes(cluster, asked)
    server = Server(offer(asked, cluster), asked.address, _options(asked), nodes)
    if asked.listen is not None:
        try:
            _listen(server, asked.listen, asked.tls)
        except BaseException:
            server.close()
            raise
    return server


def _nodes(cluster: str, asked: Asked) -> Nodes | None:
    """What hosts calculators where the cluster's workers are elsewhere."""
    from mlipcluster.clusters import configured  # imports Dask, which a server of this machine does without
    from mlipcluster.deploy.local import Local
    from mlipcluster.serving.nodes import Nodes

    deployment = configured(cluster)
    if deployment is None or isinstance(deployment, Local):
        return None
    return Nodes(deployment, asked.folder or FOLDER, None if asked.tls is None else Path(asked.tls).expanduser())


def _where(root: str | None, cluster: str | None) -> dict[str, Any]:
    """Where model strings are looked up: a cluster may have a root, and does not need one."""
    if cluster is None:
        return {"root": root}
    from mlipcluster.clusters import Clusters

    return Clusters(cluster).where(root)


def offer(asked: Asked, cluster: str | None) -> Offer:
    """What is to be served: what is known, and names that mean something all the same.

    Raises
    ------
    InputError
        A name means nothing; the message lists what is known.
    """
    tables = setting("serve.calculators", list(asked.tables) or None).value
    where = _where(asked.root, cluster)
    found = known(**where, tables=tables, names=asked.names)
    for name in asked.names:
        if name not in found:  # a model string of the root, or module:callable
            spec = resolve(name, **where)
            found[name] = Known(name, "named", spec, None)
    if not found:
        raise InputError("nothing is known that could be served; give --calculators FILE.py:NAME, or --root")
    return Offer(found, asked.names)


def _options(asked: Asked) -> Options:
    return Options(
        max_workers=setting("serve.max_workers", asked.max_workers).value,
        idle_timeout=setting("serve.idle_timeout", asked.idle_timeout).value,
        start_timeout=setting("serve.start_timeout", asked.start_timeout).value,
        max_request=setting("serve.max_request").value,
    )


def _listen(server: Server, text: str, tls: str | None) -> None:
    told = addresses.parse(text)
    if told.path:
        raise InputError(f"--listen {text!r:.80}: give tls://HOST:PORT; --address is for the Unix socket")
    context = server_context(setting("serve.tls", tls).value)
    if context is None:
        raise InputError(
            f"--listen {text} needs credentials: `mlipcluster tls new DIR`, then --tls DIR, here and there"
        )
    server.listeners.listen_tls(told.host, told.port, context)


def _address(server: Server) -> str:
    return "" if server.address == addresses.default_path() else f", {server.address!r}"


@contextlib.contextmanager
def _signals(server: Server, say: Callable[[str], None]) -> Iterator[None]:
    """The first signal ends the server in order, the second at once."""
    told: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        told.append(number)
        server.stop(now=len(told) > 1)
        if len(told) == 1:
            os.write(2, b"\n" if number == signal.SIGINT else b"")
            say("ending: what runs is finished, what waits is refused; once more to end at once")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
