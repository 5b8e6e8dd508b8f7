"""The warm process beside each Dask worker in which protocols run.

A protocol is a user's code: it may hang, print without end, call ``sys.exit`` or crash the interpreter. None of
that may touch the Dask worker, whose heartbeat the scheduler watches. So each worker keeps one process that runs
its calls one after the other; it can be killed when a call takes too long, and the next call finds a new one.

`ProtocolProcess` is the worker's side, `main` the process's own. Messages are one kind byte and a pickle; both
ends are ours, and neither listens: the socket pair is inherited.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

import psutil

from mlipcluster import transit
from mlipcluster.calls import Call, CallResult, Failure, Introduction, Job
from mlipcluster.deploy import ending
from mlipcluster.errors import ProtocolProcessError, ProtocolTimeoutError
from mlipcluster.passage import Passage
from mlipcluster.printed import Marker, PrintedText
from mlipcluster.process import python_command

if TYPE_CHECKING:
    from mlipcluster.execute import Executor

LOOK_SECONDS = 1.0
"""How often a process that says nothing is looked after."""

SECONDS = "seconds"
"""Dask's resource by which workers say how long they will be there."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

_CHUNK, _INTRODUCE, _STARTED, _ENDED, _RESULT, _INTRODUCTION, _DONE = b"C", b"P", b"S", b"E", b"R", b"I", b"D"
_SAVED, _HALTED = b"V", b"H"


@dataclass(frozen=True)
class ChunkResult:
    """What a worker gives back for a chunk of calls.

    Attributes
    ----------
    results : tuple of bytes
        A packed `CallResult` for each call, in order; fewer where the worker has to end: the last may be
        interrupted, and those behind it were not begun.
    printed : mapping of int to str
        The end of what a call printed, for those that printed.
    introductions : tuple of bytes
        Packed `Introduction` of the processes that took part, where this run had not seen them.
    """

    results: tuple[bytes, ...]
    printed: dict[int, str]
    introductions: tuple[bytes, ...]


class _Died(Exception):  # noqa: N818 - told to the caller as a ProtocolProcessError
    """The process ended before it answered."""


class _TookTooLong(Exception):  # noqa: N818 - told to the caller as a ProtocolTimeoutError
    """A call went past its timeout."""


class _TookTooMuch(Exception):  # noqa: N818 - told to the caller as a ProtocolProcessError
    """The process and what it started use more memory than they may."""


