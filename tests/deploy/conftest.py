from __future__ import annotations

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
