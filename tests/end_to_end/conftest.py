"""Users' scripts, run as users run them: a file, a process of its own, real workers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from ase import Atoms

MARK = "MLIPCLUSTER_TEST_MARK"
ENDS_WITHIN = 30.0  # seconds; not a speed, a limit for what should end at once


class Script:
    """A user's script in a folder of its own, started as often as one likes.

    Every process that it starts, wherever that lies in the tree of processes, carries a mark in its environment.
    """

    def __init__(self, folder: Path, text: str, python: str = sys.executable) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "script.py"
        self.path.write_text(textwrap.dedent(text), encoding="utf-8")
        self.python = python
        self.mark = uuid.uuid4().hex
        self.log = folder / "script.log"
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start it and go on."""
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [self.python, "-W", "error", os.fspath(self.path), *arguments],
                cwd=self.folder,
                env={**os.environ, MARK: self.mark, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def run(self, *arguments: str, **environment: str) -> str:
        """Start it, wait for its end, and give what it printed."""
        status = self.start(*arguments, **environment).wait(240)
        text = self.log.read_text(encoding="utf-8", errors="replace")
        assert status == 0, f"exit status {status}:\n{text}"
        return text

    def processes(self, kind: str = "") -> list[psutil.Process]:
        """What runs of it now; *kind*: ``"driver"``, ``"nanny"``, ``"worker"``, ``"protocols"`` or ``"calculator"``."""
        found = [process for process in psutil.process_iter() if self._is_ours(process)]
        return [process for process in found if not kind or _kind(process) == kind]

    def wait_until_gone(self) -> None:
        """Whatever is left must end by itself."""
        deadline = time.monotonic() + ENDS_WITHIN
        while left := self.processes():
            assert time.monotonic() < deadline, f"still running: {[_told(process) for process in left]}"
            time.sleep(0.05)

    def end(self) -> None:
        """End whatever is left; for the end of a test."""
        for process in self.processes():
            _kill(process)
        for process in self._started:
            process.wait(10)

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == self.mark
        except psutil.Error:
            return False


def _kind(process: psutil.Process) -> str:
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return "gone"
    for kind, sign in {
        "driver": "script.py",
        "protocols": "mlipcluster.protocol_process",
        "calculator": "/socket_worker ",
        "nanny": "mlipcluster.deploy.worker",
        "worker": "spawn_main",
    }.items():
        if sign in command:
            return kind
    return "other"


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)


def _told(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return "ended meanwhile"


def _scripts(folder: Path) -> Iterator[Callable[..., Script]]:
    made: list[Script] = []

    def make(text: str, name: str = "user's folder", python: str = sys.executable) -> Script:
        made.append(Script(folder / name, text, python))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture
def script(tmp_path) -> Iterator[Callable[..., Script]]:
    """Makes scripts; what they left running is ended after the test."""
    yield from _scripts(tmp_path)


@pytest.fixture(scope="module")
def script_of_module(tmp_path_factory) -> Iterator[Callable[..., Script]]:
    """The same, for fixtures that a module's tests share."""
    yield from _scripts(tmp_path_factory.mktemp("scripts"))


@pytest.fixture(scope="session")
def lines() -> Callable[[Path], list[dict]]:
    """Every line of a file of JSON lines; a torn or damaged one raises."""

    def lines(path: Path) -> list[dict]:
        text = path.read_text(encoding="utf-8")
        assert text.endswith("\n")
        return [json.loads(line) for line in text.splitlines()]

    return lines


@pytest.fixture(scope="session")
def bits() -> Callable[[Atoms], dict[str, bytes]]:
    """Every number of a structure and of its results, as bytes."""

    def bits(atoms: Atoms) -> dict[str, bytes]:
        results = atoms.calc.results if atoms.calc is not None else {}
        numbers = {**atoms.arrays, "cell": atoms.cell.array, **{f"result {k}": v for k, v in results.items()}}
        return {name: np.ascontiguousarray(value).tobytes() for name, value in numbers.items()}

    return bits
