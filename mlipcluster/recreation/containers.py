"""Files of strangers as bytes: whatever they are compressed with, and never more of them than a limit.

Stands beside `mlipcluster.outputs.compression`, which holds whole files that this package wrote; here files may be
anybody's, and the Python may be a bare system's that lacks one of the compressions.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from mlipcluster.errors import InputError, RecordError

LIMIT = 2 << 30
"""Bytes that are read of a file at most, counted once it is decompressed."""

_BLOCK = 1 << 20
_MODULES = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\0": "lzma"}
_OTHERS = {b"\x28\xb5\x2f\xfd": "zstandard", b"PK\x03\x04": "zip"}


def read(path: Path, limit: int = LIMIT) -> bytes:
    """All bytes of a file, decompressed if it is compressed; what it is compressed with is told by its content.

    Raises
    ------
    InputError
        There is no such file, or it is compressed in a way that cannot be read here.
    RecordError
        It is damaged, or holds more than *limit* bytes.
    """
    with _opened(path) as file, _damage(path):
        blocks, size = [], 0
        while block := file.read(_BLOCK):
            size += len(block)
            _check(path, size, limit)
            blocks.append(block)
        return b"".join(blocks)


def lines(path: Path, limit: int = LIMIT) -> Iterator[bytes]:
    """Its lines, with their ends, one after the other; as `read` otherwise."""
    with _opened(path) as file, _damage(path):
        size = 0
        while line := file.readline(limit + 1):
            size += len(line)
            _check(path, size, limit)
            yield line


def first(path: Path, count: int = 16) -> bytes:
    """Its first few bytes, decompressed."""
    with _opened(path) as file, _damage(path):
        return file.read(count)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is no file" if path.exists() else "does not exist"
        raise InputError(f"{str(path)!r} {what}; give an output of a run, or its ledger")
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read ({error.strerror}); see to its permissions") from error
    with file:
        head = file.read(8)
        file.seek(0)
        for magic, name in _OTHERS.items():
            if head.startswith(magic):
                raise InputError(f"{str(path)!r} is compressed with {name}; decompress it, and give what is in it")
        module = next((module for magic, module in _MODULES.items() if head.startswith(magic)), "")
        if not module:
            yield file
            return
        with _stream(path, module, file) as stream:
            yield stream


def _stream(path: Path, module: str, file: IO[bytes]) -> Any:
    try:
        return import_module(module).open(file, "rb")
    except ImportError as error:
        raise InputError(
            f"{str(path)!r} is compressed, and this Python lacks the module {module}; decompress it first"
        ) from error


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from error
    except RecordError:
        raise
    except Exception as error:
        if type(error).__name__ != "LZMAError":  # the module may not be there to import it from
            raise
        raise _damaged(path, error) from error


def _damaged(path: Path, error: BaseException) -> RecordError:
    return RecordError(f"{str(path)!r} is cut short or damaged ({error}); restore the file from a copy")


def _check(path: Path, size: int, limit: int) -> None:
    if size > limit:
        raise RecordError(
            f"{str(path)!r} holds more than {limit} bytes, which is no output of a run; if it is one all the same, "
            "raise --max_bytes"
        )
