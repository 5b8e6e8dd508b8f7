"""What a run may be told, in small groups; ``MLIPCluster`` takes every field of every group by its name."""

from __future__ import annotations

import difflib
import logging
import numbers
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from ase import Atoms

from mlipcluster.deploy import dashboard
from mlipcluster.deploy.deployment import check_whole
from mlipcluster.errors import InputError
from mlipcluster.outputs.formats import FORMATS

COMPRESSIONS = ("", "gz", "bz2", "xz")
TAKEN = (
    "run.json",
    "intermediate.jsonl",
    "calculators.json",
    "workers.json",
    "environments",
    "failures",
    "protocols",
    "jobs.jsonl",
    "private",
)
"""Names in the run folder that cannot be chosen (`mlipcluster.files.RunFolder`)."""


@dataclass(frozen=True)
class Compute:
    """The workers, and what calls may use on them.

    The first three are of the workers that a run starts: on this machine, or those of its one ``cluster``.

    Attributes
    ----------
    max_workers : int, optional
        Dask workers, each running one protocol at a time. Default, on this machine: one a processor core.
    min_workers : int, optional
        With it the number of workers follows the queue of work, between the two. Default, on this machine: all from
        the start.
    cores : int, optional
        Threads that NumPy and the like may use in a worker's protocols; a calculator's own threads are
        those of its `CalculatorSpec`. Default, on this machine: 1.
    memory : str or int, optional
        What a protocol call, its calculators among it, may use, as Dask writes it (``"4 GiB"``); one that is over is
        ended and recorded as a failure. Looked at once a second. Default: no limit.
    scratch_dir : path, optional
        Where protocols' ``scratch`` folders are made. Default: a folder of the worker's own, gone when it is.
    dashboard_address : str
        Where Dask's dashboard listens on this machine: ``127.0.0.1:PORT``.
    security : bool, path or distributed.Security, optional
        TLS between driver, scheduler and workers. Default: on where workers are on other machines. True: on. False:
        off. A folder that ``mlipcluster tls new`` made, or a ``distributed.Security``: on, with these credentials.
    """

    max_workers: int | None = None
    min_workers: int | None = None
    cores: int | None = None
    memory: str | int | None = None
    scratch_dir: str | None = None
    dashboard_address: str = "127.0.0.1:0"
    security: Any = None

    def __post_init__(self) -> None:
        for name, least in (("max_workers", 1), ("min_workers", 0), ("cores", 1)):
            if (value := getattr(self, name)) is not None:
                check_whole(name, value, least)
        if None not in (self.min_workers, self.max_workers) and self.min_workers > self.max_workers:  # type: ignore[operator]
            raise InputError(f"min_workers={self.min_workers} is more than max_workers={self.max_workers}; lower it.")
        _ = self.memory_bytes
        object.__setattr__(self, "dashboard_address", dashboard.loopback(self.dashboard_address))
        if self.scratch_dir is not None:
            object.__setattr__(self, "scratch_dir", os.fspath(self.scratch_dir))

    @property
    def memory_bytes(self) -> int | None:
        """``memory`` as a number."""
        from dask.utils import parse_bytes

        if self.memory is None:
            return None
        try:
            return int(parse_bytes(self.memory))
        except (ValueError, TypeError, AttributeError):
            raise InputError(f"memory={self.memory!r} is not an amount; give one such as '4 GiB'.") from None


@dataclass(frozen=True)
class Saving:
    """What is written, and where.

    Attributes
    ----------
    output_path : path
        The run folder.
    output_dir_name, logs_dir_name, scorefile_name : str
        Names inside it of the outputs' folder, the logs' folder and the ledger (the scorefile).
    output_types : tuple of str
        Formats of the outputs: ``"extxyz"``, ``"json"``; empty for a ledger alone.
    compression : str
        ``""``, ``"gz"``, ``"bz2"`` or ``"xz"``.
    simulation_records_in_scorefile : bool
        Whether each line of the ledger holds the whole record too.
    save_all : bool
        Save the outputs of every protocol, not only of the last.
    filter_results : bool or callable
        True drops outputs without atoms; a function of the output's ``Atoms`` keeps those for which it is true.
    resume : bool
        Go on with the run that the folder holds; False refuses a folder that holds one.
    retry_failed : bool
        When going on, also do again what failed before.
    accept_changes : tuple of str
        Parts of a task's identity whose change does not make finished work be done again: of ``"protocol"``,
        ``"calculator"`` and ``"environment"``.
    dry_run : bool
        Only check and count; nothing is started or written.
    """

    output_path: str | os.PathLike[str] = "mlipcluster-run"
    output_dir_name: str = "outputs"
    logs_dir_name: str = "logs"
    scorefile_name: str = "ledger.jsonl"
    output_types: tuple[str, ...] = ("extxyz",)
    compression: str = ""
    simulation_records_in_scorefile: bool = False
    save_all: bool = False
    filter_results: bool | Callable[[Atoms], bool] = True
    resume: bool = True
    retry_failed: bool = False
    accept_changes: tuple[str, ...] = ()
    dry_run: bool = False

    def __post_init__(self) -> None:
        for group in ("output_types", "accept_changes"):
            object.__setattr__(self, group, _names(group, getattr(self, group)))
        if not isinstance(self.filter_results, bool) and not callable(self.filter_results):
            raise InputError(f"filter_results={self.filter_results!r}: give True, False or a function of Atoms.")
        for name in self.output_types:
            if name not in FORMATS:
                raise InputError(f"output type {name!r} is unknown; known: {', '.join(FORMATS)}.")
        if self.compression not in COMPRESSIONS:
            known = ", ".join(map(repr, COMPRESSIONS))
            raise InputError(f"compression {self.compression!r} is unknown; known: {known}.")
        for name in self.accept_changes:
            if name not in ("protocol", "calculator", "environment"):
                raise InputError(f"accept_changes: {name!r} is not one of protocol, calculator, environment.")
        self._check_names()

    def _check_names(self) -> None:
        for name in ("output_dir_name", "logs_dir_name", "scorefile_name"):
            if not re.fullmatch(r"[\w.-]+", getattr(self, name)) or getattr(self, name).startswith("."):
                raise InputError(f"{name}={getattr(self, name)!r} is not a plain name inside the run folder.")
        names = [self.output_dir_name, self.logs_dir_name, self.scorefile_name]
        for name in names:
            if names.count(name) > 1 or name in TAKEN:
                raise InputError(f"the run folder has something else named {name!r}; choose another name.")


