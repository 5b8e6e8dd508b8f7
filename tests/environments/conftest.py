"""A small environment that each test may fill by hand."""

from __future__ import annotations

import json
import sysconfig
import venv
from pathlib import Path

import pytest


class FakeEnvironment:
    """A real virtual environment, with packages that are nothing but their metadata."""

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        venv.create(prefix, symlinks=True, with_pip=False)
        self.python = prefix / "bin" / "python"
        self.site = prefix / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"

    def install(self, name, version, *, url=None, record="", metadata="", **direct):
        folder = self.site / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        text = metadata or f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: not this\n"
        (folder / "METADATA").write_text(text)
        (folder / "RECORD").write_text(record)
        if url is not None:
            (folder / "direct_url.json").write_text(json.dumps({"url": url, **direct}))
        return folder

    def pyvenv(self, line):
        with open(self.prefix / "pyvenv.cfg", "a") as file:
            file.write(line + "\n")

    def conda(self, name, version, build="0", **more):
        folder = self.prefix / "conda-meta"
        folder.mkdir(exist_ok=True)
        meta = {"name": name, "version": version, "build": build, "files": [], **more}
        (folder / f"{name}-{version}-{build}.json").write_text(json.dumps(meta))


@pytest.fixture
def make_environment(tmp_path):
    def make(name="an 'env' ü", parent=None):
        return FakeEnvironment((parent or tmp_path) / name)

    return make


@pytest.fixture
def environment(make_environment):
    return make_environment()
