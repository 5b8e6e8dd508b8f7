"""A worker that a command starts, which joins by itself: ``uvx --with mace-torch mlipcluster worker …``."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from mlipcluster.calculators.worker_process import describe_exit
from mlipcluster.errors import CalculatorStartError

if TYPE_CHECKING:
    from mlipcluster.calculators.spawn import SpawnConfig
    from mlipcluster.serving.server import Options

#: Tells whom the command starts where to join, and as which worker.
ADDRESS_VARIABLE = "MLIPCLUSTER_SERVE_ADDRESS"
WORKER_VARIABLE = "MLIPCLUSTER_JOIN_AS"
TAIL = 1 << 14
QUOTED = 4000
WORDS_SECONDS = 2.0


class Spawned:
    """A command that runs.

    Parameters
    ----------
    config : SpawnConfig
    worker : int
        Number of the worker that is to join.
    address : str
        Of the server.
    options : Options
        The server's.

    Attributes
    ----------
    joined : bool
        Whether its worker has joined, so that it is not given up any more.

    Raises
    ------
    CalculatorStartError
        The command cannot be run.
    """

    def __init__(self, config: SpawnConfig, worker: int, address: str, options: Options) -> None:
        self._name = config.name
        self._command = config.filled(broker=address, idle_timeout=options.idle_timeout)
        self._limit = options.start_timeout
        self._tail = bytearray()
        self._drainer = threading.Thread(target=self._drain, name=f"output of {config.name}", daemon=True)
        self.joined = False
        variables = {ADDRESS_VARIABLE: address, WORKER_VARIABLE: str(worker)}
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the user's own command
                self._command,
                cwd=config.cwd,
                env={**os.environ, **config.env, **variables},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise CalculatorStartError(
                f"calculator {self._name!r}: {self._command[0]!r} cannot be run ({error.strerror}); correct the command"
                " of its spawn configuration"
            ) from error

    def watch(self, ended: Callable[[str], None]) -> None:
        """Wait for its end in a thread, and call *ended* with how it ended; give it up if it does not join in time."""
        self._drainer.start()
        threading.Thread(target=self._wait, args=(ended,), name=f"end of {self._name}", daemon=True).start()

    def kill(self) -> None:
        """End it and whatever it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _drain(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            while block := os.read(stream.fileno(), 1 << 16):
                self._tail += block
                del self._tail[:-TAIL]

    def _wait(self, ended: Callable[[str], None]) -> None:
        late = ""
        try:
            self._process.wait(self._limit)
        except subprocess.TimeoutExpired:
            if not self.joined:
                late = f"had not joined after start_timeout={self._limit:g} s and was ended"
                self.kill()
        status = self._process.wait()
        self.kill()  # what it left behind
        self._drainer.join(WORDS_SECONDS)  # something that got away may hold the pipe open
        words = bytes(self._tail).decode("utf-8", "backslashreplace").strip()[-QUOTED:]
        said = f"; it last said:\n{words}\n" if words else "; it said nothing"
        how = late or f"ended with {describe_exit(status)} before it joined"
        ended(f"calculator {self._name!r}: the command {' '.join(self._command)!r:.500} {how}{said}")
