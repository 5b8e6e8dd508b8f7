"""The ledger: one JSON line for each output, failure or empty call of a run, appended and never rewritten.

A line is a promise: it is appended after the file that it names is in place (``docs/outputs.md`` says why), so whatever
dies at whatever moment, each line that can be read is true, and work without a line is done again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from mlipcluster.errors import RecordError, RunFolderError
from mlipcluster.outputs.lock import ExclusiveLock

Entry = dict[str, Any]
_CHUNK = 1 << 16


class Ledger:
    """An append-only file of JSON lines with one writer and any number of readers.

    Parameters
    ----------
    path
        The file; it is made with the first line.
    sync
        Flush each append to the disk itself (``fsync``), so that lines outlive a power cut. Without it they still
        outlive the death of every process.

    Examples
    --------
    >>> with Ledger(path) as ledger:  # doctest: +SKIP
    ...     ledger.append([{"status": "output", "slot": "3f…/0//0", "output": [0, 1], "name": "Cu-3f…"}])
    """

    def __init__(self, path: str | os.PathLike[str], *, sync: bool = True) -> None:
        self.path = Path(path)
        self.torn_path = self.path.with_name(f"{self.path.name}.torn")
        self.sync = sync
        self._lock = ExclusiveLock(self.path)
        self._fd: int | None = None

    def __enter__(self) -> Ledger:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Entry]:
        return self.entries()

    def open(self) -> int:
        """Take the lock, put a torn last line aside, and make ready to append; again and again does no harm.

        Returns
        -------
        int
            The file's descriptor.

        Raises
        ------
        RunFolderError
            The folder cannot be written, or another process writes this ledger.
        """
        if self._fd is not None:
            return self._fd
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            is_new = not self.path.exists()
            self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._cut_torn_tail(self._fd)
            if is_new and self.sync:
                _sync_folder(self.path.parent)
        except OSError as error:
            self.close()
            raise RunFolderError(f"{self.path} cannot be written: {error}; choose another output_path") from error
        return self._fd

    def close(self) -> None:
        """Close the file and give the lock back."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        self._lock.release()

    def append(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Append *entries*, one line each, in one write; all of them or, when it fails, none.

        Parameters
        ----------
        entries
            JSON-able mappings; NumPy scalars and arrays are taken as numbers and lists, NaN and infinities survive.

        Raises
        ------
        TypeError
            An entry holds something that JSON cannot.
        RunFolderError
            The disk is full or the folder vanished; nothing of *entries* is in the file then.
        """
        data = "".join([_encode(entry) + "\n" for entry in entries]).encode("ascii")
        if not data:
            return
        fd = self.open()
        end = os.fstat(fd).st_size
        try:
            written = os.write(fd, data)
            while written < len(data):  # only a full disk or a size over 2 GB brings us here
                written += os.write(fd, data[written:])
            if self.sync:
                os.fsync(fd)
        except OSError as error:
            os.ftruncate(fd, end)
            raise RunFolderError(
                f"{self.path} could not be appended to: {error.strerror}; make room (or check the folder) and run"
                " again: everything already in the ledger is kept"
            ) from error

    def entries(self, *, strict: bool = True) -> Iterator[Entry]:
        """Every entry, oldest first. A last line without its end is left out: somebody may be writing it.

        Parameters
        ----------
        strict
            Whether a line that cannot be read raises; otherwise it is left out.

        Raises
        ------
        RecordError
            A line is damaged; the message names its number and what to do.
        """
        return (entry for _, entry in self.positions(strict=strict))

    def positions(self, *, strict: bool = True) -> Iterator[tuple[int, Entry]]:
        """As `entries`, each with its position, for `read`: a million entries need not be kept in memory."""
        if not self.path.exists():
            return
        position = 0
        with open(self.path, "rb", buffering=1 << 20) as file:
            for number, line in enumerate(file, 1):
                entry = _decode(line)
                if entry is not None:
                    yield position, entry
                elif strict and line.endswith(b"\n"):
                    raise RecordError(_damage(self.path, number, line))
                position += len(line)

    def read(self, position: int) -> Entry:
        """The entry at a position that `positions` gave.

        Raises
        ------
        RecordError
            There is no entry at that position: the ledger was changed meanwhile.
        """
        with open(self.path, "rb") as file:
            file.seek(position)
            entry = _decode(file.readline())
        if entry is None:
            raise RecordError(f"{self.path} holds no entry at byte {position}; it was changed meanwhile: run again")
        return entry

    def _cut_torn_tail(self, fd: int) -> None:
        """Keep an unfinished last line in ``<name>.torn`` and take it off the ledger."""
        start, tail = _last_line(fd)
        if not tail:
            return
        if _decode(tail) is not None:  # whole but for its newline
            os.write(fd, b"\n")
            return
        with open(self.torn_path, "ab") as torn:
            torn.write(tail + b"\n")
            torn.flush()
            os.fsync(torn.fileno())
        os.ftruncate(fd, start)


def _encode(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # NumPy's scalars and arrays
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"a ledger line cannot hold the {type(value).__name__} {value!r:.80}; give numbers, text or lists")


def _decode(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line.decode("utf-8"))
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _damage(path: Path, number: int, line: bytes) -> str:
    return (
        f"{path}, line {number} cannot be read (it begins with {line[:60]!r}); repair it, or delete it"
        f" (sed -i '{number}d' {path.name}) and run again: only what it stood for is then done again"
    )


def _last_line(fd: int) -> tuple[int, bytes]:
    """Where the last line without a newline begins, and its bytes (empty when the file ends with a newline)."""
    position = os.fstat(fd).st_size
    tail = b""
    while position > 0:
        size = min(_CHUNK, position)
        position -= size
        block = os.pread(fd, size, position)
        newline = block.rfind(b"\n")
        if newline >= 0:
            return position + newline + 1, block[newline + 1 :] + tail
        tail = block + tail
    return 0, tail


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError:  # some file systems cannot, and need not
        pass
    finally:
        os.close(fd)