class ProtocolProcess:
    """The worker's handle on its protocol process; starts it when first needed, and again after it ended.

    Attributes
    ----------
    run : str
        Of whoever uses it, or used it last.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch: str | None = None
        self.run = ""
        self._begun = 0.0
        self._next_look = 0.0

    def run_chunk(self, job: Job, payload: bytes) -> ChunkResult:
        """Run the calls of a chunk in order.

        Parameters
        ----------
        payload : bytes
            The packed tuple of `Call` (`mlipcluster.transit`).
        """
        chunk = Passage(job, transit.unpack(payload))
        try:
            while not chunk.over:
                if job.run in _abandoned:
                    raise ProtocolProcessError("the run was abandoned by its driver.")
                saved = chunk.begin()
                try:
                    self.start(job)
                    told = replace(job, scratch_dir=self._scratch)
                    self._send(_CHUNK, (told, payload, len(chunk.results), saved))
                    self._gather(chunk)
                except (_Died, _TookTooLong, _TookTooMuch) as end:
                    tail = self._printed.of_unfinished()
                    status = self.stop()
                    if isinstance(end, _Died) and chunk.got_on:
                        continue  # from its newest save, in a new process
                    chunk.end(transit.pack(_ended(job, chunk.call, self._begun, (end, status))), tail)
        except BaseException:
            self.stop()  # interrupted between two messages: what comes next could not be told apart
            raise
        finally:
            chunk.leave()
        return ChunkResult(tuple(chunk.results), chunk.printed, tuple(chunk.introductions))

    def introduce(self, job: Job) -> Introduction:
        """Start the job's calculators and tell what they and this process are.

        Raises
        ------
        CalculatorError
            A calculator could not be started.
        ProtocolProcessError
            The process ended instead of answering.
        """
        try:
            self.start(job)
            self._send(_INTRODUCE, job)
            _, body = self._receive(None)
        except _Died:
            tail, status = self._printed.of_unfinished(), self.stop()
            raise ProtocolProcessError(_death(status, "while it started the calculators", tail)) from None
        answer = transit.unpack(body)
        if isinstance(answer, Failure):
            raise pickle.loads(answer.pickled) if answer.pickled else ProtocolProcessError(answer.traceback)  # noqa: S301
        return answer  # type: ignore[no-any-return]

    def stop(self) -> int | None:
        """End the process and what it started; return its exit status (negative: a signal), or None if none ran."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2.0 if _closed(self._connection) else 0)
        status = process.poll()
        _kill_all(process)
        process.wait()
        self._connection.close()
        os.close(self._printed.fd)
        os.close(self._lifeline)
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)
        return status

    def kill(self) -> None:
        """End the process from another thread; whoever waits for it notices."""
        if (process := self._process) is not None:
            _kill_all(process)

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._process.pid if self._process else None

    def start(self, job: Job) -> None:
        """Start the process, unless it runs; it is not waited for."""
        if self._process is not None and self._process.poll() is None:
            return
        self.stop()
        self._scratch = tempfile.mkdtemp(prefix="mlipcluster-", dir=job.scratch_dir or _temporary())
        ours, theirs = socket.socketpair()
        output, write_end = os.pipe()
        far_end, lifeline = os.pipe()
        # The order of a set of strings must not depend on which process ran a protocol.
        fixed = {"PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": "0"}
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603
                python_command("mlipcluster.protocol_process", str(theirs.fileno()), str(far_end)),
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                pass_fds=(theirs.fileno(), far_end),
                env={**dict.fromkeys(THREAD_VARIABLES, "1"), **os.environ, **fixed},
                start_new_session=True,  # Ctrl-C is for the driver, which ends the workers in order
            )
        os.close(write_end)
        os.close(far_end)
        self._connection = Connection(ours.detach())
        self._printed, self._lifeline = PrintedText(output), lifeline

    def _send(self, kind: bytes, body: Any) -> None:
        try:
            self._connection.send_bytes(kind + pickle.dumps(body))
        except OSError:
            raise _Died from None

    def _gather(self, chunk: Passage) -> None:
        deadline = None
        self._begun = time.time()
        while True:
            kind, body = self._receive(deadline, chunk.job.memory)
            if kind == _STARTED:
                used = pickle.loads(body)  # noqa: S301 - from our own process
                deadline = time.monotonic() + chunk.job.timeout - used if chunk.job.timeout else None
                self._begun = time.time()
            elif kind == _ENDED:
                deadline = None
            elif kind == _INTRODUCTION:
                chunk.introductions.append(body)
            elif kind == _SAVED:
                chunk.keep(pickle.loads(body))  # noqa: S301 - as above
            elif kind == _RESULT:
                deadline = None
                chunk.end(body, self._printed.of_finished())
                self._begun = time.time()
            elif kind == _HALTED:
                chunk.halted = True
                return
            elif kind == _DONE:
                if not chunk.over:
                    raise _Died
                return

    def _receive(self, deadline: float | None, memory: int | None = None) -> tuple[bytes, bytes]:
        """Wait for the next message; meanwhile read what is printed, so that the process never blocks on it."""
        while True:
            # Looked after every second: a process that it forked may hold the connection open for ever.
            now = time.monotonic()
            remaining = self._next_look - now if deadline is None else min(self._next_look, deadline) - now
            sources: list[Connection | int] = [self._connection, *([self._printed.fd] if self._printed.is_open else [])]
            ready = wait(sources, max(0.0, remaining))
            if self._printed.fd in ready:
                self._printed.read()
            if self._connection in ready:
                try:
                    message = self._connection.recv_bytes()
                except (EOFError, OSError):
                    raise _Died from None
                return message[:1], message[1:]
            self._look_after(memory)
            if deadline is not None and time.monotonic() > deadline:
                raise _TookTooLong

    def _look_after(self, memory: int | None) -> None:
        if self._process is None or self._process.poll() is not None:
            raise _Died
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_SECONDS
        if memory is not None and _resident(self._process.pid) > memory:
            raise _TookTooMuch


