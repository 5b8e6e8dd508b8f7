"""What a run gave: outputs, failures, tables."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from mlipcluster.errors import InputError, RecordError, RunFolderError
from mlipcluster.files import RunFolder
from mlipcluster.outputs.entries import PASSED_ON, Slot, newest
from mlipcluster.outputs.failure import read_failure
from mlipcluster.outputs.ledger import Ledger
from mlipcluster.outputs.output import Output, read_output
from mlipcluster.records.packing import decode

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Failure:
    """A call that failed.

    Attributes
    ----------
    name : str
        Name of the call.
    type : str
        Class of the exception that the protocol or the calculator raised.
    message : str
        Its text.
    attempts : int
        How often the call was tried.
    source : str
        Where the structure came from, e.g. ``"Cu.cif#0"``.
    path : Path or None
        The file with everything: traceback, what was printed, input, record.
    entry : mapping
        Its line in the ledger.
    """

    name: str
    type: str
    message: str
    attempts: int
    source: str
    path: Path | None = None
    entry: Entry = field(default_factory=dict, repr=False)

    @property
    def traceback(self) -> str:
        """The traceback, read from the file; empty when that is gone."""
        return str(self._error.get("traceback") or "")

    @property
    def printed(self) -> str:
        """The end of what the call printed."""
        return str(self.details.get("printed") or "")

    @cached_property
    def details(self) -> Mapping[str, Any]:
        """All of the failure's file, as `mlipcluster.outputs.failure.read_failure` reads it; empty without one."""
        try:
            return read_failure(self.path) if self.path is not None else {}
        except RecordError:
            return {}

    @property
    def _error(self) -> Mapping[str, Any]:
        error = self.details.get("error")
        return error if isinstance(error, Mapping) else {}


class Outputs(Sequence[Output]):
    """The outputs of a run as a sequence that reads each file when it is asked for."""

    def __init__(self, entries: Sequence[Entry], root: Path, trust: bool = False) -> None:
        self._entries = entries
        self._root = root
        self._trust = trust

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Output: ...
    @overload
    def __getitem__(self, index: slice) -> Outputs: ...
    def __getitem__(self, index: int | slice) -> Output | Outputs:
        if isinstance(index, slice):
            return Outputs(self._entries[index], self._root, self._trust)
        return _load(self._entries[index], self._root, self._trust)

    def __repr__(self) -> str:
        return f"<{len(self)} outputs in {self._root}>"


class Results:
    """What a run gave; iterating reads its outputs one by one.

    Parameters
    ----------
    entries : iterable of mappings
        Lines of its ledger, oldest first; of each call only the newest hold.
    root : path
        The run folder, which files are named relative to.
    trust : bool
        Whether pickles in the outputs' structures may be loaded.

    Examples
    --------
    >>> results = Results.open("runs/relax")  # doctest: +SKIP
    >>> results.to_dataframe()[["formula", "energy", "max_force"]]  # doctest: +SKIP
    """

    def __init__(self, entries: Iterable[Entry], root: str | os.PathLike[str], *, trust: bool = False) -> None:
        self.root = Path(root)
        # What failed once and was passed on to the next protocol later is neither output nor failure.
        self.entries: list[Entry] = [entry for entry in newest(entries) if entry.get("status") != PASSED_ON]
        self._trust = trust

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, trust: bool = False) -> Results:
        """The results that a run folder (or a ledger in it) holds, also while the run goes on.

        Raises
        ------
        RunFolderError
            There is no ledger.
        RecordError
            A line of the ledger is damaged.
        """
        path = Path(folder).expanduser()
        ledger = path if path.is_file() else RunFolder(path).ledger
        if not ledger.is_file():
            raise RunFolderError(f"{path} holds no run: there is no {ledger.name}; give the output_path of a run")
        return cls(Ledger(ledger).entries(), ledger.parent.absolute(), trust=trust)

    def __iter__(self) -> Iterator[Output]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self._of("output"))

    @property
    def outputs(self) -> Outputs:
        """The outputs that have a file (or a record in the ledger), in a fixed order."""
        return Outputs([e for e in self._of("output") if e.get("file") or e.get("record")], self.root, self._trust)

    @property
    def failures(self) -> list[Failure]:
        """The calls that failed, in a fixed order."""
        return [_failure(entry, self.root) for entry in self._of("failed")]

    @property
    def counts(self) -> dict[str, int]:
        """Number of ``output``, ``failed`` and ``empty`` entries."""
        found = Counter(str(entry.get("status")) for entry in self.entries)
        return {status: found.get(status, 0) for status in ("output", "failed", "empty")}

    def to_dataframe(self) -> pd.DataFrame:
        """One row an output, failure or empty call, in a fixed order; the columns are there also without rows.

        Columns: ``name``, ``formula``, ``natoms``, ``energy`` (eV), ``max_force`` (eV/Å), the other scores by name,
        then ``seconds``, ``seed`` (of the last protocol), ``seeds``, ``replicate``, ``calculator``, ``protocol``,
        ``source``, ``step``, ``output`` (its index), ``status``, ``error``, ``file``, ``identity``.
        """
        from mlipcluster.outputs.table import to_dataframe

        return to_dataframe(self.entries)

    def reduce(self, function: Callable[[list[Output]], T]) -> T:
        """Hand all outputs to *function* as one list and return what it makes of them.

        Examples
        --------
        >>> results.reduce(lambda outputs: min(outputs, key=lambda o: o.scores["energy"]))  # doctest: +SKIP
        """
        return function(list(self.outputs))

    def compare(self, score: str) -> pd.DataFrame:
        """A score of each task, side by side for each calculator.

        Parameters
        ----------
        score
            Name of a score, e.g. ``"energy"``.

        Returns
        -------
        pandas.DataFrame
            Rows: source (with repeat and output, where there are several). Columns: calculators. NaN where a
            calculator failed.

        Raises
        ------
        InputError
            No output has that score; the message lists those there are.
        """
        from mlipcluster.outputs.table import compare

        return compare(self.entries, score)

    def __repr__(self) -> str:
        from mlipcluster.outputs.showing import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from mlipcluster.outputs.showing import as_html

        return as_html(self)

    def _of(self, status: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.get("status") == status]


def _load(entry: Entry, root: Path, trust: bool) -> Output:
    if entry.get("file"):
        return read_output(root / entry["file"], trust=trust)
    record = entry["record"]
    try:
        atoms = decode(record["metadata"]["result"]["atoms"], trust=trust)
    except (KeyError, TypeError):
        raise InputError(
            f"output {entry.get('name')!r} was not saved: it has no file and no structure in the ledger; run again with"
            " output_types=('extxyz',)"
        ) from None
    except RecordError as error:
        raise RecordError(f"output {entry.get('name')!r} in the ledger of {root}: {error}") from error
    return Output(str(entry.get("name")), atoms, entry.get("scores") or {}, record, None)


def _failure(entry: Entry, root: Path) -> Failure:
    error = entry.get("error") or {}
    return Failure(
        name=str(entry.get("name")),
        type=str(error.get("type") or ""),
        message=str(error.get("message") or ""),
        attempts=int(error.get("attempts") or 1),
        source=str(entry.get("source") or ""),
        path=root / error["file"] if error.get("file") else None,
        entry=entry,
    )


def step_of(entry: Entry) -> int:
    """Index of the protocol that an entry stands for."""
    return int(entry["step"]) if "step" in entry else Slot.parse(entry["slot"]).step
