"""The process of a socket worker: started, watched, its last words kept, and ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import weakref
from pathlib import Path

import mlipcluster.socket_worker
from mlipcluster.calculators.connection import Connection, ConnectionLostError
from mlipcluster.calculators.spec import HIDDEN, CalculatorSpec
from mlipcluster.errors import CalculatorStartError

WORKER_FOLDER = Path(mlipcluster.socket_worker.__file__).parent
LONGEST_SOCKET_PATH = 107
TAIL_BYTES = 1 << 16
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


class WorkerProcess:
    """A running socket worker.

    The host binds and listens before it starts the worker, which inherits the listening socket: there is no moment at
    which a connection could be refused. The worker is the leader of a session of its own; when it ends, whatever it
    started ends with it. When this process ends, the kernel ends the worker: :mod:`mlipcluster.socket_worker.lifeline`.

    Parameters
    ----------
    spec : CalculatorSpec
        Its interpreter, threads and environment variables are used here; the rest is for the worker.

    Raises
    ------
    CalculatorStartError
        The interpreter cannot be run, or the socket's path is too long.
    """

    def __init__(self, spec: CalculatorSpec) -> None:
        self.owner = os.getpid()
        self._folder = tempfile.mkdtemp(prefix="mlip-")  # mode 0700
        self.address = f"{self._folder}/s"
        self._kept_open: list[int] = []
        self._tail = bytearray()
        self._connections: list[Connection] = []
        try:
            self._process, output = self._start(spec)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self.pid = self._process.pid
        # The threads know the parts and not this object, so that it can be collected and the worker ended.
        self._drainer = _thread("output", _drain, output, self._tail)
        self._watcher = _thread("exit", _watch, self._process, self._connections)
        _LIVE.add(self)
        _register_fork_handler()
        self._finalizer = weakref.finalize(
            self, _end, self.owner, self._process, self._kept_open, self._connections, self._folder
        )

    @property
    def exit_status(self) -> int | None:
        """None while it runs; else its exit status, or minus the signal that ended it."""
        return self._process.returncode if not self._watcher.is_alive() else None

    @property
    def is_here(self) -> bool:
        """Whether this process started it; after a fork the child must leave it alone."""
        return os.getpid() == self.owner

    def connect(self) -> Connection:
        """A new connection to it.

        Raises
        ------
        ConnectionLostError
            It has ended.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(self.address)
        except OSError as error:
            sock.close()
            raise ConnectionLostError(str(error)) from error
        connection = Connection(sock)
        self._connections[:] = [other for other in self._connections if not other.closed]
        self._connections.append(connection)
        if self.exit_status is not None:
            connection.shut()
        return connection

    def wait(self, timeout: float) -> int | None:
        """Its exit status, or None if it still runs after *timeout* seconds."""
        self._watcher.join(timeout)
        return self.exit_status

    def kill(self) -> None:
        """End it and whatever it started, at once."""
        if self.is_here and self._process.returncode is None:
            _kill_group(self.pid)
        self._watcher.join(10.0)

    def close(self) -> None:
        """End it and remove what belongs to it."""
        self.kill()
        self._finalizer()

    def let_go(self) -> None:
        """Close this process's end of the lifeline, and what else it keeps open."""
        while self._kept_open:
            os.close(self._kept_open.pop())

    def last_words(self) -> str:
        """The end of what it printed."""
        if self.exit_status is not None:
            self._drainer.join(1.0)  # something it started may hold the pipe open
        return bytes(self._tail).decode("utf-8", "backslashreplace").strip()

    def _start(self, spec: CalculatorSpec) -> tuple[subprocess.Popen[bytes], int]:
        if len(os.fsencode(self.address)) > LONGEST_SOCKET_PATH:
            raise CalculatorStartError(
                f"the socket's path {self.address!r} is longer than {LONGEST_SOCKET_PATH} bytes;"
                " point TMPDIR at a folder with a shorter path"
            )
        with contextlib.ExitStack() as given_away, contextlib.ExitStack() as kept:
            listener = given_away.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            listener.bind(self.address)
            listener.listen(64)
            kept.callback(self.let_go)
            self._hide()
            lifeline_end, lifeline = os.pipe()
            output, output_end = os.pipe()
            for fd in (lifeline_end, output_end):
                given_away.callback(os.close, fd)
            for fd in (lifeline, output):
                kept.callback(os.close, fd)
            process = self._popen(spec, listener.fileno(), lifeline_end, output_end)
            kept.pop_all()
        self._kept_open.append(lifeline)
        return process, output

    def _hide(self) -> None:
        """Remove the socket's folder, so that not even a host that is killed leaves it behind.

        A descriptor of the socket's file (``O_PATH``) leads to it still. Elsewhere than on Linux the folder stays until
        the end.
        """
        if hasattr(os, "O_PATH") and os.path.isdir("/proc/self/fd"):
            fd = os.open(self.address, os.O_PATH | os.O_CLOEXEC)
            self._kept_open.append(fd)
            self.address = f"/proc/self/fd/{fd}"
            shutil.rmtree(self._folder, ignore_errors=True)

    @staticmethod
    def _popen(spec: CalculatorSpec, listener: int, lifeline: int, output: int) -> subprocess.Popen[bytes]:
        # Isolated as by -I, which would also make Python ignore the hash seed: the order of a set of strings must be
        # the same in every worker, or sums over it differ in their last bits.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment |= {"PYTHONHASHSEED": "0", **dict.fromkeys(THREAD_VARIABLES, str(spec.threads))}
        # What a record hides is inherited, if this process has it.
        environment |= {name: text for name, text in spec.environment if text != HIDDEN}
        python = _as_it_is_now(spec.interpreter)
        if spec.build is not None:
            environment |= _own_libraries(python, environment.get("LD_LIBRARY_PATH", ""))
        command = [
            str(python),
            "-s",
            "-X",
            "faulthandler",
            str(WORKER_FOLDER),
            str(listener),
            str(lifeline),
        ]
        try:
            return subprocess.Popen(  # noqa: S603 - the interpreter is the user's choice
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(listener, lifeline),
                env=environment,
                start_new_session=True,  # Ctrl-C in a terminal is for this process to handle
            )
        except OSError as error:
            raise CalculatorStartError(
                f"calculator {spec.label!r}: {spec.interpreter} cannot be run ({error.strerror}); {spec.remedy}"
            ) from error