def _temporary() -> str | None:
    """Where Dask was told to keep what is temporary."""
    import dask  # which every worker has loaded; the process that is started does without

    return dask.config.get("temporary-directory", None)  # type: ignore[no-any-return]


def _resident(pid: int) -> int:
    """Bytes of memory that a process and all that it started use."""
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):  # it has ended meanwhile
                total += one.memory_info().rss
    return total


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    """End a process and whatever it started and left in its session's group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _closed(connection: Connection) -> bool:
    """Whether the other side has gone, so that its exit status will be there in a moment."""
    with contextlib.suppress(OSError):
        return connection.poll()
    return True


def _ended(job: Job, call: Call, begun: float, how: tuple[Exception, int | None]) -> CallResult:
    """The result of a call whose process had to be, or was, ended."""
    from mlipcluster.records.seeds import call_seed

    end, status = how
    error: Exception
    if isinstance(end, _TookTooLong):
        error = ProtocolTimeoutError(
            f"protocol {call.task.protocol!r} took longer than timeout={job.timeout:g} s on {call.task.source}; "
            "its process was ended. Give a longer timeout, or a protocol that stops by itself."
        )
    elif isinstance(end, _TookTooMuch):
        error = ProtocolProcessError(
            f"protocol {call.task.protocol!r} used more than memory={job.memory} bytes on {call.task.source}, its "
            "calculators among it; its process was ended. Give more memory=, or fewer max_workers."
        )
    else:
        error = ProtocolProcessError(_death(status, f"in protocol {call.task.protocol!r} on {call.task.source}"))
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    failure = Failure(name, str(error), f"{name}: {error}\n", pickle.dumps(error))
    task = call.task
    seed = call_seed(job.seed, task.key, task.replicate, task.step, task.lineage) if call.seed is None else call.seed
    return CallResult(seed, begun, time.time() - begun, "", failure=failure)


def _death(status: int | None, where: str, tail: str = "") -> str:
    if status is not None and status < 0:
        how = f"was killed by {signal.Signals(-status).name}"
    else:
        how = f"ended with exit status {status}"
    said = f" Its last words: {tail[-500:].strip()}" if tail.strip() else ""
    return f"the process that runs protocols {how} {where}; what it printed is in the record of the failure.{said}"


_processes: list[ProtocolProcess] = []
_idle: list[ProtocolProcess] = []
_abandoned: set[str] = set()
_lock = threading.Lock()


@contextlib.contextmanager
def borrow(run: str) -> Iterator[ProtocolProcess]:
    """A protocol process of this Dask worker, for as long as the context lasts; a warm one if one is free."""
    with _lock:
        process = _idle.pop() if _idle else ProtocolProcess()
        process.run = run
        if process not in _processes:
            _processes.append(process)
    try:
        yield process
    finally:
        with _lock:
            _idle.append(process)


def run_chunk(job: Job, payload: bytes) -> ChunkResult:
    """Run a chunk of calls on this Dask worker; the task that Dask is given."""
    with borrow(job.run) as process:
        result = process.run_chunk(job, payload)
    if ending.remaining() < math.inf:
        _tell_remaining()
    return result


def _tell_remaining() -> None:
    """Tell Dask's scheduler how long this worker will be there, before it gets to see what is handed back.

    So what is handed back, and asks for more seconds than there are, never comes here again.
    """
    from distributed import get_worker
    from distributed.utils import sync

    with contextlib.suppress(ValueError):  # no Dask worker, or one that does not say how long it will be there
        worker = get_worker()
        said = worker.state.total_resources[SECONDS]
        sync(worker.loop, worker.set_resources, **{SECONDS: min(said, max(0.0, ending.remaining()))})


def introduce(job: Job) -> Introduction:
    """Start the job's calculators on this Dask worker and tell what they are."""
    with borrow(job.run) as process:
        return process.introduce(job)


