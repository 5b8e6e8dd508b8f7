"""Which Python an environment is made with."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mlipcluster.errors import EnvironmentBuildError
from mlipcluster.store.versions import allows
from mlipcluster.store.workplace import Workplace

_ASK = "import platform, sys; print(sys.executable, platform.python_version(), sep='\\n')"


def choose_python(work: Workplace, uv: str) -> tuple[Path, str]:
    """An interpreter that the source allows, and its version (``"3.11.7"``).

    The one that was asked for; else the one that this runs on, not that of a virtual environment but the one below it;
    else what uv finds; else what uv downloads, if that is allowed.

    Raises
    ------
    EnvironmentBuildError
        There is none, or the one that was asked for is not allowed.
    InputError
        ``requires-python`` cannot be read.
    """
    wanted, asked = work.source.requires_python, work.options.python
    if not asked and allows(wanted, sys.version_info[:3]):
        return _version(work, getattr(sys, "_base_executable", "") or sys.executable)
    request = asked or wanted
    find = (uv, "python", "find", "--system", "--no-project", request)
    try:
        found = work.run(find)
    except EnvironmentBuildError as error:
        if not work.options.download:
            raise work.failed(
                f"there is no Python {request!r} on this machine; name one with --python, or give --download-python"
            ) from error
        work.run((uv, "python", "install", request))
        found = work.run(find)
    paths = [line for line in found.splitlines() if Path(line).is_file()]  # uv may warn of others
    python, version = _version(work, paths[-1] if paths else found.strip())
    if not allows(wanted, tuple(int(number) for number in re.findall(r"\d+", version)[:3])):
        raise work.failed(f"its source asks for Python {wanted}, and {request!r} is {version}; name another --python")
    return python, version


def _version(work: Workplace, python: str) -> tuple[Path, str]:
    """The interpreter itself, and its version."""
    executable, version = work.run((python, "-I", "-c", _ASK)).strip().splitlines()[-2:]
    return Path(executable or python), version
