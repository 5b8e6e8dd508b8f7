"""The only place that starts short commands; what they say on stderr is never lost."""

from __future__ import annotations

import os
import subprocess
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
