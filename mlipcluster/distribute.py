"""The loop: tasks × protocols → chunks → futures → ledger and outputs."""

from __future__ import annotations

import contextlib
import math
import pickle
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mlipcluster import transit
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.calls import Call, CallResult, Failure, Job, TaskInfo
from mlipcluster.errors import TaskError
from mlipcluster.execute import describe_failure
from mlipcluster.facts import CalculatorFacts
from mlipcluster.options import Options
from mlipcluster.outputs.entries import Slot
from mlipcluster.plan import PlannedProtocol, check_keywords
from mlipcluster.progress import Counts, Progress
from mlipcluster.protocol_process import ChunkResult
from mlipcluster.recorder import Live, Trail
from mlipcluster.records.identity import Parts, parameters_digest
from mlipcluster.runbook import Earlier, RunBook, Saved
from mlipcluster.schedule import Chunk, Loss, Schedule
from mlipcluster.tasks import Task, TaskSource
from mlipcluster.underway import Underway
from mlipcluster.workers import Workers

WAIT_SECONDS = 0.2
ASK_SECONDS = 3.0
"""How often workers are asked what the calls that they run have saved."""
WHOLE_LIFE = 0.75
"""A call that has run for this share of the longest life of a worker had about all that there is to have."""

_LOST = (
    "the Dask worker that ran {live.call.task.protocol!r} on {live.task.source} ended every time; "
    "see the workers' log in the run folder."
)
_OUTLASTED = (
    "{live.call.task.protocol!r} on {live.task.source} takes longer than its workers are there (up to {life:.0f} s at "
    "once) and saves nothing on the way. Give a longer walltime, or let the protocol ask for `checkpoint` and save "
    "itself (docs/protocols.md)."
)


@dataclass(frozen=True)
class Pinned:
    """One path through the protocols, as `reproduce` follows it.

    Attributes
    ----------
    seeds : tuple of int
        Seed of each protocol's call; empty to draw them from the root seed.
    output_ids : tuple of int
        Which output of each protocol to follow; empty for all.
    """

    seeds: tuple[int, ...] = ()
    output_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Input:
    """What a call works on: its structure, pickled, with its digest and size, and its keyword arguments."""

    structure: bytes | None
    digest: str
    kwargs: dict[str, Any]
    natoms: int


@dataclass
class _Tally:
    done: int = 0
    failed: int = 0
    earlier: int = 0
    begun: int = 0
    read: int = 0


@dataclass(frozen=True)
class Work:
    """What a run is to do.

    Attributes
    ----------
    source : TaskSource
    protocols : tuple of PlannedProtocol
    calculators : mapping of str to CalculatorSpec
    facts : CalculatorFacts
        What else decides a calculator's answers: weights and environment.
    seed : int
        Root seed.
    pinned : Pinned
    """

    source: TaskSource
    protocols: tuple[PlannedProtocol, ...]
    calculators: Mapping[str, CalculatorSpec]
    facts: CalculatorFacts
    seed: int
    pinned: Pinned


