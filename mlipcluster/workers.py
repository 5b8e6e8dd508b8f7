"""The Dask side of a run: starts workers when they are needed, submits, gathers, closes what it started."""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from distributed import Client, Future
from distributed.scheduler import KilledWorker

from mlipcluster import transit
from mlipcluster.calls import Call, Introduction, Job
from mlipcluster.deploy import dashboard, tls
from mlipcluster.deploy.crew import Crew
from mlipcluster.deploy.deployment import Demand, Deployment, Place
from mlipcluster.errors import InputError, MLIPClusterError, RunError
from mlipcluster.protocol_process import ChunkResult, abandon, cool, introduce, run_chunk, warm
from mlipcluster.schedule import Step

SLOTS_EVERY = 2.0
"""Seconds between two looks at how many workers there are."""
LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Returned:
    """A chunk that came back: its results, or None when it was lost with its workers."""

    number: int
    result: ChunkResult | None


class Workers:
    """The workers of a run: one crew for each client or deployment.

    Parameters
    ----------
    given : sequence of distributed.Client or Deployment
        The user's own clients, which are not closed, and what is started when it is needed.
    place : callable
        ``place(number)``: what the run lends the deployment of that number (`Place`).
    security : object
        What the user said of TLS.
    """

    def __init__(
        self, given: Sequence[Client | Deployment], place: Callable[[int], Place], security: Any = None
    ) -> None:
        self._given = list(given)
        self._place = place
        self._security = security
        self._crews: list[Crew] = []
        self._places: list[Place] = []
        self._futures: dict[int, Future[Any]] = {}
        self._spent: list[Future[Any]] = []
        self._done: queue.SimpleQueue[tuple[int, Future[Any]]] = queue.SimpleQueue()
        self._looked = 0.0
        self._runs: set[str] = set()

    @property
    def count(self) -> int:
        """Number of crews, those to be started among them."""
        return len(self._given)

    @property
    def interpreters(self) -> list[str | None]:
        """Of each crew, the Python of its workers where that is known here."""
        return [one.interpreter if isinstance(one, Deployment) else None for one in self._given]

    @property
    def dashboard_links(self) -> list[str]:
        """Addresses of Dask's dashboards, each with how to see it from elsewhere if its workers are not here."""
        links = [
            (one, str(crew.client.dashboard_link or "")) for one, crew in zip(self._given, self._crews, strict=False)
        ]
        return [
            f"{link} (elsewhere after `{dashboard.tunnel(urlsplit(link).port or 0)}`)"
            if isinstance(one, Deployment) and one.remote
            else link
            for one, link in links
            if link
        ]

    def start(self) -> None:
        """Start what is not there yet."""
        while len(self._crews) < len(self._given):
            one = self._given[len(self._crews)]
            if isinstance(one, Deployment):
                place = self._place(len(self._crews))
                self._places.append(place)
                place = replace(place, security=tls.choose(self._security, place, remote=one.remote))
                self._crews.append(one.start(place))
            else:
                self._crews.append(Crew(one))

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
            one = self._given[step.client]
            workers = [dict(one.offers())] if isinstance(one, Deployment) else Crew(one).resources()
            if workers and not any(all(w.get(k, 0) >= v for k, v in step.resources.items()) for w in workers):
                raise InputError(
                    f"resources={dict(step.resources)!r}: no worker has them. Start workers that do, e.g. "
                    "`dask worker … --resources GPU=1`, and hand in their client=, or leave resources out."
                )

    def slots(self) -> list[int]:
        """For each crew, how many protocols its workers can run at once, or one while there are none."""
        self.start()
        return [max(1, crew.slots()) for crew in self._crews]

    def slots_if_due(self) -> list[int] | None:
        """The same, every few seconds; None in between."""
        if time.monotonic() - self._looked < SLOTS_EVERY:
            return None
        self._looked = time.monotonic()
        return self.slots()

    def want(self, demands: Sequence[Demand]) -> None:
        """Tell each crew how much work there is for it."""
        for crew, demand in zip(self._crews, demands, strict=False):
            crew.want(demand)

    @property
    def waiting(self) -> str:
        """What is waited for, as one line for people."""
        return "; ".join(filter(None, (crew.waiting() for crew in self._crews)))

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
        self._crews[step.client].want(Demand(math.inf if needed is None else needed))
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

    @property
    def _clients(self) -> list[Client]:
        return [crew.client for crew in self._crews]

    def _look_after(self) -> None:
        for crew in self._crews:
            crew.look_after()

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
        futures, self._futures = list(self._futures.values()), {}
        crews, self._crews = self._crews, []
        places, self._places = self._places, []
        with contextlib.ExitStack() as stack:  # whatever one of them raises, the others are closed too
            for place in places:
                stack.callback(tls.remove_private, place)
            for crew in crews:
                stack.callback(crew.close)
                if not crew.own:
                    with contextlib.suppress(Exception):  # they may be what went wrong
                        if abort:
                            crew.client.cancel(futures, force=True)
                        for run in self._runs:
                            crew.client.run(abandon, run, on_error="ignore")


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
