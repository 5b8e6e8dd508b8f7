"""Files of settings in folders of a test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlipcluster.settings import files
from mlipcluster.settings.keys import PLAIN, variable


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write the site's, the user's or the project's file; the working folder is one below the project's."""
    folder = tmp_path / 'it\'s "here"\nnow'
    paths = {
        "site": folder / "site.toml",
        "user": folder / "config" / "mlipcluster" / "config.toml",
        "project": folder / "project" / "pyproject.toml",
    }
    work = folder / "project" / "deep" / "inside"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setattr(files, "SITE_FILE", str(paths["site"]))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    for name in (files.SITE_VARIABLE, files.PROJECT_VARIABLE, *map(variable, PLAIN)):
        monkeypatch.delenv(name, raising=False)

    def write(which: str, text: str) -> Path:
        paths[which].parent.mkdir(parents=True, exist_ok=True)
        paths[which].write_text(text, encoding="utf-8")
        return paths[which]

    return write
