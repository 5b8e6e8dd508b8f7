"""The jobs that a run has submitted, noted so that whoever goes on with the run folder finds and cancels them."""

from __future__ import annotations

import json
import os
import threading
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from mlipcluster.deploy.queues import Queue
from mlipcluster.files import write_atomic

HERE = uuid.uuid4().hex[:12]
"""Tells this process's notes from those of others."""

SUBMITTING = threading.RLock()
"""Held while a job is submitted and noted: nobody beside takes it for one that a lost driver has left."""


@dataclass(frozen=True)
class Note:
    """One job.

    Attributes
    ----------
    job : str
        The batch system's name of it.
    name : str
        Ours, which holds the run's token.
    system : str
        Kind of batch system.
    driver : str
        Which process submitted it.
    """

    job: str
    name: str
    system: str
    driver: str = HERE


class JobNotes:
    """A file with one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, note: Note) -> None:
        """Note a job, on the disk when this returns."""
        line = json.dumps(asdict(note)) + "\n"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> list[Note]:
        """All of them; a line that was cut off by a crash is passed over."""
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except OSError:
            return []
        notes = []
        for line in lines:
            try:
                notes.append(Note(**json.loads(line)))
            except (ValueError, TypeError):
                continue
        return notes

    def forget(self, jobs: set[str]) -> None:
        """Jobs that have ended need no notes; without any, there is no file."""
        with SUBMITTING:
            kept = [note for note in self.read() if note.job not in jobs]
            if kept:
                write_atomic(self._path, "".join(json.dumps(asdict(note)) + "\n" for note in kept))
            else:
                self._path.unlink(missing_ok=True)


def cancel_left(notes: JobNotes, queue: Queue, name: str, system: str) -> list[str]:
    """Cancel what a lost driver has left in the queue; the jobs.

    They are found by their names: numbers of jobs are used again, by a batch system that was set up anew for one.

    Parameters
    ----------
    name : str
        Of the jobs that are about to be submitted, and of those before them.
    system : str
        Kind of batch system.
    """
    with SUBMITTING:
        known = notes.read()
        own = {note.job for note in known if note.driver == HERE}
        names = {name, *(note.name for note in known if note.system == system and note.driver != HERE)}
        left = sorted({job for one in sorted(names) for job in queue.find(one)} - own)
        queue.cancel(left)
        notes.forget({note.job for note in known if note.driver != HERE and note.system == system})
    return left
