"""What a record says of code, environment, calculators and weights, held against what is here.

Each check returns the differences it found; the machine gives only notes, because another machine is no mistake.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.environments.environment import Environment, difference
from mlipcluster.files import sha256_file
from mlipcluster.records.git import GitState, changed_files, inspect
from mlipcluster.records.source import ProtocolSource, describe
from mlipcluster.records.source_graph import UNHASHABLE
from mlipcluster.reproduction.protocols import Protocol

FILE, CODE, ENVIRONMENT, CALCULATOR, WEIGHTS, SEEDS, INPUT = (
    "file",
    "code",
    "environment",
    "calculator",
    "weights",
    "seeds",
    "input",
)

LOCK_SHOWN = 40  # lines of a difference between two environments or sources; the rest is counted


@dataclass(frozen=True)
class Difference:
    """One thing that is not as the record says.

    Attributes
    ----------
    kind : str
        ``"file"``, ``"code"``, ``"environment"``, ``"calculator"``, ``"weights"``, ``"seeds"`` or ``"input"``.
    text : str
        What differs, in one line.
    details : tuple of str
        Further lines: packages, or a unified diff of the source.
    """

    kind: str
    text: str
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n    ".join([f"{self.kind}: {self.text}", *self.details])


def check_sources(record: Mapping[str, Any], protocols: Sequence[Protocol | None]) -> list[Difference]:
    """Hold the source of each protocol, and of all it refers to, against the record's; None: it is the record's own."""
    pairs = zip(record["metadata"]["protocols"], protocols, strict=True)
    return [found for old, new in pairs if new is not None for found in _source(old, describe(new))]


def check_git(record: Mapping[str, Any], protocols: Sequence[Protocol | None]) -> list[Difference]:
    """Hold commit and uncommitted changes of the protocols' repository against the record's."""
    old = record["metadata"].get("git")
    here = [protocol for protocol in protocols if protocol is not None]
    if not old or not here:
        return []  # made outside a repository, the protocols' sources still tell; or all of them are the record's own
    new = repository(here)
    if new is None:
        return [
            Difference(
                CODE,
                f"recorded at git commit {old['sha1']}{_of(old.get('remote'))}, here the protocol is in no repository; "
                "check the commit out and run from there",
            )
        ]
    if old["sha1"] != new.sha1:
        text = f"git commit {_short(old['sha1'])} -> {_short(new.sha1)}; run: git checkout {old['sha1']}"
        return [Difference(CODE, text)]
    before, after = _by_file(old.get("diff") or ""), _by_file(new.diff)
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return [
        Difference(
            CODE,
            f"uncommitted changes in {name} differ, on top of commit {_short(new.sha1)}",
            _unified(before.get(name, ""), after.get(name, ""), f"{name}, recorded", f"{name}, here"),
        )
        for name in sorted(names)
    ]


def repository(protocols: Sequence[Protocol]) -> GitState | None:
    """State of the first repository that holds one of the protocols; ready-made ones come with the environment."""
    sources = [describe(protocol) for protocol in protocols]
    files = (source.file for source in sources if source.file and not source.module.startswith("mlipcluster."))
    return next((state for file in files if (state := inspect(Path(file)))), None)


def check_environment(name: str, old: Mapping[str, Any], here: Environment) -> list[Difference]:
    """Hold two measured environments against each other.

    Parameters
    ----------
    name : str
        Whose environment: ``"the run"``, ``"calculator 'chgnet'"``.
    """
    recorded = Environment.from_json(old)
    if recorded.digest == here.digest:
        return []
    lines = difference(recorded, here) or ["the lists of packages differ in their origins"]
    count = f"{len(lines)} things" if len(lines) > 1 else "1 thing"
    text = (
        f"that of {name} differs in {count}; 'mlipcluster env dump' and 'env recreate' build it again from the record"
    )
    return [Difference(ENVIRONMENT, text, _shown(lines))]


def check_calculator(name: str, old: CalculatorSpec, new: CalculatorSpec) -> list[Difference]:
    """Hold two calculators' identities (factory, arguments, device, …) against each other."""
    ours, theirs = old.identity(), new.identity()
    keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    lines = tuple(f"{key}: {ours.get(key)!r} -> {theirs.get(key)!r}" for key in keys)
    return [Difference(CALCULATOR, f"{name or old.factory} is told otherwise than recorded", lines)] if lines else []


