"""The Dask side of a run: starts workers when they are needed, submits, gathers, closes what it started."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from distributed import Client, Future
from distributed.scheduler import KilledWorker

from mlipcluster import transit
from mlipcluster.calls import Call, Introduction, Job
from mlipcluster.checkpoint import HOME_SECONDS
from mlipcluster.deploy import dashboard, tls
from mlipcluster.deploy.arrivals import Arrivals, Terms
from mlipcluster.deploy.crew import Crew, address_of
from mlipcluster.deploy.deployment import Demand, Deployment, Place
from mlipcluster.deploy.given import Given
from mlipcluster.deploy.local import Local
from mlipcluster.errors import InputError, MLIPClusterError, RunError
from mlipcluster.protocol_process import SECONDS, ChunkResult, abandon, cool, introduce, run_chunk, warm
from mlipcluster.saves import Running, hand_over
from mlipcluster.schedule import Step

log = logging.getLogger("mlipcluster")

SLOTS_EVERY = 2.0
"""Seconds between two looks at how many workers there are."""
LOOK_SECONDS = 1.0
FETCH_SECONDS = 30.0
"""How long a result may take on its way before it is looked whether it is still there."""
ASKED_SECONDS = 2.0
"""How long the end of a run waits for workers that were asked something."""
LIFE_SHARE = 0.9
"""A call that needs a worker for as long as one lives goes to one that has this share of its life before it."""
NO_TERMS = Terms()


@dataclass(frozen=True)
class Returned:
    """A chunk that came back: its results, or None when it was lost with its workers.

    Attributes
    ----------
    number : int
    result : ChunkResult or None
    blameless : bool
        When it was lost: whether its last worker ended for reasons of its own.
    """

    number: int
    result: ChunkResult | None
    blameless: bool = False


class _RunsAgainError(Exception):
    """A result is gone with its worker, and Dask has it made again."""


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
    terms : Terms
        What workers have to meet that somebody else started.
    """

    def __init__(
        self,
        given: Sequence[Client | Deployment],
        place: Callable[[int], Place],
        security: Any = None,
        terms: Terms = NO_TERMS,
    ) -> None:
        self._given = [one if isinstance(one, Deployment) else Given(one) for one in given]
        self._place = place
        self._security = security
        self._terms = terms
        self._crews: list[Crew] = []
        self._places: list[Place] = []
        self._arrivals: list[Arrivals] = []
        self._notes: list[str] = []
        self._waiting = ""
        self._dashboards: list[str] = []
        self._futures: dict[int, Future[Any]] = {}
        self._spent: list[Future[Any]] = []
        self._done: queue.SimpleQueue[tuple[int, Future[Any]]] = queue.SimpleQueue()
        self._looked = 0.0
        self._runs: set[str] = set()
        self._lives: dict[int, float] = {}
        self._clients_of: dict[int, int] = {}
        self._asker: threading.Thread | None = None
        self._told: queue.SimpleQueue[tuple[float, Running]] = queue.SimpleQueue()

    @property
    def count(self) -> int:
        """Number of crews, those to be started among them."""
        return len(self._given)

    @property
    def here(self) -> bool:
        """Whether all run in this process's Python, as it is on this machine."""
        return all(isinstance(one, Local) for one in self._given)

    @property
    def interpreters(self) -> list[str | None]:
        """Of each crew, the Python of its workers where that is known here."""
        return [one.interpreter for one in self._given]

    @property
    def dashboard_links(self) -> list[str]:
        """Addresses of Dask's dashboards, each with how to see it from elsewhere if its workers are not here."""
        return self._dashboards

    def _dashboard(self, number: int) -> str:
        """Of a crew's scheduler, which is asked for it; ``""`` if it has none."""
        link = str(self._crews[number].client.dashboard_link or "")
        if not link or not self._given[number].remote:
            return link
        return f"{link} (elsewhere after `{dashboard.tunnel(urlsplit(link).port or 0)}`)"

    def start(self) -> None:
        """Start what is not there yet."""
        while len(self._crews) < len(self._given):
            one = self._given[len(self._crews)]
            place = self._place(len(self._crews))
            self._places.append(place)
            security = tls.choose(self._security, place, remote=one.remote, roles=one.roles)
            crew = one.start(replace(place, security=security))
            self._crews.append(crew)
            if crew.found:
                self._note(crew.found)
            if link := self._dashboard(len(self._crews) - 1):
                self._dashboards.append(link)
            if not crew.checked:
                self._arrivals.append(Arrivals(crew.client, self._terms))

    def meet(self) -> None:
        """Hold workers that somebody else started, and that are new, against this process.

        Raises
        ------
        MismatchError
            One cannot be worked with.
        """
        for arrivals in self._arrivals:
            for difference in arrivals.look():
                self._note(f"Workers differ from this process, as is recorded: {difference}")

    def _note(self, text: str) -> None:
        log.info(text)
        self._notes.append(text)

    def take_notes(self) -> list[str]:
        """What there is to say since it was last asked: of workers that differ, of jobs that were found."""
        notes, self._notes = self._notes, []
        return notes

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
            workers = self._given[step.client].resources()
            if workers and not any(all(w.get(k, 0) >= v for k, v in step.resources.items()) for w in workers):
                raise InputError(
                    f"resources={dict(step.resources)!r}: no worker has them. Start workers that do, e.g. "
                    "`dask worker … --resources GPU=1`, and hand in their client=, or leave resources out."
                )

    def slots(self) -> list[int]:
        """For each crew, how many protocols its workers can run at once, or one while there are none.

        Nothing is started for this: perhaps there is nothing to do.
        """
        for number in self.timed:
            lives = [worker[SECONDS] for worker in self._crews[number].resources() if SECONDS in worker]
            self._lives[number] = max([self._lives.get(number, 0.0), *lives])
        here = [max(1, crew.slots()) for crew in self._crews]
        return here + [1] * (len(self._given) - len(here))

    @property
    def timed(self) -> list[int]:
        """Numbers of the crews whose workers say how long they will be there."""
        return [number for number, crew in enumerate(self._crews) if crew.timed]

    def life(self, client: int) -> float:
        """The longest that any worker of a crew was seen to have before it, s; ``inf`` where nobody says."""
        return self._lives.get(client, 0.0) or math.inf

    def affordable(self, client: int, seconds: float) -> float:
        """What to ask of a crew's workers for a call that needs one for so many seconds.

        No more than a fresh one has; 0 where workers do not say how long they will be there, or none was seen yet.
        """
        if client not in self.timed or client not in self._lives:
            return 0.0
        return min(max(seconds, HOME_SECONDS), LIFE_SHARE * self._lives[client])

    def slots_if_due(self) -> list[int] | None:
        """The same, every few seconds; None in between."""
        if time.monotonic() - self._looked < SLOTS_EVERY:
            return None
        self._looked = time.monotonic()
        self.start()
        with self._connected():
            self.meet()
            self._look_what_is_waited_for()
            return self.slots()

    def want(self, demands: Sequence[Demand]) -> None:
        """Tell each crew how much work there is for it."""
        for crew, demand in zip(self._crews, demands, strict=False):
            crew.want(demand)

    @property
    def waiting(self) -> str:
        """What is waited for, as one line for people, as it was when it was last looked at."""
        return self._waiting

    def _look_what_is_waited_for(self) -> None:
        self._waiting = "; ".join(dict.fromkeys(filter(None, (crew.waiting() for crew in self._crews))))

    def introduce(
        self, job: Job, step: Step, needed: int | None = None, tell: Callable[[str], None] = lambda _: None
    ) -> Introduction:
        """Have a worker that *step* may be sent to start the calculators and tell what they are.

        Nothing that is warm answers: it may have loaded weights or code that have changed since. Meanwhile the others
        start the processes that protocols will run in.

        Parameters
        ----------
        needed : int, optional
            At most so many of each client's workers: there are no more tasks than that.
        tell : callable
            Gets, every second or so, what is waited for meanwhile.
        """
        self.start()
        self._runs.add(job.run)
        with self._connected():
            self.meet()
            self._crews[step.client].want(Demand(math.inf if needed is None else needed))
            for client in self._clients:
                client.run(cool, on_error="ignore")
                if workers := list(client.nthreads())[:needed]:
                    client.run(warm, job, workers=workers, on_error="ignore")
            client = self._clients[step.client]
            future = client.submit(introduce, job, resources=dict(step.resources) or None, pure=False)
            while True:
                done = threading.Event()
                future.add_done_callback(lambda _, done=done: done.set())
                while not done.wait(LOOK_SECONDS):
                    self._look_after()
                    self.meet()
                    self._look_what_is_waited_for()
                    tell(self._waiting)
                with contextlib.suppress(_RunsAgainError):
                    answer: Introduction = self._result(future)
                    return answer

    def submit(self, number: int, name: str, step: Step, priority: int, job: Job, calls: tuple[Call, ...]) -> None:
        """Send a chunk on its way, to a worker that will be there for as long as its calls need one."""
        self.start()
        self._runs.add(job.run)
        resources = dict(step.resources)
        if expected := self.affordable(step.client, sum(call.needs for call in calls)):
            resources[SECONDS] = expected
        with self._connected():
            future = self._clients[step.client].submit(
                run_chunk,
                job,
                transit.pack(calls),
                key=f"{name}-{job.run}-{number}",
                priority=priority,
                resources=resources or None,
                pure=False,
            )
        self._clients_of[number] = step.client
        self._await(number, future)

    def _await(self, number: int, future: Future[Any]) -> None:
        self._futures[number] = future
        future.add_done_callback(lambda future: self._done.put((number, future)))

    def ask(self, run: str, known: Mapping[str, int]) -> None:
        """Ask all workers, without waiting, what they run and what that saved; `told` gives what they answer.

        Parameters
        ----------
        known : mapping of str to int
            Number of the newest save that is known of each call.
        """
        if self._asker is None or not self._asker.is_alive():
            self._asker = threading.Thread(target=self._ask, args=(list(self._clients), run, dict(known)), daemon=True)
            self._asker.start()

    def _ask(self, clients: list[Client], run: str, known: dict[str, int]) -> None:
        for client in clients:
            asked = time.monotonic()
            with contextlib.suppress(Exception):  # what is wrong with it is told by those who wait for it
                for answer in client.run(hand_over, run, known, on_error="ignore").values():
                    for running in answer:
                        self._told.put((asked, running))

    def told(self) -> Iterator[tuple[float, Running]]:
        """What workers have answered since, each with when it was asked (monotonic, s)."""
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._told.get_nowait()

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
                    del self._futures[number]
                    try:
                        returned = self._returned(number, future)
                    except _RunsAgainError:
                        self._await(number, future)
                        continue
                    self._spent.append(future)
                    yield returned

    def _returned(self, number: int, future: Future[Any]) -> Returned:
        crew = self._crews[self._clients_of[number]]
        blameless = False
        try:
            result = self._result(future)
        except KilledWorker as killed:
            result, worker = None, killed.last_worker
            blameless = crew.is_blameless(worker.address) or crew.is_blameless(str(worker.name))
        del self._clients_of[number]
        return Returned(number, result, blameless)

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
        if self._asker is not None:
            self._asker.join(ASKED_SECONDS)
        crews, self._crews, self._arrivals, self._dashboards = self._crews, [], [], []
        places, self._places = self._places, []
        with contextlib.ExitStack() as stack:  # whatever one of them raises, the others are closed too
            for place in places:
                stack.callback(tls.remove_private, place)
            for crew in crews:
                stack.callback(crew.close)
                if not crew.own and crew.client.status == "running":
                    with contextlib.suppress(Exception):  # they may be what went wrong
                        if abort:
                            crew.client.cancel(futures, force=True)
                        for run in self._runs:
                            crew.client.run(abandon, run, on_error="ignore")

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        """Talk to the schedulers only while all are there; of one that was lost, what it was given is lost, too.

        Dask's client tries for a while to find it again, and whatever is asked of it meanwhile waits.
        """
        self._check_connected()
        try:
            yield
        except OSError as error:
            raise RunError(_lost(self._clients)) from error

    def _check_connected(self) -> None:
        gone = [client for client in self._clients if client.status != "running"]
        if gone:
            raise RunError(_lost(gone))

    def _result(self, future: Future[Any]) -> Any:
        """What a task gave, which its worker has until it is fetched.

        Raises
        ------
        _RunsAgainError
            The worker ended before that; Dask has the task run again.
        """
        seconds = FETCH_SECONDS
        try:
            while True:
                try:
                    return future.result(timeout=seconds)
                except (TimeoutError, asyncio.TimeoutError):
                    if future.status == "error":  # it is the task's own
                        raise
                self._look_after()
                if not future.done():
                    raise _RunsAgainError
                seconds *= 2  # it may be large, and the way slow
        except (KilledWorker, MLIPClusterError, _RunsAgainError):
            raise
        except Exception as error:  # calls keep their own exceptions to themselves: this is Dask's or the network's
            self._check_connected()
            self.meet()  # a worker that came a moment ago may be what is wrong
            raise RunError(
                f"the workers failed ({type(error).__name__}: {error}). All that is finished "
                "is saved; see the log of the workers, then run the same again to go on."
            ) from error


def _lost(clients: Sequence[Client]) -> str:
    where = " and ".join(map(address_of, clients))
    return (
        f"{where}, or the way there, is gone. All that is finished is saved. See why it ended, start it and its "
        "workers if they are yours, then run the same again to go on."
    )