class Distribution:
    """One run on its way.

    Parameters
    ----------
    work : Work
    options : Options
    book : RunBook
        The open run folder.
    workers : Workers
    progress : Progress
    """

    def __init__(self, work: Work, options: Options, book: RunBook, workers: Workers, progress: Progress) -> None:
        self._work = work
        self._options = options
        self._book = book
        self._workers = workers
        self._progress = progress
        self._tally = _Tally()
        self._schedule: Schedule[tuple[Live, int]] = Schedule([p.step for p in work.protocols], workers.slots())
        self._schedule.set_timed(workers.timed)
        self._underway = Underway(book.folder.checkpoints)
        self._next_ask = 0.0
        self._may_save = any("checkpoint" in protocol.wanted for protocol in work.protocols)
        self._jobs = _jobs(work, options)
        self._chunks: dict[int, Chunk[tuple[Live, int]]] = {}
        self._earlier: list[Earlier] = []
        self._dashboards: set[str] = set()

    def saved(self) -> Iterator[Saved | Earlier]:
        """Run to the end; give the final outputs as they are saved, and those that were found finished.

        Raises
        ------
        Exception
            With ``ignore_errors=False``: the first failure, as it was raised, after what is done was saved.
        """
        tasks = iter(self._work.source)
        try:
            while True:
                while self._schedule.hungry:  # a chunk at a time, so that workers start on the first while more is read
                    self._fill(tasks)
                    self._submit()
                self._submit()
                yield from self._take_earlier()
                if self._schedule.idle and self._schedule.exhausted:
                    break
                yield from self._receive(WAIT_SECONDS)
                self._show()
        except Exception:
            self._save_what_came_back()
            raise
        self._show()

    def _save_what_came_back(self) -> None:
        left = None
        while len(self._chunks) != left:  # further failures of chunks do not keep those behind them from being saved
            left = len(self._chunks)
            with contextlib.suppress(Exception):  # the error that ends the run is the one to tell
                for _ in self._receive(0.0):
                    pass

    def _take_earlier(self) -> list[Earlier]:
        earlier, self._earlier = self._earlier, []
        return earlier

    def _fill(self, tasks: Iterator[Task]) -> None:
        """Read as many tasks as the workers can use."""
        while self._schedule.hungry:
            task = next(tasks, None)
            if task is None:
                self._schedule.exhausted = True
                return
            self._begin(task)
            self._show()

    def _begin(self, task: Task) -> None:
        self._tally.read += 1
        error = task.error
        if error is None:
            try:
                check_keywords(self._work.protocols, task.kwargs)
            except TypeError as wrong:
                error = wrong
        live = self._live(task, _Input(task.structure, "", task.kwargs, task.natoms), (), Trail())
        if error is None:
            self._proceed(live)
            return
        self._tally.begun += 1
        if self._book.find(live) is None:
            with self._book.together():
                self._fail(live, CallResult(0, 0.0, 0.0, "", failure=describe_failure(error)), attempts=1)
            if not self._options.faults.ignore_errors:
                raise error
        else:
            self._tally.earlier += 1

    def _proceed(self, live: Live) -> None:
        """Make a call, or take what the folder knows of it."""
        self._tally.begun += 1
        found = self._book.find(live)
        if found is None:
            self._underway.begin(live.slot, live.parts.identity())
            self._schedule.add(live.call.task.step, (live, 1), live.natoms)
            return
        self._tally.earlier += 1
        self._earlier += found.outputs
        if found.result is not None:
            self._descend(live, found.result)

    def _descend(self, live: Live, result: CallResult) -> None:
        """Each output of a call is a task of the next protocol."""
        kwargs = {**live.call.kwargs, **result.updates}
        trail = live.trail.then(result)
        for product in result.products:
            if self._on_path(live.call.task.step, product.index):
                lineage = (*live.call.task.lineage, product.index)
                given = _Input(product.structure, product.digest, kwargs, product.natoms)
                self._proceed(self._live(live.task, given, lineage, trail))

    def _live(self, task: Task, given: _Input, lineage: tuple[int, ...], trail: Trail) -> Live:
        step = len(lineage)
        protocol = self._work.protocols[step]
        slot = Slot(task.place, task.replicate, lineage, step)
        first = step == 0
        seeds = self._work.pinned.seeds
        parts = Parts(
            # A first call's structure and parameters are in its key, which no other task shares.
            structure=task.place if first else given.digest[:32],
            parameters="" if first else parameters_digest(given.kwargs)[:32],
            protocol=protocol.digest,
            calculator=self._work.facts.for_call(protocol.wanted, task.calculator),
            environment=self._work.facts.environment,
            # With the place of the call, so that no two calls of a run are one even where all else is the same.
            seed=f"{seeds or self._work.seed} {slot}",
        )
        info = TaskInfo(task.key, task.source, task.replicate, step, lineage, protocol.short_name, task.calculator)
        seed = seeds[step] if seeds else None
        call = Call(info, given.structure, given.kwargs, seed, str(slot))
        return Live(task, call, parts, str(slot), trail, given.natoms)

    def _on_path(self, step: int, index: int) -> bool:
        return not self._work.pinned.output_ids or self._work.pinned.output_ids[step] == index

    def _submit(self) -> None:
        while (chunk := self._schedule.take()) is not None:
            calls = tuple(self._ready(*each) for each in zip(chunk.items, chunk.needs, strict=True))
            protocol = self._work.protocols[chunk.step]
            priority = self._schedule.priority(chunk.step)
            self._chunks[chunk.number] = chunk
            self._workers.submit(
                chunk.number, protocol.short_name, protocol.step, priority, self._jobs[chunk.step], calls
            )
        for link in self._workers.dashboard_links:
            if link not in self._dashboards:
                self._dashboards.add(link)
                self._progress.say(f"Dask dashboard: {link}")

        for note in self._workers.take_notes():
            self._progress.say(note)

    def _ready(self, item: tuple[Live, int], needs: float) -> Call:
        """A call as it goes to a worker now."""
        live, attempt = item
        client = self._work.protocols[live.call.task.step].step.client
        return replace(
            live.call,
            task=replace(live.call.task, attempt=attempt),
            needs=self._workers.affordable(client, needs),
            checkpoint=self._underway.submitted(live.slot),
        )

    def _receive(self, timeout: float) -> Iterator[Saved | Earlier]:
        self._ask()
        if (slots := self._workers.slots_if_due()) is not None:
            for client, number in enumerate(slots):
                self._schedule.set_slots(client, number)
            self._schedule.set_timed(self._workers.timed)
            self._workers.want(self._schedule.demands(self._unread))
        for returned in self._workers.wait(timeout):
            chunk = self._chunks.pop(returned.number)
            if returned.result is None:
                self._lose(chunk, blameless=returned.blameless)
            else:
                yield from self._finish(chunk, returned.result)

    def _finish(self, chunk: Chunk[tuple[Live, int]], answer: ChunkResult) -> Iterator[Saved | Earlier]:
        """Save what a chunk brought, with one append to the ledger; then give it."""
        results: list[CallResult] = [transit.unpack(packed) for packed in answer.results]
        each = [None if result.interrupted else result.seconds for result in results]
        self._schedule.finished(chunk.number, 0.0, each)
        first: Failure | None = None
        outputs: list[Saved | Earlier] = []
        with self._book.together():
            for packed in answer.introductions:
                self._book.meet(transit.unpack(packed))
            for index, ((live, attempt), result) in enumerate(zip(chunk.items, results, strict=False)):
                if result.stride:
                    self._schedule.strode(chunk.step, live.natoms, result.stride)
                printed = answer.printed.get(index, "")
                if result.interrupted:
                    self._go_on(live, attempt, result, printed)
                    continue
                told = replace(result, printed=self._underway.printed(live.slot, printed))
                if told.failure is None:
                    self._underway.end(live.slot)
                    outputs += self._succeed(live, told)
                else:
                    failure = self._handle_failure(live, told, attempt)
                    first = first or failure
        yield from outputs
        if first is not None:
            raise exception_of(first)

    def _succeed(self, live: Live, result: CallResult) -> list[Saved | Earlier]:
        self._tally.done += 1
        step = live.call.task.step
        if step == len(self._work.protocols) - 1 or not result.products:
            return self._book.save_outputs(
                live, result, self._work.pinned.output_ids[step] if self._work.pinned.output_ids else None
            )
        self._book.save_children(live, result)
        self._descend(live, result)
        return []

    def _handle_failure(self, live: Live, result: CallResult, attempt: int) -> Failure | None:
        """Try again, or record; the failure if it is to end the run."""
        if attempt <= self._work.protocols[live.call.task.step].step.retries:
            self._underway.restart(live.slot)
            self._schedule.add(live.call.task.step, (live, attempt + 1), live.natoms)
            return None
        self._fail(live, result, attempt)
        return None if self._options.faults.ignore_errors else result.failure

    def _go_on(self, live: Live, attempt: int, result: CallResult, printed: str) -> None:
        """A call was interrupted because its worker has to end: it goes on elsewhere, from what it saved."""
        assert result.checkpoint is not None
        self._underway.keep(live.slot, result.checkpoint)
        self._underway.interrupted(live.slot, printed)
        self._schedule.add_again(live.call.task.step, (live, attempt), live.natoms)

    def _ask(self) -> None:
        """Keep what the calls under way have saved, and ask anew every few seconds."""
        for asked, running in self._workers.told():
            if not self._underway.is_news(running.slot, asked):
                continue
            if running.saved is not None:
                self._underway.keep(running.slot, running.saved)
            self._underway.ran(running.slot, running.seconds)
        now = time.monotonic()
        if now >= self._next_ask and self._chunks and (self._may_save or self._workers.timed):
            self._next_ask = now + ASK_SECONDS
            flying = [live.slot for chunk in self._chunks.values() for live, _ in chunk.items]
            self._workers.ask(self._jobs[0].run, self._underway.known(flying))

    def _lose(self, chunk: Chunk[tuple[Live, int]], *, blameless: bool) -> None:
        client = self._work.protocols[chunk.step].step.client
        life = self._workers.life(client)
        slots = [live.slot for live, _ in chunk.items]
        loss = Loss(
            blameless,
            {index for index, slot in enumerate(slots) if self._underway.got_on(slot)},
            whole_life=max(map(self._underway.seconds, slots)) > WHOLE_LIFE * life,
        )
        for live, attempt in self._schedule.lost(chunk.number, loss):
            error = TaskError((_OUTLASTED if blameless else _LOST).format(live=live, life=life))
            with self._book.together():
                self._fail(live, CallResult(0, 0.0, 0.0, "", failure=describe_failure(error)), attempt)
            if not self._options.faults.ignore_errors:
                raise error

    def _fail(self, live: Live, result: CallResult, attempts: int) -> None:
        self._tally.done += 1
        self._tally.failed += 1
        self._underway.end(live.slot)
        self._book.save_failure(live, result, attempts)

    @property
    def _unread(self) -> float:
        """How many tasks are still to be read."""
        known = self._work.source.known_length
        return 0 if self._schedule.exhausted else math.inf if known is None else max(0, known - self._tally.read)

    def _show(self) -> None:
        tally = self._tally
        known = self._work.source.known_length if len(self._work.protocols) == 1 else None
        total = tally.begun if self._schedule.exhausted else None if known is None else max(known, tally.begun)
        running = self._schedule.flying
        waiting = self._workers.waiting
        self._progress.update(Counts(tally.done, tally.failed, running, tally.earlier, total, waiting))

    @property
    def failed(self) -> int:
        """Failures recorded in this run."""
        return self._tally.failed

    @property
    def counts(self) -> Mapping[str, int]:
        """Calls made now, calls found finished, failures."""
        return {"done": self._tally.done, "earlier": self._tally.earlier, "failed": self._tally.failed}


