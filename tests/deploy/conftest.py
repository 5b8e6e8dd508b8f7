from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from mlipcluster.deploy.deployment import Place


@pytest.fixture
def place(tmp_path):
    """What a run lends its first deployment."""
    run = tmp_path / "run"
    (run / "logs").mkdir(parents=True)
    return Place("0" * 12, 0, run / "logs", run / "private" / "0", run / "jobs.jsonl")


@pytest.fixture
def modes():
    """Of each file and folder below one, its mode."""

    def told(folder):
        return {path.name: path.stat().st_mode & 0o777 for path in sorted(Path(folder).rglob("*"))}

    return told


@pytest.fixture
def say(tmp_path, monkeypatch):
    """``say(program="text")`` or ``say(program=("complaint", status))``: programs on the PATH that say that."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr("mlipcluster.deploy.queues.PAUSE", 0.01)

    def write(**programs):
        for name, told in programs.items():
            text, status = told if isinstance(told, tuple) else (told, 0)
            where = ">&2" if status else ""
            (folder / name).write_text(f"#!/bin/sh\nprintf %s {shlex.quote(text)} {where}\nexit {status}\n")
            (folder / name).chmod(0o755)
        return [folder / name for name in programs]

    return write