@dataclass(frozen=True)
class Faults:
    """What happens when something fails.

    Attributes
    ----------
    ignore_errors : bool
        A task that fails is recorded and its siblings go on; False raises the first failure, with its own type,
        after saving what is done.
    timeout : float, optional
        Seconds that one call of a protocol may take; then the process that runs it is ended.
    """

    ignore_errors: bool = True
    timeout: float | None = None

    def __post_init__(self) -> None:
        is_number = isinstance(self.timeout, numbers.Real) and not isinstance(self.timeout, bool)
        if self.timeout is not None and not (is_number and self.timeout > 0):
            raise InputError(f"timeout={self.timeout!r}: give seconds above zero, or None for no limit.")


@dataclass(frozen=True)
class About:
    """Who and what the run is; copied into each record."""

    project_name: str = ""
    simulation_name: str = ""
    author: str = ""
    email: str = ""
    license: str = ""


@dataclass(frozen=True)
class Checks:
    """What must hold before anything is started.

    Attributes
    ----------
    sha1 : str, optional
        Of the repository that holds the protocols: the commit that must be checked out; ``""`` for any commit, but
        without uncommitted changes; None to record whatever is there and warn when there are uncommitted changes.
    environment : str, optional
        Digest that the workers' environment must have, or the beginning of it.
    same_versions : bool
        Whether workers are refused whose versions of Python, NumPy, ASE, Dask and whatever else crosses between them
        and this process differ from those here; otherwise that is told and recorded. Another minor version of Python,
        or another mlipcluster, is always refused.
    """

    sha1: str | None = None
    environment: str | None = None
    same_versions: bool = False


@dataclass(frozen=True)
class Showing:
    """What is shown while the run goes on.

    Attributes
    ----------
    progress : bool
        Show done, failed, running, rate and time left.
    logging_level : str
        Level of the run's log file.
    """

    progress: bool = True
    logging_level: str = "INFO"

    def __post_init__(self) -> None:
        if not isinstance(logging.getLevelName(self.logging_level), int):
            known = "DEBUG, INFO, WARNING, ERROR, CRITICAL"
            raise InputError(f"logging_level={self.logging_level!r} is unknown; known: {known}.")


GROUPS: tuple[type, ...] = (Compute, Saving, Faults, About, Checks, Showing)


@dataclass(frozen=True)
class Options:
    """All groups together."""

    compute: Compute
    saving: Saving
    faults: Faults
    about: About
    checks: Checks
    showing: Showing

    @classmethod
    def from_names(cls, given: Mapping[str, Any]) -> Options:
        """Sort options given by name into their groups.

        Raises
        ------
        InputError
            A name or a value is unknown; the message lists what is known.
        """
        known = {field.name: group for group in GROUPS for field in fields(group)}
        for name, value in given.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known))}."
                raise InputError(f"MLIPCluster has no option {name!r}{hint}")
            _check_type(known[name], name, value)
        groups = [group(**{k: v for k, v in given.items() if known[k] is group}) for group in GROUPS]
        return cls(*groups)


_TYPES: dict[Any, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "True or False"),
    int: ((int,), "a whole number"),
    str: ((str,), "a string"),
    str | None: ((str, type(None)), "a string, or None"),
    str | os.PathLike[str]: ((str, os.PathLike), "the path of a folder"),
    "scratch_dir": ((str, os.PathLike, type(None)), "the path of a folder, or None"),
}
"""What is taken for an option of that name or annotation; the groups look at their others themselves."""


def _check_type(group: type, name: str, value: object) -> None:
    types, words = _TYPES.get(name) or _TYPES.get(get_type_hints(group)[name], ((object,), ""))
    if not isinstance(value, types):
        raise InputError(f"{name}={value!r}: give {words}.")


def _names(option: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    given = tuple(value) if isinstance(value, Iterable) else value and (value,)
    if not all(isinstance(name, str) for name in given or ()):
        raise InputError(f"{option}={value!r}: give a name, or a list of names.")
    return given or ()
