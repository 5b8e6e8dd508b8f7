"""The folder on this machine of a job, or of a run's local workers, which is gone when they are."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

LOCK = ".in-use"


@contextlib.contextmanager
def node_folder(above: str | None) -> Iterator[Path]:
    """Make a folder for as long as the context lasts, and remove those that killed jobs of this user have left.

    Parameters
    ----------
    above : str, optional
        Folder that it is made in; variables such as ``$TMPDIR`` are the node's. Default: the system's for temporary
        files.
    """
    prefix = f"mlipcluster-job-{os.getuid()}-"
    parent = Path(os.path.expandvars(above or tempfile.gettempdir()))
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{prefix}*"):
        _remove_unused(left)
    folder = Path(tempfile.mkdtemp(prefix=f"new-{prefix}", dir=parent))  # so far nobody takes it for one that was left
    lock = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go by the kernel, however this process ends
        folder = folder.rename(parent / folder.name.removeprefix("new-"))
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_unused(folder: Path) -> None:
    with contextlib.suppress(OSError):  # another user's, on its way in or out, or held
        lock = os.open(folder / LOCK, os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
