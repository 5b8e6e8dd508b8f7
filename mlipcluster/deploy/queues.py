"""What one can ask of a batch system: submit, look, cancel, find. The systems' own files say it in their commands."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mlipcluster.errors import RunError
from mlipcluster.process import run_command

TIMEOUT = 60.0
ATTEMPTS = 4
PAUSE = 2.0
"""Seconds a command may take; how often one is tried while the system is busy; seconds before the second attempt,
twice as many before the next, and so on."""
WORDS = 2000
"""Characters of what a command says that an error quotes."""

PENDING, RUNNING, ENDED = "pending", "running", "ended"


@dataclass(frozen=True)
class JobState:
    """What a batch system says of a job.

    Attributes
    ----------
    state : str
        ``"pending"``, ``"running"`` or ``"ended"``.
    reason : str
        Why it waits, in the system's own words; or how it ended: ``TIMEOUT``, ``PREEMPTED``, ``NODE_FAIL``,
        ``CANCELLED``, ``FAILED (exit code 127)``, ``COMPLETED``, as far as that system tells. Else empty.
    node : str
        Where it runs or ran.
    """

    state: str
    reason: str = ""
    node: str = ""


GONE = JobState(ENDED)
"""A job that the system does not know any more."""


class Queue(ABC):
    """The jobs of a batch system, through its own commands.

    Attributes
    ----------
    system : str
        Its name, for messages.
    busy : tuple of str
        What its commands say when they did not get through, so that nothing was done: they are tried again.
    uncertain : tuple of str
        What they say when nobody knows; only what does no harm twice is tried again.
    unknown : tuple of str
        What they say of jobs that have ended, or are not there.
    options : tuple of str
        Beginnings of environment variables that stand for options of theirs: a user's own are for his own use.
    """

    system: ClassVar[str]
    busy: ClassVar[tuple[str, ...]] = ()
    uncertain: ClassVar[tuple[str, ...]] = ()
    unknown: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def submit(self, script: str, folder: Path) -> str:
        """Submit a job whose working folder is *folder*; the system's name of it.

        Raises
        ------
        RunError
            It was refused; the message passes on why.
        """

    @abstractmethod
    def look(self, jobs: Iterable[str]) -> dict[str, JobState]:
        """What becomes of *jobs*; what the system does not know any more has ended.

        Raises
        ------
        RunError
            The system does not answer.
        """

    @abstractmethod
    def cancel(self, jobs: Iterable[str]) -> None:
        """End *jobs*, whether they wait or run; those that have ended are passed over.

        Raises
        ------
        RunError
            The system does not answer, or refuses.
        """

    @abstractmethod
    def find(self, name: str) -> list[str]:
        """One's own jobs of that name that wait or run.

        Raises
        ------
        RunError
            The system does not answer.
        """

    def _ask(self, command: Sequence[str]) -> str:
        """What a command prints; of jobs that it does not know it may complain."""
        done = self._run(command, retry=(*self.busy, *self.uncertain))
        if done.returncode and not _says(done, self.unknown):
            raise RunError(
                f"{self.system} does not answer: `{command[0]}` says: {_words(done)}. See whether `{command[0]}` works "
                "by hand, then run the same again; all that is finished is saved."
            )
        return done.stdout

    def _submit(
        self,
        command: Sequence[str],
        script: str | None,
        folder: Path,
        env: Mapping[str, str] | None = None,
    ) -> str:
        """What the submitting command prints."""
        done = self._run(command, text=script, retry=self.busy, cwd=folder, env=env)
        if done.returncode:
            raise RunError(
                f"{self.system} refuses the job: `{command[0]}` says: {_words(done)}. Change what it names "
                "(`mlipcluster cluster show` prints the job script), then run the same again."
            )
        return done.stdout

    def _run(
        self,
        command: Sequence[str],
        *,
        retry: Sequence[str],
        text: str | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, again while the system is busy."""
        env = {name: text for name, text in (env or os.environ).items() if not name.startswith(self.options)}
        if shutil.which(command[0], path=env.get("PATH")) is None:
            raise RunError(
                f"there is no command {command[0]!r} here, which {self.system} comes with. Run on a machine that "
                "submits jobs, such as a login node, and have its commands on the PATH."
            )
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            try:
                done = run_command(command, timeout=TIMEOUT, text=text, cwd=cwd, env=env)
            except (subprocess.TimeoutExpired, OSError) as error:
                slow = isinstance(error, subprocess.TimeoutExpired)
                why = f"took longer than {TIMEOUT:.0f} s" if slow else f"cannot be started ({error})"
                raise RunError(
                    f"{self.system} does not answer: `{command[0]}` {why}. See whether it works by hand, then run the "
                    "same again; all that is finished is saved."
                ) from None
            if not (done.returncode and _says(done, retry)):
                break
        return done


def user_name() -> str:
    """Who we are to a batch system; the number where it has no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def failure(code: int, signal: int = 0) -> str:
    """How a job ended that told its exit status."""
    if signal:
        return f"FAILED (signal {signal})"
    return f"FAILED (exit code {code})" if code else "COMPLETED"


def _says(done: subprocess.CompletedProcess[str], texts: Sequence[str]) -> bool:
    said = (done.stderr + done.stdout).lower()
    return any(text.lower() in said for text in texts)


def _words(done: subprocess.CompletedProcess[str]) -> str:
    said = " ".join((done.stderr.strip() or done.stdout.strip() or f"nothing (status {done.returncode})").split())
    return said[:WORDS].rstrip(".")
