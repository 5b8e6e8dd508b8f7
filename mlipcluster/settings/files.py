"""The files that settings are read from: the site's, the user's, and the project's ``pyproject.toml``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlipcluster.errors import InputError

SITE_FILE = "/etc/mlipcluster/config.toml"
#: Names another site's file; then it has to be there.
SITE_VARIABLE = "MLIPCLUSTER_SITE_CONFIG"
PROJECT_FILE = "pyproject.toml"
#: Names another project's file, or one that belongs to somebody else; then it has to be there.
PROJECT_VARIABLE = "MLIPCLUSTER_PROJECT"
#: Whether a project says anything to us can be seen without reading its TOML, which may need a package, or be broken.
_SAYS = re.compile(r"""(?m)\btool["']?\s*\.\s*["']?mlipcluster\b|^\s*\[\s*["']?tool["']?\s*\]|^\s*["']?tool["']?\s*=""")


def told() -> Iterator[tuple[Path, dict[str, Any]]]:
    """The files that count and what is in them, in the order in which they are read; the last has the last word.

    Raises
    ------
    InputError
        A file is no TOML, or somebody else's, or one that a variable names is not there.
    """
    for path in (_site_file(), user_file()):
        if path.is_file():
            yield path, _parsed(path, _text(path))
    project = project_file()
    if project is not None and _SAYS.search(text := _text(project)):
        table: Any = _parsed(project, text)
        for name in ("tool", "mlipcluster"):
            table = table.get(name, {})
            if not isinstance(table, dict):
                raise InputError(f"{project}: {name!r} is {table!r:.80}; make it a table, [tool.mlipcluster]")
        if table:
            _check_owner(project)
            yield project, table


def user_file() -> Path:
    """Where the user's own settings are, or would be."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    folder = Path(base) if os.path.isabs(base) else Path("~/.config").expanduser()
    return folder / "mlipcluster" / "config.toml"


def project_file() -> Path | None:
    """The nearest ``pyproject.toml``, from the working folder upwards; or the file that the variable names.

    Raises
    ------
    InputError
        :data:`PROJECT_VARIABLE` names a file that is not there.
    """
    if os.environ.get(PROJECT_VARIABLE):
        return _named(PROJECT_VARIABLE)
    try:
        here = os.getcwd()
    except OSError:  # the working folder was removed
        return None
    while True:
        path = os.path.join(here, PROJECT_FILE)
        if os.path.isfile(path):
            return Path(path)
        above = os.path.dirname(here)
        if above == here:
            return None
        here = above


def _site_file() -> Path:
    return _named(SITE_VARIABLE) if os.environ.get(SITE_VARIABLE) else Path(SITE_FILE)


def _named(variable: str) -> Path:
    named = os.environ[variable]
    path = Path(os.path.abspath(os.path.expanduser(named)))
    if not path.is_file():
        raise InputError(f"{variable} names {named!r}, which is no file; correct it or unset it")
    return path


def _check_owner(project: Path) -> None:
    """See that nobody else has left the file in a folder above, in ``/tmp`` say: it may name code that is run."""
    if not os.environ.get(PROJECT_VARIABLE) and project.stat().st_uid not in (0, os.getuid()):
        raise InputError(
            f"{project} has settings, but belongs to another user, who would say which code runs here; if you trust it,"
            f" set {PROJECT_VARIABLE} to its path"
        )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def _parsed(path: Path, text: str) -> dict[str, Any]:
    tomllib = _reader()
    if tomllib is None:
        raise InputError(f"{path} cannot be read by this Python, which has no TOML reader; install tomli in it")
    try:
        return dict(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} cannot be read: {error}. Correct the file, or remove it")


def _reader() -> Any:
    """Python's reader of TOML, the package that it was before 3.11, or None."""
    for name in ("tomllib", "tomli"):
        try:
            return __import__(name)
        except ImportError:
            continue
    return None
