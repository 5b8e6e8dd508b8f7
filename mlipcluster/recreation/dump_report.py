"""What is told of a dump: the files, the code to check out, and the command that builds the environment again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from mlipcluster.environments.environment import Environment
from mlipcluster.recreation.dump import DIFF, Dumped
from mlipcluster.recreation.printing import printable
from mlipcluster.recreation.recorded import Recorded, can_be_cloned


def report(record: Recorded, dumped: Dumped, command: Sequence[str]) -> list[str]:
    """Lines for a terminal; whatever stems from the record is free of control characters.

    Parameters
    ----------
    record, dumped
        What was read and what was written.
    command
        Program and arguments that build an environment again, but for the name of its folder.
    """
    lines = [f"warning: {printable(warning)}" for warning in record.warnings]
    lines += [f"written to {shown(str(dumped.folder))}:", *(f"  {name}" for name in dumped.files)]
    lines += [_calculator(name, place) for name, place in dumped.calculators.items()]
    lines += ["", *_code(record, dumped), *_checkouts(record.environment), ""]
    places = [str(dumped.folder), *(str(dumped.folder / place) for place in dumped.calculators.values() if place)]
    return [*lines, "next:", *(f"  {shown(*command, place)}" for place in places)]


def shown(*words: str) -> str:
    """Words as a shell takes them, on one line and free of control characters."""
    return " ".join(shlex.quote(word) if word.isprintable() else _dollar(word) for word in words)


def _dollar(word: str) -> str:
    """In bash's quoting of what cannot be printed."""
    return "$'" + printable(word.replace("\\", "\\\\").replace("'", "\\'"), 2 * len(word)) + "'"


def _calculator(name: str, place: str) -> str:
    who = f"calculator {printable(name)!r}" if name else "the calculator"
    return f"{who}: {place or 'in the environment of the run itself'}"


def _code(record: Recorded, dumped: Dumped) -> list[str]:
    if not record.sha1:
        return ["code: the record names no commit"]
    remote = printable(record.remote)
    lines = [f"code: commit {record.sha1}" + (f" of {remote}" if remote else ", of a repository without a remote")]
    if can_be_cloned(record.remote) and record.remote.isprintable():
        lines.append(f"  git clone --no-checkout -- {shown(record.remote)} checkout")
        lines.append(f"  git -C checkout fetch origin {record.sha1}")
        lines.append(f"  git -C checkout checkout {record.sha1}")
    else:
        lines.append(f"  git checkout {record.sha1}")
    if record.dirty:
        place = shown(str(dumped.folder / DIFF)) if DIFF in dumped.files else "not recorded"
        lines.append(f"  with changes that were not committed: {place}")
    return lines


def _checkouts(environment: Environment) -> list[str]:
    """Packages that were installed from a folder: those are not fetched from anywhere."""
    lines = []
    for package in environment.packages:
        if package.source.startswith(("editable:", "file:")):
            kind, _, rest = package.source.partition(":")
            commit = rest.partition("@")[2] if kind == "editable" else ""
            where = f"a checkout at {commit}" if commit else "a folder or file of that machine"
            lines.append(f"package {printable(package.name)} {printable(package.version)}: from {printable(where)}")
    return lines
