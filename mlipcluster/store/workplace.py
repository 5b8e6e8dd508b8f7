"""A build while it is being made: its folder, its log, and how other programs are run in it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from mlipcluster.environments.measure_script import without_credentials
from mlipcluster.errors import EnvironmentBuildError
from mlipcluster.process import find_program, run_logged
from mlipcluster.store.failures import meaning
from mlipcluster.store.layout import Layout
from mlipcluster.store.source import Source

# What a caller's own environment would change about what is built.
_DROPPED = frozenset({
    "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "UV_PYTHON",
    "UV_NO_CONFIG", "UV_NO_SOURCES", "UV_PROJECT_ENVIRONMENT", "UV_SYSTEM_PYTHON", "UV_PROJECT", "UV_WORKING_DIR",
    "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_DRY_RUN",
})  # fmt: skip
_LAST_LINES = 15


@dataclass(frozen=True)
class Options:
    """How to build.

    Attributes
    ----------
    force : bool
        Make the environment again even where it is built.
    upgrade : bool
        Resolve anew, instead of keeping versions of the last build as far as the source allows them.
    python : str
        An interpreter or a version for it; empty: the one that runs this if the source allows it, else another one.
    download : bool
        Let uv download a Python, into the root, where there is none that the source allows.
    timeout : float
        Seconds that it may take, waiting for another builder included.
    """

    force: bool = False
    upgrade: bool = False
    python: str = ""
    download: bool = False
    timeout: float = 7200.0


@dataclass(frozen=True)
class Workplace:
    """A half made build.

    Attributes
    ----------
    layout : Layout
        The root's paths.
    folder : Path
        Where it is made, and stays.
    source : Source
        What it is made of.
    options : Options
        How.
    tell : callable
        Gets each line for the person who waits.
    keep : tuple of int
        Open files that programs inherit: the folder's lock.
    give_up : float
        When to, on the clock of ``time.monotonic``, in seconds.
    """

    layout: Layout
    folder: Path
    source: Source
    options: Options
    tell: Callable[[str], None]
    keep: tuple[int, ...] = ()
    give_up: float = field(default=0.0)

    @property
    def log(self) -> Path:
        """All that programs print."""
        return self.folder / "build.log"

    def run(self, command: Sequence[str], variables: Mapping[str, str] | None = None) -> str:
        """Run a program in the folder, and return the end of what it printed.

        Raises
        ------
        EnvironmentBuildError
            It failed, is not there or took too long; the message says what that means, and ends with its last words.
        """
        left, variables = max(self.give_up - time.monotonic(), 0.1), self._variables(variables)
        with open(self.log, "a", encoding="utf-8") as log:

            def write(line: str) -> None:
                log.write(without_credentials(line) + "\n")
                log.flush()

            write("$ " + " ".join(command))
            try:
                status, tail = run_logged(
                    command, timeout=left, cwd=self.folder, env=variables, log=write, keep=self.keep
                )
            except subprocess.TimeoutExpired as error:
                given = f"took longer than {self.options.timeout:g} s; give more with --timeout"
                raise self.failed(given, str(error.output or "")) from error
            except OSError as error:
                raise self.failed(f"{command[0]!r} cannot be run: {error.strerror}; install it again") from error
        if status:
            raise self.failed(meaning(tail) or f"{Path(command[0]).name} ended with {status}; see below", tail)
        return tail

    def failed(self, why: str, tail: str = "") -> EnvironmentBuildError:
        """The error that says why the build failed, with the last words of what failed."""
        lines = [line for line in without_credentials(tail).splitlines() if line.strip()][-_LAST_LINES:]
        words = "".join(f"\n  {line}" for line in lines)
        return EnvironmentBuildError(f"environment {self.source.name!r} could not be built: {why}{words}")

    def program(self, names: Sequence[str]) -> str:
        """The first program of these names that is there, as :func:`mlipcluster.process.find_program` finds it.

        Raises
        ------
        EnvironmentBuildError
            There is none.
        """
        if found := find_program(names):
            return found
        remedy = "pip install uv" if "uv" in names else f"install {names[0]} and put it on the PATH"
        raise self.failed(f"it needs {' or '.join(names)}, which is not there; {remedy}")

    def _variables(self, more: Mapping[str, str] | None) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in _DROPPED}
        kept.update({"NO_COLOR": "1", "UV_NO_PROGRESS": "1", "PYTHONDONTWRITEBYTECODE": "1"}, **(more or {}))
        if kept.get("UV_LINK_MODE") == "symlink":  # into a cache, which whoever owns it may clear
            del kept["UV_LINK_MODE"]
        if not self.options.download:
            kept["UV_PYTHON_DOWNLOADS"] = "never"
        if self.options.download or self.layout.pythons.is_dir():  # those in a home folder are closed to the group
            kept["UV_PYTHON_INSTALL_DIR"] = str(self.layout.pythons)
        return kept