def _as_it_is_now(interpreter: Path) -> Path:
    """The interpreter in its own folder: a link to that may be switched to another build while the process runs.

    What it imports late must come from where the rest came from. The last link stays, see `CalculatorSpec.interpreter`.
    """
    return Path(os.path.realpath(interpreter.parent), interpreter.name)


def _own_libraries(interpreter: Path, before: str) -> dict[str, str]:
    """Let the linker find libraries that wheels put into ``lib`` of a virtual environment (PyTorch's for XPU)."""
    prefix = interpreter.parent.parent
    if not (prefix / "pyvenv.cfg").is_file() or not any((prefix / "lib").glob("*.so*")):
        return {}
    return {"LD_LIBRARY_PATH": os.pathsep.join(filter(None, [str(prefix / "lib"), before]))}


def _drain(output: int, tail: bytearray) -> None:
    """Read what it prints, for ever, and keep the end: a worker must not stop because nobody listens."""
    with open(output, "rb", buffering=0) as stream:
        while block := stream.read(TAIL_BYTES):
            tail += block
            del tail[:-TAIL_BYTES]


def _watch(process: subprocess.Popen[bytes], connections: list[Connection]) -> None:
    """Wait for its end; then end what it started, and wake whoever waits for its answer.

    A process that it forked may hold the sockets open, so that their end alone would tell nothing.
    """
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    _kill_group(process.pid)  # not reaped yet, so the number of its process group is still its own
    process.wait()
    for connection in list(connections):
        connection.shut()


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def describe_exit(status: int | None) -> str:
    """An exit status in words: ``"exit status 3"``, ``"signal SIGSEGV"``."""
    if status is None:
        return "no exit status (it was still running)"
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"


def _thread(what: str, target: object, *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments, name=f"socket worker's {what}", daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def _end(
    owner: int, process: subprocess.Popen[bytes], kept_open: list[int], connections: list[Connection], folder: str
) -> None:
    if os.getpid() != owner:
        return
    if process.returncode is None:
        _kill_group(process.pid)
    while kept_open:
        os.close(kept_open.pop())
    for connection in connections:
        connection.close()
    shutil.rmtree(folder, ignore_errors=True)


_LIVE: weakref.WeakSet[WorkerProcess] = weakref.WeakSet()
_FORK_HANDLER: list[bool] = []


def _register_fork_handler() -> None:
    if not _FORK_HANDLER:
        os.register_at_fork(after_in_child=_let_go_after_fork)
        _FORK_HANDLER.append(True)


def _let_go_after_fork() -> None:
    """In a forked child: close its copies of the lifelines, which must end with the parent alone."""
    for worker in list(_LIVE):
        worker.let_go()
