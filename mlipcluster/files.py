"""Files: written beside and renamed, so that whoever dies leaves either the old file or the new one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from pathlib import Path

OUTPUTS_PER_FOLDER = 1000
_PART = re.compile(r"\..+\.[0-9a-f]{8}\.part")


def write_atomic(path: Path, data: bytes | str, *, mode: int = 0o644, sync: bool = True) -> Path:
    """Write *data* to *path* so that no reader ever sees half of it.

    The bytes go to a file beside it, are flushed to disk, and the file is renamed over *path* and its folder flushed.
    Without *sync* all is left to the system to flush: that outlives the death of every process, but not a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if sync:
        _flush_folder(path.parent)
    return path


def _flush_folder(folder: Path) -> None:
    """Flush the names in a folder: until then a power cut may undo what was renamed."""
    with contextlib.suppress(OSError):  # some file systems cannot; the file itself is in its place
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_parts(folder: Path) -> None:
    """Remove what writers that were killed have left beside their files; nobody may be writing there now."""
    for parent, _, names in os.walk(folder):
        for name in names:
            if _PART.fullmatch(name):
                Path(parent, name).unlink(missing_ok=True)


def sha256_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as hexadecimal text."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(file)


def _sha256(file: object) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):  # type: ignore[attr-defined]
        digest.update(block)
    return digest.hexdigest()


class RunFolder:
    """The one owner of a run folder's paths.

    ::

        run.json                what the run was told, written once
        calculators.json        what the calculators said of themselves when they were asked
        workers.json            environments of the interpreters that ran the workers
        environments/<digest>/  lock file and manifest of each environment that took part
        ledger.jsonl            one line an output or failure, appended and flushed: the scorefile
        intermediate.jsonl      outputs that a later protocol still works on
        outputs/0000/…          self-contained outputs, 1,000 a folder
        failures/               for each failure: traceback, input, the record so far
        checkpoints/            of calls that are under way
        logs/
        jobs.jsonl              jobs that were submitted to a batch system
        private/0/…             keys of each deployment of the run that goes on, mode 0700
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        outputs: str = "outputs",
        logs: str = "logs",
        ledger: str = "ledger.jsonl",
    ) -> None:
        self.root = Path(root).expanduser().absolute()
        self.run_file = self.root / "run.json"
        self.calculators = self.root / "calculators.json"
        self.workers = self.root / "workers.json"
        self.environments = self.root / "environments"
        self.ledger = self.root / ledger
        self.intermediate = self.root / "intermediate.jsonl"
        self.outputs = self.root / outputs
        self.failures = self.root / "failures"
        self.logs = self.root / logs
        self.checkpoints = self.root / "checkpoints"
        self.jobs = self.root / "jobs.jsonl"
        self.private = self.root / "private"

    def output_folder(self, number: int) -> Path:
        """Folder of the *number*-th output of the run."""
        return self.outputs / f"{number // OUTPUTS_PER_FOLDER:04d}"
