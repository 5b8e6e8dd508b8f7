"""Build an environment again from the lock files in a folder, measure and compare it, leave nothing half made.

The commands are the managers' own (:data:`mlipcluster.environments.managers.MANAGERS`); here they are shown, run with
one timeout for all, and followed by a measurement. The folder is what `mlipcluster.recreation.dump` wrote, or any
other with lock files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlipcluster.environments.complaints import explain, last_words
from mlipcluster.environments.environment import Environment, difference
from mlipcluster.environments.measure import measure
from mlipcluster.environments.origins import OWN
from mlipcluster.environments.steps import Step
from mlipcluster.errors import EnvironmentBuildError, InputError
from mlipcluster.files import write_atomic
from mlipcluster.process import run_logged
from mlipcluster.recreation import local_packages, programs
from mlipcluster.recreation.dump import CALCULATORS, MEASURED
from mlipcluster.recreation.dump_report import shown
from mlipcluster.recreation.leftovers import (
    BELOW,
    ENVIRONMENT,
    TOKEN,
    Mark,
    alone,
    clear,
    read_mark,
    will_be_made,
    write_mark,
)
from mlipcluster.recreation.printing import printable
from mlipcluster.recreation.recreate_plan import Order, Plan, commands, existing, plan

# Of the shell that this is started from; they would bend what the new environment's programs do, or have pip install
# somewhere else than there.
_FOREIGN = (
    *("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"),
    *("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_DRY_RUN"),
)
Say = Callable[[str], Any]


@dataclass(frozen=True)
class Recreated:
    """An environment that was made.

    Attributes
    ----------
    folder, python : Path
        Where it was made, and its interpreter.
    environment : Environment
        As it measures.
    recorded : Environment, optional
        As it measured where it was recorded.
    """

    folder: Path
    python: Path
    environment: Environment
    recorded: Environment | None

    @property
    def differences(self) -> tuple[str, ...]:
        """One line for each thing that differs from what was recorded."""
        if self.recorded is None or self.recorded.digest == self.environment.digest:
            return ()
        return tuple(difference(self.recorded, self.environment)) or ("the digests differ",)


def recreate(order: Order, say: Say) -> Recreated:
    """Make the environment, and measure it.

    Parameters
    ----------
    order
        What is asked for.
    say
        Called with each line: the commands, and what they print.

    Raises
    ------
    InputError, RecordError
        As `plan`; or the folder has an environment already, or another process works on it.
    EnvironmentBuildError
        A command failed or took too long; what was made has been removed, and what was there before is as it was.
    """
    folder = existing(order.folder)
    with alone(folder):
        made = plan(order)
        _make_room(folder, made, order.force, say)
        for line in made.told:
            say(line)
        mark = Mark(will_be_made(folder, made.python), token=secrets.token_hex(16))
        try:
            with _signals(_interrupt):
                write_mark(folder, mark)
                _run(made, order, mark.token, say)
                environment = _measured(made, folder)
                write_mark(folder, Mark(mark.made, True, mark.token, environment.digest))
        except BaseException as error:
            with _signals(signal.SIG_IGN):
                with contextlib.suppress(OSError):  # whoever was to read it may be gone
                    say("taking away what was made …")
                clear(folder, mark)
            if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):  # that is of who reads
                raise _disk(folder, error) from error
            raise
    return Recreated(folder, made.python, environment, made.recorded)


def others(folder: Path) -> list[Path]:
    """Folders of calculators' environments that were dumped into *folder*."""
    place = folder / CALCULATORS
    return sorted(path for path in place.iterdir() if (path / MEASURED).is_file()) if place.is_dir() else []


def verdict(done: Recreated) -> list[str]:
    """Whether it came out as recorded, and what to do next."""
    digest, count = done.environment.digest, len(done.environment.packages)
    if done.recorded is None:
        lines = [f"made, not verified: there is no {MEASURED}; {count} packages, digest {digest}"]
    elif done.differences:
        lines = ["made, but it differs from what was recorded:", *(f"  {printable(line)}" for line in done.differences)]
    else:
        lines = [f"made as recorded: {count} packages, digest {digest}"]
    lines += [
        f"a calculator's environment is in {shown(str(place))}: recreate that too" for place in others(done.folder)
    ]
    lines += [f"its Python: {shown(str(done.python))}"]
    if any(package.name == local_packages.OURS for package in done.environment.packages):
        lines += ["next:", f"  {shown(str(done.python))} -m mlipcluster reproduce FILE"]
    return lines


