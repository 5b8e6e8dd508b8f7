"""The process of a code that is not ours and comes to a socket by itself: started, its last words kept, and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import weakref
from collections.abc import Sequence

from mlipcluster.calculators.worker_process import describe_exit
from mlipcluster.errors import CalculatorStartError

TAIL = 1 << 14
GRACE = 5.0
"""Seconds that it gets to end by itself, and again after SIGTERM."""


class ForeignCode:
    """A command that runs, in a session of its own.

    It and whatever it started end with :meth:`wait`, and with this process.

    Parameters
    ----------
    command : sequence of str
        Program and arguments; no shell reads them.
    cwd : path, optional
        Folder to run it in.

    Raises
    ------
    CalculatorStartError
        It cannot be run.
    """

    def __init__(self, command: Sequence[str], cwd: str | os.PathLike[str] | None = None) -> None:
        self._text = " ".join(command)
        self._tail = bytearray()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the user's own command
                list(command),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in a terminal is for this process to handle
            )
        except OSError as error:
            raise CalculatorStartError(
                f"{self._text!r:.500} cannot be run ({error}); correct the command or its folder"
            ) from error
        # The thread knows the parts and not this object, so that it can be collected and the process ended.
        self._drainer = threading.Thread(target=_drain, args=(self._process, self._tail), name="output", daemon=True)
        self._drainer.start()
        self._finalizer = weakref.finalize(self, _end, os.getpid(), self._process)

    def poll(self) -> int | None:
        """None while it runs; else its exit status, or minus the signal that ended it."""
        return self._process.poll()

    def wait(self) -> int:
        """Let it end, for its connection is closed, or end it; always 0.

        What a code has to say of a connection that was closed on purpose differs from code to code.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE)
        self._finalizer()
        return 0

    def how_it_ended(self) -> str:
        """Its end and its last words, in words."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        if self.poll() is None:
            return f"{self._text!r:.500} still runs"
        self._drainer.join(1.0)  # something it started may hold the pipe open
        words = bytes(self._tail).decode("utf-8", "backslashreplace").strip()
        said = f"; it last said:\n{words}\n" if words else "; it said nothing"
        return f"{self._text!r:.500} ended with {describe_exit(self.poll())}{said}"


def _drain(process: subprocess.Popen[bytes], tail: bytearray) -> None:
    """Read what it prints, for ever, and keep the end: it must not stop because nobody listens."""
    assert process.stdout is not None
    with process.stdout as stream:
        while block := os.read(stream.fileno(), 1 << 16):
            tail += block
            del tail[:-TAIL]


def _end(owner: int, process: subprocess.Popen[bytes]) -> None:
    if os.getpid() != owner:
        return
    if process.poll() is None:
        _signal_group(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    _signal_group(process, signal.SIGKILL)  # what it left behind
    process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
