"""A package index of this machine, and environments of each manager to apply the contracts to."""

from __future__ import annotations

import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

FAKES = Path(__file__).parents[1] / "fakes"
BACKEND = """
import zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None, editable=False):
    name = "mine-0.1-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("mine.py", "x = 1\\n")
        info = "mine-0.1.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: mine\\nVersion: 0.1\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", f"mine.py,,\\n{info}/METADATA,,\\n{info}/WHEEL,,\\n{info}/RECORD,,\\n")
    return name
build_editable = build_wheel
"""


def wheel(folder: Path, name: str, version: str) -> Path:
    """A wheel of nothing but a module."""
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"version = {version!r}\n")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        files = (f"{name}.py", f"{info}/METADATA", f"{info}/WHEEL", f"{info}/RECORD")
        archive.writestr(f"{info}/RECORD", "".join(f"{file},,\n" for file in files))
    return path


@dataclass
class Machine:
    """What the commands of a test are run with: variables and programs."""

    variables: dict[str, str]
    uv: str
    programs: dict[str, str] = field(default_factory=dict)

    def run(self, *command, **variables):
        env = {**os.environ, **self.variables, **variables}
        done = subprocess.run([str(part) for part in command], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def index(tmp_path_factory):
    """Address of a package index (PEP 503) with tiny-thing 1.5 and 1.6, other-thing 2.0 and this Python's pip.

    With ``without`` instead of ``simple`` at its end it is one that has no tiny-thing.
    """
    root = tmp_path_factory.mktemp("index")
    files = root / "files"
    files.mkdir()
    wheels = [wheel(files, *what) for what in (("tiny_thing", "1.5"), ("tiny_thing", "1.6"), ("other_thing", "2.0"))]
    import ensurepip

    bundled = (Path(ensurepip.__file__).parent / "_bundled").glob("*.whl")
    wheels += [Path(shutil.copy(path, files)) for path in bundled]
    for path in wheels:
        name, digest = path.name.split("-")[0].replace("_", "-"), hashlib.sha256(path.read_bytes()).hexdigest()
        for top in ("simple", "without") if name != "tiny-thing" else ("simple",):
            page = root / top / name / "index.html"
            page.parent.mkdir(parents=True, exist_ok=True)
            with open(page, "a") as file:
                file.write(f'<a href="/files/{path.name}#sha256={digest}">{path.name}</a>\n')
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(root))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()


@pytest.fixture(scope="session")
def machine(index, uv, tmp_path_factory):
    """Real uv and pip with that index alone, and conda, mamba, micromamba and pixi that are fakes."""
    variables = {
        "PIP_INDEX_URL": index,
        "PIP_FIND_LINKS": "",
        "PIP_NO_CACHE_DIR": "1",
        "UV_DEFAULT_INDEX": index,
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_CACHE_DIR": str(tmp_path_factory.mktemp("uv") / "uv cache"),
        "PATH": f"{FAKES / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    programs = {name: str(FAKES / "bin" / name) for name in ("conda", "mamba", "micromamba", "pixi")}
    return Machine(variables, uv, programs | {"uv": uv, "pip": ""})


@pytest.fixture
def local_package(tmp_path):
    """A folder with the package mine 0.1, which is built without any other."""
    folder = tmp_path / "a place" / "mine"
    folder.mkdir(parents=True)
    (folder / "backend.py").write_text(BACKEND)
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "mine"\nversion = "0.1"\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    return folder
