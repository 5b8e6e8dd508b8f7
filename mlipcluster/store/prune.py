"""Clear a root of what nobody needs: what dead builders left, and builds that no name stands for."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlipcluster.store.parts import linked, remove_abandoned, remove_tree
from mlipcluster.store.status import OldBuild, StoreStatus, status
from mlipcluster.store.store import Store
from mlipcluster.store.turn import turn

KEEP_DAYS = 30.0
_PART = re.compile(r"\.(?P<name>\w+)\..+\.[0-9a-f]{8}\.part")
_WRITING = 3600.0  # seconds after which nobody writes a small file any more


@dataclass(frozen=True)
class Waste:
    """Something that can go.

    Attributes
    ----------
    path : Path
        Where it is.
    what : str
        What it is, for people.
    size : int
        Bytes, as far as they were counted.
    gone : bool
        Whether it was removed; False as well where nothing was to be removed yet.
    """

    path: Path
    what: str
    size: int = 0
    gone: bool = False


def prune(store: Store, *, keep_days: float = KEEP_DAYS, dry_run: bool = False) -> list[Waste]:
    """Remove what builders that are no more have left, and builds to which nobody has been sent for *keep_days*.

    Whoever still uses such a build is not known: workers run on other machines. That is what the days are for.

    Parameters
    ----------
    store : Store
        The root.
    keep_days : float
        Days.
    dry_run : bool
        Only say what would go.

    Returns
    -------
    list of Waste
        What went, or would; with ``gone=False`` also what could not be removed.

    Raises
    ------
    InputError
        The root cannot be written.
    """
    if not dry_run:
        store.layout.check_writable()
    found = status(store)
    return [*_left(store, found, dry_run), *_old(store, found, keep_days, dry_run), *_files(store, dry_run)]


def _left(store: Store, found: StoreStatus, dry_run: bool) -> Iterator[Waste]:
    for path in found.abandoned:
        gone = not dry_run and remove_abandoned(store.layout, path)
        yield Waste(path, "left by a build that was ended", gone=gone)


def _old(store: Store, found: StoreStatus, keep_days: float, dry_run: bool) -> Iterator[Waste]:
    for old in found.old:
        if old.since is None and not dry_run:
            store.retire(old.folder)  # from now on its days are counted
        if old.days < keep_days:
            continue
        gone = not dry_run and _remove_old(store, old)
        yield Waste(old.folder, f"build {old.digest[:12]} of {old.name}, which nothing stands for", old.size, gone)


def _remove_old(store: Store, old: OldBuild) -> bool:
    """Remove it, unless the name has come back to it, or is being built."""
    with _turn(store, old.name) as ours:
        linked_as = linked(store.layout).get(old.folder)
        if not ours or linked_as in store.used():
            return False
        if linked_as:
            store.layout.link(linked_as).unlink(missing_ok=True)
        remove_tree(old.folder)
        return not old.folder.exists()


def _files(store: Store, dry_run: bool) -> Iterator[Waste]:
    """Half written files, and locks of names that are gone."""
    layout, names = store.layout, store.names()
    for path in sorted(layout.root.glob("*/.*")):
        if path.parent == layout.builds and path.name.startswith(".lock-"):
            name, what = path.name[len(".lock-") :], "lock of a name that is gone"
            if name in names or not (dry_run or _remove_file(store, path, name)):
                continue
        elif match := _PART.fullmatch(path.name):
            name, what = match.group("name"), "half of a file, left by a process that was ended"
        else:
            continue
        gone = not dry_run and (not os.path.lexists(path) or _remove_file(store, path, name))
        yield Waste(path, what, gone=gone)


def _remove_file(store: Store, path: Path, name: str) -> bool:
    layout = store.layout
    with _turn(store, name) as ours, contextlib.suppress(OSError):
        built = path.parent in (layout.builds, layout.current, layout.locks, layout.logs)  # in one's turn alone
        if (ours and built) or time.time() - os.lstat(path).st_mtime > _WRITING:
            path.unlink()
    return not os.path.lexists(path)


@contextlib.contextmanager
def _turn(store: Store, name: str) -> Iterator[bool]:
    """Whether nobody builds the environment *name*; then nobody begins to, as long as the block runs."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(turn(store.layout, name, 0.0, _silent))
        except (TimeoutError, OSError):
            yield False
            return
        yield True
        if name not in store.names():
            store.layout.turn_file(name).unlink(missing_ok=True)


def _silent(line: str) -> None:
    """Nobody waits here."""
