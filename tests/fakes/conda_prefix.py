"""Prefixes as conda, mamba and pixi leave them, with this machine's own Python; for the fakes in ``bin``."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import sysconfig
from pathlib import Path

PYTHON = ".".join(str(part) for part in sys.version_info[:3])
MACHINE = {"x86_64": "64", "arm64": "arm64", "aarch64": "aarch64"}
SUBDIR = f"{'osx' if sys.platform == 'darwin' else 'linux'}-{MACHINE.get(os.uname().machine, os.uname().machine)}"
SITE = f"lib/python{sysconfig.get_python_version()}/site-packages"
STAND_INS = {"ase", "numpy"}  # packages that can be imported
MISSING = "FAKE_CONDA_MISSING"  # names of packages that are no longer to be had, with spaces


def python_links() -> dict[str, Path]:
    """What a Python needs to run from another prefix, as links: its library, without what is installed."""
    version = sysconfig.get_python_version()
    standard = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "__pycache__"}
    links = {f"lib/python{version}/{entry.name}": entry for entry in standard.iterdir() if entry.name not in skipped}
    shared = Path(sysconfig.get_config_var("LIBDIR") or "/nowhere")
    return links | {f"lib/{entry.name}": entry for entry in shared.glob("libpython*")}


def python_program() -> Path:
    """The program itself, which is copied: its place tells its prefix."""
    return Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))


class Prefix:
    """A prefix that is being made."""

    def __init__(self, path: Path, command: list[str]) -> None:
        self.path = path
        (path / "conda-meta").mkdir(parents=True)
        text = f"==> 2026-01-01 12:00:00 <==\n# cmd: {' '.join(command)}\n# conda version: 26.1.0\n"
        (path / "conda-meta" / "history").write_text(text)

    def conda(self, name: str, version: str, build: str, channel: str, subdir: str = SUBDIR) -> None:
        """Link a package of a channel's address."""
        file = f"{name}-{version}-{build}.conda"
        md5 = hashlib.md5(file.encode(), usedforsecurity=False).hexdigest()
        meta = {
            "name": name,
            "version": version,
            "build": build,
            "build_number": 0,
            "channel": f"{channel}/{subdir}",
            "subdir": subdir,
            "fn": file,
            "url": f"{channel}/{subdir}/{file}",
            "md5": md5,
            "depends": [] if name == "python" else ["python >=3"],
            "files": [],
        }
        (self.path / "conda-meta" / f"{name}-{version}-{build}.json").write_text(json.dumps(meta))
        if name == "python":
            self._python()
        if name in STAND_INS:
            (self.path / SITE).mkdir(parents=True, exist_ok=True)
            (self.path / SITE / f"{name}.py").write_text(f"__version__ = {version!r}\n")

    def _python(self) -> None:
        (self.path / "bin").mkdir()
        (self.path / SITE).mkdir(parents=True, exist_ok=True)
        shutil.copy(python_program(), self.path / "bin" / "python3")
        (self.path / "bin" / "python").symlink_to("python3")
        for name, target in python_links().items():
            (self.path / name).symlink_to(target)

    def pypi(self, name: str, version: str, installer: str) -> None:
        """Install a Python package that is nothing but its metadata."""
        folder = self.path / SITE / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (folder / "INSTALLER").write_text(f"{installer}\n")
        (folder / "RECORD").write_text("")


def gone(names: list[str]) -> list[str]:
    """Those that are no longer to be had."""
    return [name for name in names if name in os.environ.get(MISSING, "").split()]
