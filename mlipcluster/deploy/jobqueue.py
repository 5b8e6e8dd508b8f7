"""dask-jobqueue, as far as it writes job scripts: its header for each batch system, with a command of ours.

Importing it writes a file into the home folder and has Ctrl-C end the program with status 0; here it does neither.
"""

from __future__ import annotations

import contextlib
import re
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import dask

from mlipcluster.errors import InputError

_ONE_AT_A_TIME = threading.Lock()

FIELDS = {
    "queue": "queue",
    "cores": "cores",
    "memory": "memory",
    "processes": "processes",
    "walltime": "walltime",
    "python": "python",
    "interface": "interface",
    "scratch": "local-directory",
    "prologue": "job-script-prologue",
}
"""Fields of a deployment, and their names in the user's ``~/.config/dask/jobqueue.yaml``."""


def user_setting(kind: str, key: str) -> Any:
    """What the user's own Dask configuration says of a kind of batch system, or None."""
    return dask.config.get(f"jobqueue.{kind}.{key}", None)


def write_script(
    module: str, options: Mapping[str, Any], prologue: Sequence[str], command: str, *, one_line: bool = False
) -> str:
    """The script that dask-jobqueue writes, with another command.

    Parameters
    ----------
    module : str
        ``"module:Class"`` of the job, within dask-jobqueue.
    options : mapping
        Keyword arguments of that class.
    prologue : sequence of str
        Commands that come first.
    command : str
        What the shell is to do after them.
    one_line : bool
        The system takes one line for its shell, prologue and all.
    """
    file, _, name = module.partition(":")
    job_class = getattr(_imported(f"dask_jobqueue.{file}"), name)
    section = f"jobqueue.{job_class.config_name}"
    told = dask.config.get(section, None) or {}
    whole = dask.config.merge(_defaults()[job_class.config_name], told, {"log-directory": None})
    with dask.config.set({section: whole}):
        job = job_class(scheduler="", **options, job_script_prologue=[] if one_line else list(prologue))
    if one_line and any("\n" in line for line in (*prologue, command)):
        raise InputError("HTCondor takes a job's command as one line; leave line breaks out of prologue and folders.")
    text = _literally("; ".join([*prologue, command])) if one_line else command
    job._command_template = text  # noqa: SLF001 - no public way
    script: str = job.job_script()
    return script


def _literally(text: str) -> str:
    """Without macros: HTCondor would put its own value, or nothing, in place of the shell's ``$(hostname)``."""
    return re.sub(r"\$(?=\$?\w*\()", "$(DOLLAR)", text)


def _imported(module: str) -> Any:
    import distributed  # noqa: F401 - before the others are kept from what they do

    with _ONE_AT_A_TIME, _idle(dask.config, "ensure_file"), _idle(signal, "signal"):
        return import_module(module)


@lru_cache(maxsize=1)
def _defaults() -> dict[str, dict[str, Any]]:
    """What its import adds to Dask's settings, which a ``with dask.config.set(…)`` around it takes away again."""
    file = Path(_imported("dask_jobqueue").__file__).with_name("jobqueue.yaml")
    (found,) = dask.config.collect_yaml([str(file)])
    sections: dict[str, dict[str, Any]] = found["jobqueue"]
    return sections


@contextlib.contextmanager
def _idle(module: Any, name: str) -> Iterator[None]:
    """A function that does nothing for a while."""
    real = getattr(module, name)
    setattr(module, name, lambda *_, **__: None)
    try:
        yield
    finally:
        setattr(module, name, real)
