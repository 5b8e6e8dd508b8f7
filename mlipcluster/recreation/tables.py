"""Pickled tables of outputs, as ``Results.to_dataframe().to_pickle(…)`` writes them.

A pickle can run anything. It is read only where the user asks for it, and by an unpickler that makes tables and nothing
else: every name in the pickle has to be one of `ADMITTED`.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from mlipcluster.errors import InputError, RecordError
from mlipcluster.recreation import containers

# What pandas 1 to 3 and NumPy 1 and 2 make tables of numbers, text and lists from.
ADMITTED: dict[str, frozenset[str]] = {
    "builtins": frozenset({"slice", "set", "frozenset", "complex"}),
    "__builtin__": frozenset({"slice", "set", "frozenset", "complex"}),  # as protocol 2 calls them
    "numpy": frozenset({"dtype", "ndarray"}),
    "numpy.core.multiarray": frozenset({"_reconstruct", "scalar"}),
    "numpy._core.multiarray": frozenset({"_reconstruct", "scalar"}),
    "numpy.core.numeric": frozenset({"_frombuffer"}),
    "numpy._core.numeric": frozenset({"_frombuffer"}),
    "pandas": frozenset({"DataFrame", "Index", "RangeIndex", "StringDtype"}),
    "pandas.arrays": frozenset({"StringArray"}),
    "pandas._libs.arrays": frozenset({"__pyx_unpickle_NDArrayBacked"}),
    "pandas._libs.internals": frozenset({"_unpickle_block"}),
    "pandas.core.arrays.string_": frozenset({"StringArray", "StringArrayNumpySemantics", "StringDtype"}),
    "pandas.core.frame": frozenset({"DataFrame"}),
    "pandas.core.indexes.base": frozenset({"Index", "_new_Index"}),
    "pandas.core.indexes.range": frozenset({"RangeIndex"}),
    "pandas.core.internals.managers": frozenset({"BlockManager"}),
}


def is_table(head: bytes) -> bool:
    """Whether a file that begins so is a pickle (of protocol 2 or newer, as pandas writes them)."""
    return head[:1] == b"\x80"


def row_of_table(path: Path, name: str, *, limit: int, secure: bool) -> Mapping[str, Any]:
    """The row of that name, as the ledger's line would have it: ``name`` and ``file``.

    Raises
    ------
    InputError
        *secure* is not set, pandas is not there, or the table has no such row, or no such columns.
    RecordError
        It is damaged, or something else than a table.
    """
    if not secure:
        raise InputError(
            f"{str(path)!r} is a pickled table, and a pickle can run anything; if you trust it, say --pandas-secure, "
            "or give the run's ledger.jsonl or the output itself"
        )
    table = _unpickle(path, limit)
    missing = {"name", "file"} - {str(column) for column in table.columns}
    if missing:
        raise InputError(
            f"the table {str(path)!r} has no column {' and '.join(sorted(missing))}, so it does not say where an "
            "output lies; give the output itself, or the run's ledger.jsonl"
        )
    rows = [row for row in table[["name", "file"]].to_dict("records") if row["name"] == name]
    if not rows:
        known = [str(other) for other in table["name"][:1]]
        hint = "".join(f"; it has for example {other!r:.200}" for other in known)
        raise InputError(f"the table {str(path)!r} has no row {name!r:.200}{hint}")
    file = rows[-1]["file"]
    return {"name": name, "file": _file_beside(path, name, file)}


def _file_beside(path: Path, name: str, file: object) -> str:
    if not isinstance(file, str) or not file:
        raise InputError(
            f"the table {str(path)!r} names no file for {name!r:.200}; give the run's ledger.jsonl instead"
        )
    if not (path.parent / file).is_file():
        raise InputError(
            f"the table {str(path)!r} names {file!r:.200}, relative to the run's folder, and it is not there; put the "
            "table into the run's folder, or give the output itself"
        )
    return file


def _unpickle(path: Path, limit: int) -> Any:
    try:
        import pandas as pd
    except ImportError as error:
        raise InputError(
            f"{str(path)!r} is a table of pandas, which this Python lacks ({error}); give the run's ledger.jsonl or "
            "the output itself, or use a Python that has pandas"
        ) from None
    try:
        table = _Unpickler(BytesIO(containers.read(path, limit))).load()
    except (RecordError, InputError):
        raise
    except Exception as error:
        raise RecordError(
            f"{str(path)!r} is no table that can be read ({type(error).__name__}: {error}); give the run's "
            "ledger.jsonl or the output itself"
        ) from error
    if not isinstance(table, pd.DataFrame):
        raise RecordError(f"{str(path)!r} holds a {type(table).__name__}, no table; give the run's ledger.jsonl")
    return table


def _latin1(text: str, _: str) -> bytes:
    return text.encode("latin-1")


class _Unpickler(pickle.Unpickler):
    """Makes tables, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """The class or function of that name, if it is one of those that make tables."""
        if (module, name) == ("_codecs", "encode"):  # how protocol 2 writes bytes
            return _latin1
        if name not in ADMITTED.get(module, ()):
            raise RecordError(
                f"the pickle asks for {f'{module}.{name}'!r:.200}, which no table needs; give the run's ledger.jsonl "
                "or the output itself"
            )
        return super().find_class(module, name)
