"""What a job of a batch system is told by the driver: a file that both see."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlipcluster.errors import InputError
from mlipcluster.files import write_atomic

SCHEMA = 1
LEAVE = "MLIPCLUSTER_LEAVE"
"""Variable that names a file to the workers of a job; once it is there, they leave."""
MARGIN = "MLIPCLUSTER_MARGIN"
"""Variable with the seconds before the job's end in which its workers take no more work."""


@dataclass(frozen=True)
class JobSpec:
    """What all jobs of a deployment share.

    Attributes
    ----------
    scheduler : str
        Address of the driver's scheduler.
    processes : int
        Dask workers in a job, each running one protocol at a time.
    cores : int
        Processor cores of a job, which its workers share.
    gpus : int
        GPUs of a job.
    walltime : float, optional
        Seconds that a job may last, where somebody said so.
    grace : float
        Seconds that are left for what runs when a job is told to end.
    margin : float
        Seconds before its end in which a worker takes no more work.
    patience : float
        Seconds that workers wait for a driver that does not answer, before they end.
    scratch : str, optional
        Folder on the node in which the job's own is made. Default: the system's for temporary files.
    same_versions : bool
        Whether to refuse workers whose packages differ from the driver's.
    variables : mapping of str to str
        Environment variables of the workers: Dask's configuration, the paths of their credentials, the user's own.
    driver : mapping
        What the driver is (`mlipcluster.deploy.handshake.Facts`).
    """

    scheduler: str
    processes: int = 1
    cores: int = 1
    gpus: int = 0
    walltime: float | None = None
    grace: float = 30.0
    margin: float = 10.0
    patience: float = 120.0
    scratch: str | None = None
    same_versions: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    driver: Mapping[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write it where only this user can read it."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1), mode=0o600)

    @classmethod
    def read(cls, path: Path) -> JobSpec:
        """Read it on a node.

        Raises
        ------
        InputError
            It is not there, or was written by another version.
        """
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{os.uname().nodename}: {str(path)!r} cannot be read ({error}). The node does not see the run folder "
                "as the driver does, or the driver is gone; choose an output_path on a file system that both share."
            ) from None
        if told.pop("schema") != SCHEMA:
            raise InputError(
                f"{str(path)!r} was written by another version of mlipcluster; install the same in the node's Python."
            )
        return cls(**told)


@dataclass(frozen=True)
class Refusal:
    """Why a job's workers did not join, told through a file: nothing else may work between the two."""

    text: str
    differences: tuple[str, ...] = ()

    @staticmethod
    def path(spec: Path, tag: str) -> Path:
        """Of the job named *tag*."""
        return spec.with_name(f"{tag}.refused.json")

    def write(self, spec: Path, tag: str) -> None:
        """Leave it for the driver."""
        write_atomic(self.path(spec, tag), json.dumps(asdict(self)), mode=0o600)

    @classmethod
    def read(cls, spec: Path, tag: str) -> Refusal | None:
        """What the job left, or None."""
        try:
            told = json.loads(cls.path(spec, tag).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return cls(told["text"], tuple(told["differences"]))
