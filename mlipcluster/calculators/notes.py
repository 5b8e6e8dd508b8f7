"""What a root keeps of its models beside their weights: JSON files with a schema, one an environment."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mlipcluster.errors import RecordError
from mlipcluster.files import write_atomic
from mlipcluster.store.layout import Layout

SCHEMA = 1


def read(path: Path) -> dict[str, Any]:
    """The object in the file; empty if there is none.

    Raises
    ------
    RecordError
        It is damaged, or of a newer schema.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{str(path)!r} cannot be read ({error}); remove it, and it is made anew") from error
    schema = found.get("schema") if isinstance(found, dict) else None
    if not isinstance(schema, int):
        raise RecordError(f"{str(path)!r} has no schema; remove it, and it is made anew")
    if schema > SCHEMA:
        raise RecordError(f"{str(path)!r} has schema {schema}, this version knows {SCHEMA}; take a newer mlipcluster")
    if any(not isinstance(value, dict) for name, value in found.items() if name != "schema"):
        raise RecordError(f"{str(path)!r} holds what is no table; remove it, and it is made anew")
    return dict(found)


def write(layout: Layout, path: Path, stated: dict[str, Any]) -> None:
    """Write the object, so that no reader ever sees half of it, and all who may read the root can read it."""
    write_atomic(path, json.dumps({"schema": SCHEMA, **stated}, indent=1, sort_keys=True) + "\n")
    layout.share_file(path)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let nobody else change the file between reading and writing it, where its file system carries locks."""
    path.parent.mkdir(exist_ok=True)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def now() -> str:
    """The time, as it is kept."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
