"""How other programs are started: short commands, whose stderr is never lost; what prints much; this interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def run_command(
    command: Sequence[str],
    *,
    timeout: float = 60.0,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run *command* to its end and return it with its output as text; the exit status is the caller's to judge.

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
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="backslashreplace",
        timeout=timeout,
        check=False,
    )


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