def check_files(name: str, files: Iterable[Mapping[str, Any]], kind: str = WEIGHTS) -> list[Difference]:
    """Hash the recorded files that are still where they were; a file that has moved is no difference.

    Parameters
    ----------
    name : str
        Of the calculator that read them: weights or, with *kind* `CODE`, modules of its own that no environment has.
    """
    found = []
    for file in files:
        path = Path(file["path"])
        if file["sha256"] and path.is_file() and (here := sha256_file(path)) != file["sha256"]:
            found.append(_file(kind, name, path.name, file["sha256"], f"{here} ({path})"))
    return found


def check_files_read(
    name: str, old: Iterable[Mapping[str, Any]], new: Iterable[Mapping[str, Any]], kind: str = WEIGHTS
) -> list[Difference]:
    """Hold the files that were read then and now against each other: the hash decides, whatever the path."""
    ours, theirs = ({f["sha256"]: Path(f["path"]) for f in files if f["sha256"]} for files in (old, new))
    extra = {sha256: path for sha256, path in theirs.items() if sha256 not in ours}
    found = []
    for sha256, path in ours.items():
        if sha256 not in theirs:
            instead = next((other for other, where in extra.items() if where.name == path.name), None)
            here = f"{instead} ({extra.pop(instead)})" if instead else "no such file was read"
            found.append(_file(kind, name, path.name, sha256, here))
    found += [Difference(kind, f"{name}: {p.name} was read here (sha256 {s}), but not then") for s, p in extra.items()]
    return sorted(found, key=lambda one: one.text)


def machine_notes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What is another machine's; it may explain differences in the last digits."""
    names = ("architecture", "cpu", "cores", "gpus", "threads", "libc", "kernel", "system", "python", "implementation")
    return [f"machine: {n}: {_value(old.get(n))} -> {_value(new.get(n))}" for n in names if old.get(n) != new.get(n)]


def source_notes(record: Mapping[str, Any]) -> list[str]:
    """What the digests of the protocols' sources leave out."""
    sources = record["metadata"]["protocols"]
    values = {
        name for old in sources for name, digest in (old.get("dependencies") or {}).items() if digest == UNHASHABLE
    }
    return [f"code: {name} has no stable form, so a change of it would go unnoticed" for name in sorted(values)]


def _source(old: Mapping[str, Any], new: ProtocolSource) -> Iterator[Difference]:
    if old["digest"] == new.digest:
        return
    name = f"{old['module']}:{old['name']}"
    before, after = dict(old.get("dependencies") or {}), dict(new.dependencies)
    changed = [key for key in before if key in after and before[key] != after[key]]
    lines = [f"{key}, which it uses, changed" for key in changed]
    lines += [f"{key}, which it used, is not used any more" for key in before.keys() - after.keys()]
    lines += [f"{key} is used now" for key in after.keys() - before.keys()]
    lines = [*sorted(lines), *_unified(old.get("text") or "", new.text, f"{name}, recorded", f"{name}, here")]
    what = f"protocol {name} changed" if old.get("text") != new.text else f"what protocol {name} uses changed"
    yield Difference(CODE, what, tuple(lines))


def _file(kind: str, calculator: str, name: str, recorded: str, here: str) -> Difference:
    return Difference(kind, f"{calculator}: {name}: sha256 {recorded} -> {here}")


def _by_file(diff: str) -> dict[str, str]:
    """Uncommitted changes, file by file."""
    sections = re.split(r"(?m)^(?=diff --git |untracked: )", diff)
    return {", ".join(changed_files(section)) or "the rest": section for section in sections if section}


def _unified(old: str, new: str, old_name: str, new_name: str) -> tuple[str, ...]:
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), old_name, new_name, lineterm="", n=1)
    return _shown(list(lines))


def _shown(lines: Sequence[str]) -> tuple[str, ...]:
    rest = len(lines) - LOCK_SHOWN
    return (*lines[:LOCK_SHOWN], f"… and {rest} more lines") if rest > 1 else tuple(lines)


def _of(remote: str | None) -> str:
    return f" of {remote}" if remote else ""


def _short(sha1: str) -> str:
    return sha1[:12]


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={item}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        items = [str(item.get("name", item)) if isinstance(item, Mapping) else str(item) for item in value]
        return ", ".join(items) or "none"
    return str(value) if value not in (None, "") else "unknown"
