"""The Dask side of a run: starts workers when they are needed, submits, gathers, closes what it started."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import Client, Future, SpecCluster
from distributed.scheduler import KilledWorker

from mlipcluster import transit
from mlipcluster.calls import Call, Introduction, Job
from mlipcluster.deploy.local import Local
from mlipcluster.errors import InputError, MLIPClusterError, RunError
from mlipcluster.options import Compute
from mlipcluster.protocol_process import ChunkResult, abandon, cool, introduce, run_chunk, warm
from mlipcluster.schedule import Step

SLOTS_EVERY = 2.0
"""Seconds between two looks at how many workers there are."""
LOOK_SECONDS = 1.0
TAIL = 2000


@dataclass(frozen=True)
class Returned:
    """A chunk that came back: its results, or None when it was lost with its workers."""

    number: int
    result: ChunkResult | None


class Workers:
    """The workers of a run, behind the user's clients or started here.

    Parameters
    ----------
    compute : Compute
        How workers are started when no client is given.
    clients : sequence of distributed.Client
        The user's own; they are not closed.
    log : pathlib.Path, optional
        File for the words of workers that are started here.
    """

    def __init__(self, compute: Compute, clients: Sequence[Client], log: Path | None) -> None:
        for client in clients:
            if not isinstance(client, Client):
                raise InputError(f"client={client!r}: give a distributed.Client, e.g. Client({client!r}).")
        self._compute = compute
        self._own = not clients
        self._clients = list(clients)
        self._log = log
        self._cluster: SpecCluster | None = None
        self._futures: dict[int, Future[Any]] = {}
        self._spent: list[Future[Any]] = []
        self._done: queue.SimpleQueue[tuple[int, Future[Any]]] = queue.SimpleQueue()
        self._looked = 0.0
        self._runs: set[str] = set()

    @property
    def count(self) -> int:
        """Number of clients, those to be started among them."""
        return max(1, len(self._clients))

    @property
    def own(self) -> bool:
        """Whether the workers are, or will be, started here."""
        return self._own

    @property
    def started(self) -> bool:
        """Whether there is a client yet."""
        return bool(self._clients)

    @property
    def dashboard_link(self) -> str:
        """Address of Dask's dashboard, or ``""``."""
        return str(self._clients[0].dashboard_link or "") if self._clients else ""

    def start(self) -> None:
        """Start workers, unless the user's own are there."""
        if self._clients:
            return
        local = Local(
            workers=self._compute.workers,
            minimum=self._compute.min_workers,
            threads=self._compute.cores,
            dashboard_address=self._compute.dashboard_address,
            security=self._compute.security,
            log=self._log,
        )
        self._cluster = local.start()
        self._clients = [Client(self._cluster, set_as_default=False)]

    def check_resources(self, steps: Sequence[Step]) -> None:
        """Refuse resources that no worker has: Dask would wait for such a worker for ever.

        Raises
        ------
        InputError
            No worker has what a protocol asks for.
        """
        for step in steps:
            if not step.resources:
                continue
            workers = [{}] if self._own else _resources(self._clients[step.client])
            if workers and not any(all(w.get(k, 0) >= v for k, v in step.resources.items()) for w in workers):
                raise InputError(
                    f"resources={dict(step.resources)!r}: no worker has them. Start workers that do, e.g. "
                    "`dask worker … --resources GPU=1`, and hand in their client=, or leave resources out."
                )

    def slots(self) -> list[int]:
        """For each client, how many protocols its workers can run at once."""
        if self._own:
            return [self._compute.workers]
        return [max(1, sum(client.nthreads().values())) for client in self._clients]

    def slots_if_due(self) -> list[int] | None:
        """The same, every few seconds; None in between."""
        if self._own or time.monotonic() - self._looked < SLOTS_EVERY:
            return None
        self._looked = time.monotonic()
        return self.slots()

    def introduce(self, job: Job, step: Step, needed: int | None = None) -> Introduction:
        """Have a worker that *step* may be sent to start the calculators and tell what they are.

        Nothing that is warm answers: it may have loaded weights or code that have changed since. Meanwhile the others
        start the processes that protocols will run in.

        Parameters
        ----------
        needed : int, optional
            At most so many of each client's workers: there are no more tasks than that.
        """
        self.start()
        self._runs.add(job.run)
        for client in self._clients:
            client.run(cool, on_error="ignore")
            if workers := list(client.nthreads())[:needed]:
                client.run(warm, job, workers=workers, on_error="ignore")
        future = self._clients[step.client].submit(introduce, job, resources=dict(step.resources) or None, pure=False)
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        while not done.wait(LOOK_SECONDS):
            self._look_after()
        answer: Introduction = _result(future)
        return answer

    def submit(self, number: int, name: str, step: Step, priority: int, job: Job, calls: tuple[Call, ...]) -> None:
        """Send a chunk on its way."""
        self.start()
        self._runs.add(job.run)
        future = self._clients[step.client].submit(
            run_chunk,
            job,
            transit.pack(calls),
            key=f"{name}-{job.run}-{number}",
            priority=priority,
            resources=dict(step.resources) or None,
            pure=False,
        )
        self._futures[number] = future
        future.add_done_callback(lambda future: self._done.put((number, future)))

    def wait(self, timeout: float) -> Iterator[Returned]:
        """Give the chunks that have come back, after waiting for the first at most *timeout* seconds.

        Raises
        ------
        RunError
            The workers could not run a chunk at all, or the scheduler is gone.
        """
        self._forget_spent()
        if self._done.empty():
            self._look_after()
        with contextlib.suppress(queue.Empty):
            block = True
            while True:
                number, future = self._done.get(timeout=timeout) if block else self._done.get_nowait()
                block = False
                if self._futures.get(number) is future:  # not one of a run that was broken off before
                    self._spent.append(self._futures.pop(number))
                    yield Returned(number, _gathered(future))

    def _look_after(self) -> None:
        """See that workers that were started here still can be: without any, Dask would wait for ever."""
        started = list(self._cluster.workers.values()) if self._cluster is not None else []
        if started and all(worker.gave_up for worker in started):
            raise RunError(
                f"the workers end soon after each start; their last words:\n{_tail(self._log)}\nMend that, then run "
                "the same again; all that is finished is saved."
            )

    def _forget_spent(self) -> None:
        """Let go of the futures of chunks that were handed on, in Dask's thread.

        Letting go of one takes its destructor a moment, in which Python would drop the exception of a Ctrl-C.
        """
        spent, self._spent = self._spent, []
        if spent and (loop := self._clients[0].loop) is not None:
            loop.add_callback(spent.clear)

    def close(self, *, abort: bool = False) -> None:
        """Close what was started here; leave the user's own workers clean.

        Parameters
        ----------
        abort : bool
            End what is still running, instead of letting it finish.
        """
        if self._own:
            self._futures.clear()
            clients, cluster, self._clients, self._cluster = self._clients, self._cluster, [], None
            with contextlib.ExitStack() as stack:  # whatever one of them raises, the other is closed too
                # On a busy machine they may take longer than that; the workers end with this process at the latest.
                stack.enter_context(contextlib.suppress(TimeoutError))
                if cluster is not None:
                    stack.callback(cluster.close, timeout=10)
                for client in clients:
                    stack.callback(client.close, timeout=2)
            return
        for client in self._clients:
            with contextlib.suppress(Exception):  # they may be what went wrong
                if abort:
                    client.cancel(list(self._futures.values()), force=True)
                for run in self._runs:
                    client.run(abandon, run, on_error="ignore")
        self._futures.clear()


def _tail(log: Path | None) -> str:
    try:
        return log.read_text(errors="replace")[-TAIL:].strip() if log is not None else ""
    except OSError:
        return ""


def _resources(client: Client) -> list[dict[str, float]]:
    """What each worker of a client has; empty while there are no workers."""
    return [worker["resources"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()]


def _gathered(future: Future[Any]) -> ChunkResult | None:
    try:
        result: ChunkResult = _result(future)
    except KilledWorker:
        return None
    return result


def _result(future: Future[Any]) -> Any:
    try:
        return future.result()
    except (KilledWorker, MLIPClusterError):
        raise
    except Exception as error:  # calls keep their own exceptions to themselves: this is Dask's or the network's
        raise RunError(
            f"the workers failed ({type(error).__name__}: {error}). All that is finished "
            "is saved; see the log of the workers, then run the same again to go on."
        ) from error