def abandon(run: str) -> None:
    """End what a run does on this Dask worker, now, and what it left warm."""
    _abandoned.add(run)
    with _lock:
        for process in _processes:
            if process in _idle:
                process.stop()  # here and now: whoever borrows it next, for another run, starts it again
            elif process.run == run:
                process.kill()


def cool() -> None:
    """End what is warm and free on this Dask worker; what runs goes on."""
    with _lock:
        for process in _idle:
            process.stop()


def warm(job: Job) -> None:
    """Start a protocol process on this Dask worker without waiting for it: its imports take longest."""
    with borrow(job.run) as process:
        process.start(job)


def main() -> None:
    """The process itself: run chunks until the other side is gone."""
    from mlipcluster.socket_worker.lifeline import die_with_parent

    connection_fd, lifeline_fd = map(int, sys.argv[1:])
    die_with_parent(lifeline_fd)
    if ending.remaining() < math.inf:
        _outlive_warnings()
    # Only now: these take most of a second, in which the other side may be gone.
    from mlipcluster.calculators.pool import CalculatorPool
    from mlipcluster.execute import Executor

    connection = Connection(connection_fd)
    pool = CalculatorPool()
    executor = Executor(pool)
    introduced: set[tuple[str, str]] = set()

    marker = Marker()

    def send(kind: bytes, body: bytes = b"") -> None:
        if kind == _RESULT:
            marker.end()
        connection.send_bytes(kind + body)

    with contextlib.suppress(EOFError):
        while True:
            message = connection.recv_bytes()
            body = pickle.loads(message[1:])  # noqa: S301
            if message[:1] == _INTRODUCE:
                send(_INTRODUCTION, transit.pack(_introduce(executor, body)))
            else:
                job, payload, start, saved = body
                first, *others = transit.unpack(payload)[start:]
                marker.begin()
                _run_calls(executor, (job, (replace(first, checkpoint=saved), *others)), introduced, send)
    pool.close()


def _outlive_warnings() -> None:
    """Take SIGTERM, which warns all processes of a batch job of its end, for what `ending` is told at the same time.

    Only here: what a protocol starts, by whatever means, ends by it as always.
    """
    own = os.getpid()

    def receive(number: int, _: object) -> None:
        if os.getpid() != own:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, receive)


def _introduce(executor: Executor, job: Job) -> Introduction | Failure:
    from mlipcluster.execute import describe_failure

    try:
        return executor.introduce(job, start=True)
    except Exception as error:  # noqa: BLE001 - told to the worker, which raises it
        return describe_failure(error)


def _run_calls(
    executor: Executor, work: tuple[Job, tuple[Call, ...]], introduced: set[tuple[str, str]], send: Callable[..., None]
) -> None:
    from mlipcluster.attempt import Watcher

    job, calls = work

    def clock(running: bool, used: float) -> None:
        if job.timeout:
            send(_STARTED if running else _ENDED, pickle.dumps(used))

    watcher = Watcher(clock, lambda saved: send(_SAVED, pickle.dumps(saved)))
    for call in calls:
        if call.needs and ending.remaining() < call.needs:
            send(_HALTED)
            return
        result = executor.run(job, call, watcher)
        if (job.run, result.introduction) not in introduced:
            introduced.add((job.run, result.introduction))
            send(_INTRODUCTION, transit.pack(executor.introduce(job)))
        send(_RESULT, _pickled(result))
        if result.interrupted:
            send(_HALTED)
            return
    send(_DONE)


def _pickled(result: CallResult) -> bytes:
    from mlipcluster.execute import describe_failure

    try:
        return transit.pack(result)
    except Exception as error:  # noqa: BLE001 - atoms.info may hold anything
        return transit.pack(replace(result, products=(), updates={}, failure=describe_failure(error)))
