"""The command lines of ``dump_env_file.py`` and ``recreate_env.py``: the standard library's, for a bare Python."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlipcluster.errors import MLIPClusterError
from mlipcluster.recreation import containers, found
from mlipcluster.recreation.dump import dump
from mlipcluster.recreation.dump_report import report
from mlipcluster.recreation.printing import paragraph
from mlipcluster.recreation.recorded import recorded
from mlipcluster.recreation.recreate import recreate, verdict
from mlipcluster.recreation.recreate_plan import TIMEOUT, Order, commands, plan

FOLDER = "env"
"""Folder that both scripts take unless told otherwise."""

_DUMP = """Take the environments of an output out of its record: lock files, ready for recreate_env.py.

Give FILE, any output of a run (or its failure's file), or a scorefile with the name of an output."""


_RECREATE = """Build an environment again from the lock files that dump_env_file.py wrote, and compare it.

Exit status: 0 as recorded, 3 made but different (the differences are listed), 1 an error, 2 a wrong command line."""
_PACKAGE = "where a package is that was installed from a folder; may be repeated; NAME= leaves it out"
_FORCE = "go on where platform or Python differ from the record; make again what was made here before"
DIFFERENT = 3


def dump_main(arguments: Sequence[str] | None = None, *, program: str = "dump_env_file.py") -> int:
    """``dump_env_file.py``: the exit status is 0, 1 for an error, 2 for a wrong command line."""
    parser = _parser(program, _DUMP)
    parser.add_argument("file", nargs="?", metavar="FILE", help="an output, in any format and compression")
    _add(parser, "input_file", metavar="FILE", help="the same")
    _add(parser, "scorefile", metavar="FILE", help="instead: a run's ledger.jsonl, its folder, or a pickled table")
    _add(parser, "output_name", "decoy_name", metavar="NAME", help="which output of the scorefile")
    _add(parser, "env_dir", metavar="DIR", default=FOLDER, help="folder to write to [default: env]")
    _add(parser, "force", action="store_true", help="overwrite files of these names")
    _add(parser, "pandas_secure", action="store_true", help="read a pickled table, admitting nothing but tables")
    _add(
        parser, "max_bytes", type=int, metavar="N", default=containers.LIMIT, help="most that is read [default: 2 GiB]"
    )
    told = _parsed(parser, arguments)
    if isinstance(told, int):
        return told
    file = told.input_file or told.file
    if (told.input_file and told.file) or (file is None) == (told.scorefile is None):
        return _usage(parser, "give FILE, or --scorefile with --output_name")
    if told.scorefile is not None and not told.output_name:
        return _usage(parser, "--scorefile needs --output_name: which of its outputs")
    if told.scorefile is None and told.output_name:
        file, told.scorefile = None, file

    def work() -> int:
        script = Path(sys.argv[0]).with_name("recreate_env.py")  # beside this one
        dump_file(told, Path(file) if file else None, [_python(), str(script), "--env_dir"], say)
        return 0

    return guarded(work, program, debug=told.debug)


def dump_file(told: Any, file: Path | None, command: Sequence[str], say: Callable[[str], Any]) -> None:
    """Find the record, write its environments, and say what was done.

    Parameters
    ----------
    told
        With the attributes ``scorefile``, ``output_name``, ``env_dir``, ``force``, ``pandas_secure``, ``max_bytes``.
    file
        The output; None: it is in ``scorefile``.
    command
        What builds an environment again, but for its folder.
    say
        Called with each line.
    """
    if file is not None:
        packed = found.in_file(file, limit=told.max_bytes)
    else:
        place = Path(told.scorefile)
        packed = found.in_scorefile(place, told.output_name, limit=told.max_bytes, pandas_secure=told.pandas_secure)
    record = recorded(packed)
    for line in report(record, dump(record, Path(told.env_dir).expanduser(), force=told.force), command):
        say(line)


def recreate_main(arguments: Sequence[str] | None = None, *, program: str = "recreate_env.py") -> int:
    """``recreate_env.py``: the exit status is 0, 1 for an error, 2 for a wrong command line, 3 where it differs."""
    parser = _parser(program, _RECREATE)
    _add(parser, "env_dir", metavar="DIR", default=FOLDER, help="folder with the lock files [default: env]")
    _add(parser, "env_manager", metavar="NAME", default="", help="uv, pip, conda, … [default: the recorded one]")
    _add(parser, "timeout", type=_seconds, metavar="S", default=TIMEOUT, help="seconds for all of it [default: 3600]")
    _add(parser, "dry_run", action="store_true", help="only show the commands")
    _add(parser, "python", metavar="PYTHON", default="", help="interpreter or version, for uv and pip")
    _add(parser, "package", action="append", metavar="NAME=PATH", default=[], help=_PACKAGE)
    _add(parser, "force", action="store_true", help=_FORCE)
    told = _parsed(parser, arguments)
    if isinstance(told, int):
        return told
    if any("=" not in given for given in told.package):
        return _usage(parser, "--package is NAME=PATH, or NAME= to leave the package out")

    def work() -> int:
        local = local_places(told.package)
        order = Order(Path(told.env_dir), told.env_manager, told.timeout, told.python, local, told.force)
        return recreate_folder(order, say, dry_run=told.dry_run)

    return guarded(work, program, debug=told.debug)


def say(line: str) -> None:
    """Print a line at once: what follows may take minutes."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def local_places(given: Sequence[str]) -> dict[str, str]:
    """``NAME=PATH`` options: normalised name (PEP 503) to path."""
    return {re.sub(r"[-_.]+", "-", name).lower(): path for name, _, path in (item.partition("=") for item in given)}


def recreate_folder(order: Order, say: Callable[[str], Any], *, dry_run: bool = False) -> int:
    """Make the environment again and say how it went; the exit status."""
    if dry_run:
        made = plan(order)
        for line in [*made.told, *(f"$ {command}" for command in commands(made.steps))]:
            say(line)
        return 0
    done = recreate(order, say)
    for line in verdict(done):
        say(line)
    return DIFFERENT if done.differences else 0


def guarded(work: Callable[[], int], program: str, *, debug: bool = False) -> int:
    """Run *work* and return its exit status; what it raises becomes one paragraph on stderr, and 1."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that knows ASCII alone is no reason to fail
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        return work()
    except BrokenPipeError:  # "| head": nobody reads on
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the flush at the very end
        return 1
    except KeyboardInterrupt:
        return _told(program, "interrupted; nothing was left half made", 130)
    except Exception as error:  # noqa: BLE001 - a user of the command line is never shown a traceback unasked
        if debug:
            traceback.print_exc()
            return 1
        return _told(program, _words(error), 1)


def _words(error: Exception) -> str:
    if isinstance(error, (MLIPClusterError, OSError)):
        return str(error)
    if isinstance(error, (MemoryError, RecursionError)):
        return f"the file is too large or too deep to be read ({type(error).__name__}); give another output of the run"
    return f"unexpected: {type(error).__name__}: {error} (--debug shows where)"


def _told(program: str, text: str, status: int) -> int:
    sys.stderr.write(f"{program}: {paragraph(text)}\n")
    return status


def _python() -> str:
    return Path(sys.executable or "python3").name


def _parser(program: str, text: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program, description=text, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add(parser, "debug", action="store_true", help="show the traceback of an error")
    return parser


def _add(parser: argparse.ArgumentParser, *names: str, **more: Any) -> None:
    """An option under all its names, with dashes as well as underscores."""
    flags = [f"--{form}" for name in names for form in dict.fromkeys((name, name.replace("_", "-")))]
    parser.add_argument(*flags, dest=names[0], **more)


def _parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> Any:
    """The options; or the exit status, where argparse has said all there is to say."""
    try:
        return parser.parse_args(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r:.80} is no number of seconds above 0")


def _usage(parser: argparse.ArgumentParser, text: str) -> int:
    parser.print_usage(sys.stderr)
    return _told(parser.prog, text, 2)
