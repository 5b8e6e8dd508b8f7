from __future__ import annotations

import importlib
import itertools
import linecache
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

NUMBER = itertools.count()


class Code:
    """A folder of a user's modules, under names that no other test has used."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = next(NUMBER)

    def name(self, stem: str) -> str:
        return f"{stem}_{self.number}"

    def write(self, stem: str, text: str):
        """Write (again) and import a module; ``NUMBER`` in its text is what makes its names its own."""
        path = self.folder / f"{self.name(stem)}.py"
        path.write_text(textwrap.dedent(text).replace("NUMBER", str(self.number)))
        for name in [name for name in sys.modules if name.endswith(f"_{self.number}")]:
            del sys.modules[name]
        linecache.clearcache()
        importlib.invalidate_caches()
        return importlib.import_module(self.name(stem))

    def git(self, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=self.folder, check=True, capture_output=True)

    def commit(self, message: str) -> None:
        if not (self.folder / ".git").exists():
            self.git("init")
        self.git("add", ".")
        self.git("commit", "-m", message)


@pytest.fixture
def code(tmp_path, monkeypatch):
    folder = tmp_path / "code"
    folder.mkdir()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(folder))
    return Code(folder)


@pytest.fixture
def run(run, cu, run_folder):
    """Run protocols on copper with EMT, and see that nothing failed."""

    def run_on_copper(*protocols, tasks=None, calculator="emt", **options):
        named = {} if "calculators" in options else {"calculator": calculator}
        results = run(cu if tasks is None else tasks, *protocols, output_path=run_folder, **named, **options)
        assert not results.failures, results.failures[0].traceback
        return results

    return run_on_copper
