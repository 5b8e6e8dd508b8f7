"""Tables of calculators that users write: ``FILE.py:NAME`` or ``package.module:NAME``, name → factory."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from mlipcluster.calculators.known import Known
from mlipcluster.calculators.module_folders import folder_of
from mlipcluster.calculators.offered import Place, offered
from mlipcluster.errors import InputError
from mlipcluster.socket_worker.factory import table_of

#: Names that a worker has imported before it looks for a table.
TAKEN = frozenset({*sys.stdlib_module_names, "ase", "numpy"})


def read_table(table: str) -> list[Known]:
    """The calculators of a table: a mapping, or a function without arguments that returns one.

    Parameters
    ----------
    table : str
        ``"registry.py:CALCULATORS"``, ``"mypackage.registry:get_calculators"``.

    Raises
    ------
    InputError
        There is no such file or name, importing fails, it is no mapping, or a value in it describes no calculator.
    """
    where, _, name = table.rpartition(":")
    if not where or not all(part.isidentifier() for part in name.split(".")):
        raise InputError(f"{table!r:.200} is no table of calculators; give FILE.py:NAME or package.module:NAME")
    with _imported(where, table) as module:
        mapping = _mapping(module, name, table)
        folder = os.path.dirname(str(module.__file__)) if _is_file(where) else folder_of(where)
        place = Place(table, module.__name__, name, folder)
        return [offered(key, value, place) for key, value in mapping.items()]


def _mapping(module: ModuleType, name: str, table: str) -> Mapping[Any, Any]:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise InputError(f"{table}: there is no {name!r} in it; {_instead(module, name)}")
        found = getattr(found, part)
    try:
        return table_of(found)
    except Exception as error:
        raise InputError(f"{table}: {name} gives no table: {type(error).__name__}: {error}; correct it") from error


def _instead(module: ModuleType, name: str) -> str:
    tables = sorted(
        key for key, value in vars(module).items() if isinstance(value, Mapping) and not key.startswith("_")
    )
    if not tables:
        return f"write {name} = {{'name': factory}} there"
    close = difflib.get_close_matches(name, tables, n=1)
    return f"did you mean {close[0]!r}?" if close else f"its tables are {', '.join(tables)}"


def _is_file(where: str) -> bool:
    return where.endswith(".py") or os.sep in where


@contextlib.contextmanager
def _imported(where: str, table: str) -> Iterator[ModuleType]:
    """The module; one of the working folder, too. One of a file is forgotten again: another may have its name."""
    if not _is_file(where):
        with _on_path(len(sys.path), os.path.abspath("")), _told(table):
            module = importlib.import_module(where)
        yield module
        return
    path = _path(where, table)
    before = dict(sys.modules)
    with _on_path(0, str(path.parent)):
        try:
            with _told(table):
                module = _run(path)
            yield module
        finally:
            _forget(str(path.parent), before)


@contextlib.contextmanager
def _on_path(place: int, folder: str) -> Iterator[None]:
    sys.path.insert(place, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the module may have changed it, too
            sys.path.remove(folder)


def _forget(folder: str, before: Mapping[str, ModuleType]) -> None:
    """Take out what was imported from the folder itself; what is installed, in a ``.venv`` there say, stays."""
    new = [name for name, module in sys.modules.items() if module is not before.get(name)]
    for name in [name for name in new if folder_of(name) == folder]:
        sys.modules.pop(name, None)
        if name in before:
            sys.modules[name] = before[name]


@contextlib.contextmanager
def _told(table: str) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{table} cannot be imported: {type(error).__name__}: {error}; correct it, or run mlipcluster in a Python"
            " that has what it needs"
        ) from error


def _path(where: str, table: str) -> Path:
    path = Path(os.path.abspath(os.path.expanduser(where)))
    if not path.is_file() or path.suffix != ".py":
        raise InputError(f"{table}: there is no Python file {str(path)!r}; correct the path")
    if not path.stem.isidentifier() or path.stem in TAKEN:
        raise InputError(f"{table}: workers import the file as module {path.stem!r}, which cannot be; rename it")
    return path


def _run(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
