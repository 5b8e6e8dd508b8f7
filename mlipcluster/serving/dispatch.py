"""Which worker gets which request, and when workers start and end: a state machine without clock, socket or process.

Events come in as calls of methods, with the time at which they happened; what is to be done comes out of them as
instructions, which the server carries out (`mlipcluster.serving.server`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mlipcluster.serving.deaths import Deaths
from mlipcluster.serving.fair_queue import Request
from mlipcluster.serving.pools import BUSY, ENDING, IDLE, STARTING, Pool, Worker

#: Seconds that requests have to have been waiting without a break before one more worker is started.
PRESSED_SECONDS = 0.2
#: Seconds that a calculator without any worker waits for the others' before one of these has to make room.
STARVED_SECONDS = 5.0
#: Seconds that a start which failed is not tried again, while other workers of the calculator are there.
RETRY_SECONDS = 10.0


@dataclass(frozen=True)
class Limits:
    """What the server was told.

    Attributes
    ----------
    max_workers : int
        At most so many workers that the server itself has started.
    idle_timeout : float
        Seconds without work after which a worker ends.
    """

    max_workers: int = 2
    idle_timeout: float = 300.0


@dataclass(frozen=True)
class Give:
    """Send a request to a worker."""

    worker: int
    request: Request


@dataclass(frozen=True)
class Start:
    """Start a worker of that number."""

    worker: int
    name: str


@dataclass(frozen=True)
class End:
    """End a worker: politely, or at once."""

    worker: int
    at_once: bool = False


@dataclass(frozen=True)
class Refuse:
    """Answer a request with an error: the name of a class of `mlipcluster.errors`, and a message."""

    request: Request
    error: str
    message: str


Instruction = Give | Start | End | Refuse


class Dispatch:
    """The state machine.

    Parameters
    ----------
    limits : Limits
    is_left_to_others : callable, optional
        Whether workers of a calculator, by its name, only come from others just now: none is started for what waits.
    """

    def __init__(self, limits: Limits, is_left_to_others: Callable[[str], bool] = lambda _: False) -> None:
        self.limits = limits
        self.pools: dict[str, Pool] = {}
        self.workers: dict[int, Worker] = {}
        self.stopping = False
        self._is_left_to_others = is_left_to_others
        self._numbers = itertools.count(1)
        self._deaths = Deaths()

    # Events

    def request(self, now: float, request: Request) -> list[Instruction]:
        """A client asks."""
        if self.stopping:
            return [Refuse(request, "ServerGoneError", "the server is about to end and takes no more work")]
        if said := self._deaths.verdict(request):
            return [Refuse(request, "WorkerDiedError", said)]
        pool = self.pool(request.name)
        pool.waiting.put(request)
        return self._advance(now, pool)

    def withdrawn(self, client: int) -> None:
        """A client has gone: nobody is told what it asked for."""
        for pool in self.pools.values():
            pool.waiting.drop(client)
        for worker in self.workers.values():
            if worker.request is not None and worker.request.client == client:
                worker.request.withdrawn = True

    def joined(self, now: float, name: str, idle_timeout: float | None = None) -> int:
        """A worker that was started by somebody else is here; the number that it has from now on."""
        timeout = self.limits.idle_timeout if idle_timeout is None else idle_timeout
        return self._add(now, name, ours=False, idle_timeout=timeout).number

    def ready(self, now: float, worker: int, call_timeout: float | None = None) -> list[Instruction]:
        """A worker takes work from now on."""
        found = self.workers[worker]
        found.call_timeout = call_timeout
        self._rest(now, found)
        if self.stopping:
            return [self._end(now, found)] if found.ours else []
        return self._advance(now)

    def answered(self, now: float, worker: int) -> list[Instruction]:
        """A worker has answered, be it with an error of its calculator."""
        found = self.workers.get(worker)
        request = None if found is None else found.request
        if found is None or request is None:
            return []
        self._deaths.survived(request)
        for one in (found, self.pool(found.name)) if request.is_calculation else ():
            one.calls += 1
            one.seconds += now - found.began
        if found.state == BUSY:
            self._rest(now, found)
        found.request = None
        if self.stopping and found.state == IDLE:
            return [self._end(now, found)] if found.ours else []
        return self._advance(now, self.pools[found.name])

    def retired(self, now: float, worker: int) -> list[Instruction]:
        """A worker wants to leave: it gets nothing new, and ends when it has answered."""
        return [self._end(now, self.workers[worker])]

    def start_failed(self, now: float, worker: int, error: str, message: str) -> list[Instruction]:
        """A worker could not be started; whoever waits for it is told, unless there are others."""
        if self.workers[worker].request is not None:  # it was here, after all
            return self.died(now, worker, message)
        pool = self.pools[self._remove(worker).name]
        if pool.here:
            pool.no_start_before = now + RETRY_SECONDS
            return self._advance(now)
        refused = [Refuse(request, error, message) for request in pool.waiting.clear()]
        return [*refused, *self._advance(now)]

    def died(self, now: float, worker: int, how: str) -> list[Instruction]:
        """A worker ended that should not have: what it worked on is tried again, until it has ended too many."""
        found = self._remove(worker)
        request, refused = found.request, []
        if request is not None:
            self._deaths.add(request, how)
            if request.withdrawn:
                pass  # counted all the same
            elif said := self._deaths.verdict(request):
                refused.append(Refuse(request, "WorkerDiedError", said))
            elif self.stopping:
                refused.append(Refuse(request, "ServerGoneError", f"its worker ended with {how}, and the server ends"))
            else:
                self.pools[found.name].waiting.put_back(request)
        return [*refused, *self._advance(now)]

    def gone(self, now: float, worker: int) -> list[Instruction]:
        """A worker has ended that was told to, or left by itself while it had nothing to do."""
        if (found := self.workers.get(worker)) is not None and found.request is not None and found.state != ENDING:
            return self.died(now, worker, "its leave")
        request = self._remove(worker).request
        if request is not None and not request.withdrawn:
            self.pools[request.name].waiting.put_back(request)
        return self._advance(now)

    def tick(self, now: float) -> list[Instruction]:
        """Time has passed."""
        return [*self._too_long(now), *self._idle_too_long(now), *self._advance(now)]

    def stop(self, now: float) -> list[Instruction]:
        """Take no more work: what waits is refused, what runs is finished; who joined by itself may stay."""
        self.stopping = True
        word = "the server ends: what it works on is finished, what waits is not begun"
        refused = [
            Refuse(request, "ServerGoneError", word) for pool in self.pools.values() for request in pool.waiting.clear()
        ]
        idle = [worker for worker in self.workers.values() if worker.state == IDLE and worker.ours]
        return [*refused, *(self._end(now, worker) for worker in idle)]

    # State

    @property
    def has_work(self) -> bool:
        """Whether there are workers to be waited for: those of its own, and whoever works on something."""
        return any(worker.ours or worker.request is not None for worker in self.workers.values())

    def is_starting(self, worker: int) -> bool:
        """Whether a worker is still to come."""
        return (found := self.workers.get(worker)) is not None and found.state == STARTING

    def pool(self, name: str) -> Pool:
        """The pool of a calculator."""
        found = self.pools.get(name)
        if found is None:
            found = self.pools[name] = Pool(name)
        return found

    def starting(self, now: float, name: str) -> int:
        """A worker is about to be started; its number."""
        return self._add(now, name, ours=True, idle_timeout=self.limits.idle_timeout).number

    def _add(self, now: float, name: str, *, ours: bool, idle_timeout: float) -> Worker:
        worker = Worker(next(self._numbers), name, ours, now, idle_timeout)
        pool = self.pool(name)
        self.workers[worker.number] = pool.workers[worker.number] = worker
        pool.newest = worker.number
        return worker

    def _remove(self, worker: int) -> Worker:
        found = self.workers.pop(worker)
        pool = self.pools[found.name]
        del pool.workers[worker]
        pool.idle.pop(worker, None)
        return found

    def _rest(self, now: float, worker: Worker) -> None:
        """It has nothing to do from now on: that is when its idle clock starts."""
        worker.state, worker.since = IDLE, now
        self.pools[worker.name].idle[worker.number] = worker

    def _end(self, now: float, worker: Worker, *, at_once: bool = False) -> End:
        worker.state, worker.since = ENDING, now
        self.pools[worker.name].idle.pop(worker.number, None)
        return End(worker.number, at_once)

    # What is to be done

    def _advance(self, now: float, only: Pool | None = None) -> list[Instruction]:
        """Give out what waits, and start what is missing; of one pool where nothing of the others has changed.

        First for those whose last start is longest ago: room that was made for one is not another's.
        """
        found: list[Instruction] = []
        for pool in sorted(self.pools.values(), key=lambda pool: pool.newest) if only is None else (only,):
            if not pool.waiting:
                pool.pressed = None
                continue
            while pool.waiting and pool.idle:
                _, worker = pool.idle.popitem(last=False)
                worker.state, worker.since, worker.began, worker.request = BUSY, now, now, pool.waiting.get()
                found.append(Give(worker.number, worker.request))
            if not pool.waiting:
                pool.pressed = None
                continue
            pool.pressed = now if pool.pressed is None else pool.pressed
            found.extend(self._grow(now, pool))
        return found

    def _grow(self, now: float, pool: Pool) -> Iterator[Instruction]:
        """Start workers for what waits: the first at once, more when the waiting does not end."""
        here = pool.here
        if self.stopping or self._is_left_to_others(pool.name) or (here and now < pool.no_start_before):
            return
        starting = pool.count(STARTING)
        assert pool.pressed is not None
        while len(pool.waiting) > starting and (not here or now - pool.pressed >= PRESSED_SECONDS):
            if sum(worker.ours for worker in self.workers.values()) >= self.limits.max_workers:
                if not here:
                    yield from self._make_room(now, pool)
                return
            yield Start(self.starting(now, pool.name), pool.name)
            starting, here = starting + 1, here + 1

    def _make_room(self, now: float, pool: Pool) -> Iterator[Instruction]:
        """End a worker of another calculator: the longest idle one; after a while one that others wait for, too."""
        ours = [worker for worker in self.workers.values() if worker.ours]
        ending = [worker for worker in ours if worker.state == ENDING]
        if any(worker.request is None for worker in ending):
            return  # that is under way
        idle = [worker for worker in ours if worker.state == IDLE]
        if idle:
            yield self._end(now, min(idle, key=lambda worker: worker.since))
        elif not ending and now - pool.waiting.oldest >= STARVED_SECONDS:
            busy = [worker for worker in ours if worker.state == BUSY and worker.name != pool.name]
            if busy:  # politely: it ends when its call does
                yield self._end(now, min(busy, key=lambda worker: worker.since))

    def _idle_too_long(self, now: float) -> Iterator[Instruction]:
        for worker in list(self.workers.values()):
            if worker.state == IDLE and now - worker.since >= worker.idle_timeout:
                yield self._end(now, worker)

    def _too_long(self, now: float) -> Iterator[Instruction]:
        for worker in list(self.workers.values()):
            request, limit = worker.request, worker.call_timeout
            if request is not None and limit is not None and now - worker.began > limit:
                worker.request = None
                yield Refuse(
                    request,
                    "CallTimeoutError",
                    f"calculator {worker.name!r} took longer than call_timeout={limit:g} s and its process was ended;"
                    " raise call_timeout if that is to be expected",
                )
                yield self._end(now, worker, at_once=True)
