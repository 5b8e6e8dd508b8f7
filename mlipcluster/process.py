"""How other programs are started: short and long ones, whose stderr is never lost; what prints much; this Python."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

LAST_WORDS = 4000  # characters of what a long command printed last: enough for the error of a resolver
_LINE = 65536  # characters; what has no end by then is passed on as it is
_POLL = 0.1  # seconds between looks at a command that prints nothing
_GRACE = 2.0  # seconds to clean up in after SIGTERM


def run_command(
    command: Sequence[str],
    *,
    timeout: float = 60.0,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    text: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run *command* to its end and return it with its output as text; the exit status is the caller's to judge.

    It reads *text*, or nothing.

    Raises
    ------
    OSError
        The program does not exist or may not be executed.
    subprocess.TimeoutExpired
        It took longer than *timeout* seconds; it was killed.
    """
    return subprocess.run(  # noqa: S603 - the callers hand in lists, never a shell's text
        list(command),
        cwd=Path(cwd) if cwd is not None else None,
        env=dict(env) if env is not None else None,
        **({"stdin": subprocess.DEVNULL} if text is None else {"input": text}),
        capture_output=True,
        encoding="utf-8",
        errors="backslashreplace",
        timeout=timeout,
        check=False,
    )


def run_logged(
    command: Sequence[str],
    *,
    timeout: float,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    log: Callable[[str], None],
    keep: Sequence[int] = (),
) -> tuple[int, str]:
    """Run a long *command*, passing on what it prints, stdout and stderr as one, line by line while it runs.

    It is started in a session of its own, and at the end, whatever that is, nothing of its process group is left.

    Parameters
    ----------
    command : sequence of str
        Program and arguments.
    timeout : float
        Seconds.
    cwd, env
        Folder to run it in; all its environment variables. None: those of this process.
    log : callable
        Gets each line, without its end. What it raises ends the command.
    keep : sequence of int
        Open files that it inherits: a lock, which then lasts as long as it runs, even where this process is killed.

    Returns
    -------
    status : int
        Exit status; negative: the signal that ended it.
    tail : str
        The last 4,000 characters that it printed.

    Raises
    ------
    OSError
        The program does not exist or may not be executed.
    subprocess.TimeoutExpired
        It took longer than *timeout* seconds; its ``output`` is the tail.
    """
    tail = ""
    with _started(command, cwd, env, keep) as process:
        try:
            for line in _lines(process, time.monotonic() + timeout):
                tail = (tail + line + "\n")[-LAST_WORDS:]
                log(line)
        except TimeoutError:
            raise subprocess.TimeoutExpired(list(command), timeout, output=tail) from None
        return process.wait(), tail


@contextlib.contextmanager
def _started(
    command: Sequence[str],
    cwd: str | os.PathLike[str] | None,
    env: Mapping[str, str] | None,
    keep: Sequence[int],
) -> Iterator[subprocess.Popen[bytes]]:
    """A command in a session of its own; its process group is ended with the block."""
    with subprocess.Popen(  # noqa: S603 - as above
        list(command),
        cwd=cwd,
        env=dict(env) if env is not None else None,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=tuple(keep),
    ) as process:
        try:
            yield process
        except BaseException:
            _signal_group(process, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
            raise
        finally:
            _signal_group(process, signal.SIGKILL)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
        os.killpg(process.pid, number)


def _lines(process: subprocess.Popen[bytes], deadline: float) -> Iterator[str]:
    """Its lines until it has ended; a carriage return, as progress bars print it, ends a line too."""
    decode, rest = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode, ""
    for block in _blocks(process, deadline):
        *lines, rest = re.split(r"\r?\n|\r(?!\Z)", rest + decode(block))
        yield from lines
        if len(rest) > _LINE:
            yield rest
            rest = ""
    rest += decode(b"", final=True)
    if rest.rstrip("\r"):
        yield rest.rstrip("\r")


def _blocks(process: subprocess.Popen[bytes], deadline: float) -> Iterator[bytes]:
    """What it prints, until it has ended: what it left running may hold the pipe open for longer."""
    assert process.stdout is not None
    pipe, open_, ended = process.stdout.fileno(), True, False
    poll = select.poll()  # select() itself takes no descriptor above 1023
    poll.register(pipe, select.POLLIN)
    while open_ or not ended:
        left = deadline - time.monotonic()
        if left <= 0 and not ended:
            raise TimeoutError
        if not open_:  # it has closed what it prints to, and goes on
            time.sleep(min(_POLL, max(left, 0.0)))
        elif poll.poll(0 if ended else 1000 * min(_POLL, left)):
            block = os.read(pipe, 65536)
            open_ = bool(block)
            if block:
                yield block
        elif ended:
            return
        ended = ended or process.poll() is not None


def find_program(names: Sequence[str]) -> str:
    """Path of the first program of these names that is here, or empty.

    First what ``UV``, ``CONDA_EXE`` … name, then what is on the PATH, then what lies beside this interpreter.
    """
    for name in names:
        told = os.environ.get("UV" if name == "uv" else f"{name.upper()}_EXE", "")
        for candidate in (told, name, os.path.join(os.path.dirname(sys.executable or ""), name)):
            path = shutil.which(candidate) if candidate else None
            if path:
                return os.path.abspath(path)
    return ""


def read_command(command: Sequence[str], limit: int, *, cwd: str | os.PathLike[str]) -> tuple[bytes, bool]:
    """The first *limit* bytes that *command* prints, and whether there was more: then it is ended.

    What it says on stderr is left out: a pipe that nobody reads meanwhile would fill and stop it.

    Raises
    ------
    OSError
        The program does not exist or may not be executed.
    """
    with subprocess.Popen(  # noqa: S603 - as above
        list(command), cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        data = process.stdout.read(limit + 1) if process.stdout else b""
        if len(data) > limit:
            process.terminate()
    return data[:limit], len(data) > limit


_ENTER = """
import sys
count = int(sys.argv[1])
sys.path[:] = sys.argv[2 : 2 + count]
del sys.argv[1 : 2 + count]
import importlib
importlib.import_module(sys.argv.pop(1)).main()
"""


def python_command(module: str, *arguments: str) -> list[str]:
    """Command that runs ``main()`` of a module of ours in this interpreter, with *arguments* in ``sys.argv[1:]``.

    It finds modules where this process finds them. With ``-m`` Python would look into the working folder first, where a
    user's ``random.py`` may lie.
    """
    paths = [os.path.abspath(path) for path in sys.path]  # "" is the working folder
    return [sys.executable, "-c", _ENTER, str(len(paths)), *paths, module, *arguments]