def _jobs(work: Work, options: Options) -> tuple[Job, ...]:
    """For each protocol, what all its calls in this run share."""
    run, last = uuid.uuid4().hex[:12], len(work.protocols) - 1
    return tuple(
        job_for(run, protocol, work, options, last=step == last) for step, protocol in enumerate(work.protocols)
    )


def job_for(run: str, protocol: PlannedProtocol, work: Work, options: Options, *, last: bool = True) -> Job:
    """What all calls of a protocol in a run share."""
    saving = options.saving
    return Job(
        run=run,
        protocol=protocol.blob,
        protocol_digest=protocol.blob_digest,
        calculators=dict(work.calculators),
        seed=work.seed,
        timeout=options.faults.timeout,
        memory=options.compute.memory_bytes,
        scratch_dir=options.compute.scratch_dir,
        drop_empty=saving.filter_results is not False,
        last=last,
        formats=saving.output_types if last or saving.save_all else (),
    )


def exception_of(failure: Failure) -> BaseException:
    """The exception as it was raised on the worker, with its traceback there as a note."""
    error: BaseException = TaskError(f"{failure.type_name}: {failure.message}")
    if failure.pickled is not None:
        with contextlib.suppress(Exception):
            raised = pickle.loads(failure.pickled)  # noqa: S301 - from our own workers
            if isinstance(raised, Exception):  # sys.exit() in a protocol must not end the driver as if all were well
                error = raised
    error.__cause__ = TaskError(f"on the worker:\n{failure.traceback}")
    return error
