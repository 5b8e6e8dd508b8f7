"""Workers of a server on other machines: Dask workers, which a deployment starts for them, host the calculators."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from distributed import Future
from distributed.scheduler import KilledWorker

from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.deploy import tls
from mlipcluster.deploy.deployment import Demand, Deployment, Place
from mlipcluster.errors import InputError, MLIPClusterError
from mlipcluster.serving.credentials import server_context
from mlipcluster.serving.far import host_calculator

if TYPE_CHECKING:
    from mlipcluster.serving.server import Server

log = logging.getLogger("mlipcluster")

#: Dask workers in a row that may end over the start of a calculator.
MAX_VANISHED = 3


class Nodes:
    """Where a server's workers run, when that is not this machine.

    Used in the server's own thread alone, but for :meth:`open` and :meth:`close`.

    Parameters
    ----------
    deployment : Deployment
        Starts Dask workers, as many as there are calculators to host.
    folder : path
        For logs, jobs and, while it runs, keys; nodes have to see it. What is made is removed at the end.
    security : object
        As `mlipcluster.deploy.tls.choose` takes it. Without TLS nothing is served to other machines.
    """

    def __init__(self, deployment: Deployment, folder: str | os.PathLike[str], security: Any = None) -> None:
        if security is False:
            raise InputError("security=False: requests of other machines travel over TLS alone; leave security out")
        self._deployment = deployment
        self._folder = Path(folder).absolute()
        self._made = not self._folder.exists()
        token = secrets.token_hex(6)
        private = self._folder / "private" / "0"
        self._place = Place(token, 0, self._folder / "logs", private, self._folder / "jobs.jsonl")
        self._security = security
        self._futures: dict[int, Future[Any]] = {}
        self._failed = False
        self._vanished: dict[str, int] = {}

    def open(self, server: Server) -> None:
        """Start the deployment, and have the server listen where its workers reach it.

        Raises
        ------
        MLIPClusterError
            It does not start.
        """
        one = self._deployment
        security = tls.choose(True if self._security is None else self._security, self._place, remote=True)
        context = server_context(security)
        assert context is not None  # `choose` gives credentials where it is not told otherwise
        self._folder.mkdir(parents=True, exist_ok=True)
        self._crew = one.start(replace(self._place, security=security))
        try:
            scheduler = self._crew.client.scheduler
            host = urlsplit(str(scheduler.address)).hostname if scheduler is not None else None
            self._address = server.listeners.listen_tls(str(host or "127.0.0.1"), 0, context)
        except BaseException:
            self._crew.close()
            raise
        self._server = server

    def start(self, worker: int, name: str, spec: CalculatorSpec) -> None:
        """Have a Dask worker host a calculator, which joins the server then."""
        token = secrets.token_urlsafe(24)
        self._server.starters.tokens[token] = worker
        told = spec.replace(startup_timeout=self._server.options.start_timeout).to_json()
        future = self._crew.client.submit(
            host_calculator, told, name, self._address, token, pure=False, key=f"serve-{name}-{worker}"
        )
        self._futures[worker] = future
        future.add_done_callback(lambda done: self._server.loop.post(lambda: self._ended(worker, name, token, done)))
        self._want()

    def tick(self) -> str:
        """Look after the deployment; what is waited for, for people."""
        self._want()
        try:
            self._crew.look_after()
        except MLIPClusterError as error:
            self._failed = True
            for worker in list(self._futures):
                if self._server.dispatch.is_starting(worker):
                    self._server.start_failed(worker, "CalculatorStartError", str(error))
        return self._crew.waiting() if self._futures else ""

    def cancel(self) -> None:
        """Give up all starts: a job may have to wait for hours."""
        for worker in self._futures:
            if self._server.dispatch.is_starting(worker):
                self._server.vanished(worker)

    def close(self) -> None:
        """End all workers and what started them, and remove what was made."""
        self._crew.close()
        shutil.rmtree(self._folder / "private", ignore_errors=True)
        if self._made and not self._failed:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _want(self) -> None:
        self._crew.want(Demand(len(self._futures)))

    def arrived(self, name: str) -> None:
        """A worker of a calculator has joined."""
        self._vanished.pop(name, None)

    def _ended(self, worker: int, name: str, token: str, future: Future[Any]) -> None:
        """A Dask worker hosts a calculator no more."""
        self._futures.pop(worker, None)
        self._server.starters.tokens.pop(token, None)
        self._want()
        error = future.exception() if future.status == "error" else None
        future.release()
        if not self._server.dispatch.is_starting(worker):
            return  # its connection tells how it went
        if error is None or isinstance(error, KilledWorker):
            self._vanish(worker, name)
        else:
            self._failed = True
            said = str(error) if isinstance(error, MLIPClusterError) else f"{type(error).__name__}: {error}"
            self._server.start_failed(worker, "CalculatorStartError", said)

    def _vanish(self, worker: int, name: str) -> None:
        """It is gone with its node before it joined: what waits for it asks for another, but not for ever."""
        count = self._vanished[name] = self._vanished.get(name, 0) + 1
        if count < MAX_VANISHED:
            self._server.vanished(worker)
            return
        del self._vanished[name]
        self._failed = True
        self._server.start_failed(
            worker,
            "CalculatorStartError",
            f"calculator {name!r}: {count} Dask workers in a row ended while they started it, as those do that need"
            f" more memory than they have; see the logs in {self._place.logs}",
        )