def _measured(made: Plan, folder: Path) -> Environment:
    """Measure it; what it was built from lies in it, so that its own lock file will have the hashes again."""
    requirements = folder / "requirements.txt"
    if not programs.brings_python(made.manager) and requirements.is_file():
        write_atomic(folder / OWN, requirements.read_bytes())
    return measure(made.python)


def _make_room(folder: Path, made: Plan, force: bool, say: Say) -> None:
    mark = read_mark(folder)
    if mark is not None and mark.whole and not force:
        same = made.recorded is None or made.recorded.digest == mark.digest
        raise InputError(
            f"{str(folder)!r} has {'the' if same else 'another'} environment already (digest {mark.digest[:12]}…); "
            f"{'use it, or make it again' if same else 'make the recorded one in its place'} with --force"
        )
    if mark is not None:
        _spare_own_tools(folder, mark, made)
        say("taking away what an earlier start left " + ("here …" if mark.whole else "unfinished …"))
        clear(folder, mark)
    names = will_be_made(folder, made.python) | ENVIRONMENT | BELOW  # uv and venv write over a .gitignore
    there = [name for name in sorted(names) if os.path.lexists(folder / name)]
    if there:
        raise InputError(
            f"{str(folder)!r} holds {', '.join(there)}, which was not made by recreating: it is left alone; copy the "
            "lock files to a folder of their own"
        )


def _spare_own_tools(folder: Path, mark: Mark, made: Plan) -> None:
    """An environment is not made again by what is in it, and would be gone."""
    for tool in (sys.executable or "", made.wanted.python, made.wanted.program):
        place = os.path.relpath(os.path.realpath(os.path.dirname(tool)), os.path.realpath(folder))
        if os.path.isabs(tool) and place.partition(os.sep)[0] in mark.made:
            raise InputError(
                f"{tool!r} lies in the environment that would be taken away first; run this with another Python, after "
                "'deactivate' and with no --python of that environment"
            )


def _run(made: Plan, order: Order, token: str, say: Say) -> None:
    deadline = time.monotonic() + order.timeout
    steps = made.steps
    for step, command in zip(steps, commands(steps)):
        say(f"$ {command}")
        try:
            _run_step(step, made.wanted.folder, (deadline - time.monotonic(), token), say)
        except subprocess.TimeoutExpired:
            raise EnvironmentBuildError(
                f"{Path(step.command[0]).name} was ended: all commands together took longer than {order.timeout:g} s; "
                "nothing was left half made; give more with --timeout"
            ) from None


def _run_step(step: Step, folder: Path, limits: tuple[float, str], say: Say) -> None:
    seconds, token = limits
    kept = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    name = Path(step.command[0]).name
    status, tail = run_logged(
        step.command,
        timeout=max(0.01, seconds),
        cwd=folder,
        env={**kept, **step.variables, TOKEN: token},
        log=lambda line: say(f"  {printable(line)}"),
    )
    if status:
        why = explain(tail) or "see what it says"
        raise EnvironmentBuildError(
            f"{name} could not make the environment (exit status {status}): {why}. Nothing was left half made. "
            f"Its last words:\n{last_words(tail)}"
        )


def _disk(folder: Path, error: OSError) -> EnvironmentBuildError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "make room on that disk" if full else "see to the folder and the program"
    return EnvironmentBuildError(f"the environment in {str(folder)!r} could not be made ({error}); {remedy}")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _signals(handler: Any) -> Iterator[None]:
    """While the block runs, what asks this process to end does so by *handler*; only the main thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number in numbers:
            if before[number] not in (signal.SIG_IGN, None):  # as nohup sets it; or set by another language
                signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            if old is not None:
                signal.signal(number, old)
