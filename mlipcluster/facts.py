"""What else decides an answer, beside structure, code and seed: the calculators' weights and the environments."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlipcluster.calculators.provenance import Provenance, Weight
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.calls import Introduction
from mlipcluster.environments.measure import measure
from mlipcluster.files import sha256_file, write_atomic
from mlipcluster.records.identity import digest

SCRATCH = "scratch"
"""Stands for the hash of a file that a calculator writes again and again."""


@dataclass(frozen=True)
class CalculatorFacts:
    """Digests that go into the identity of each call.

    Attributes
    ----------
    environment : str
        Of the workers' environment.
    calculators : mapping of str to str
        Of each calculator: factory, arguments, weights and its environment.
    """

    environment: str
    calculators: Mapping[str, str] = field(default_factory=dict)

    def for_call(self, wanted: frozenset[str], calculator: str) -> str:
        """Of the calculators that a protocol asks for; ``""`` where it asks for none."""
        if "calculators" in wanted:
            return digest([calculator, dict(self.calculators)])
        return self.calculators.get(calculator, "") if "calc" in wanted else ""


def facts_from(introduction: Introduction, calculators: Mapping[str, CalculatorSpec], cache: Path) -> CalculatorFacts:
    """The facts as a worker tells them; *cache* knows which files the calculators open late."""
    known = _read(cache)
    told = {}
    for name, spec in calculators.items():
        said = introduction.calculators[name]
        provenance = Provenance.from_json(said["provenance"])
        told[name] = _digest(spec, provenance, said["environment"]["digest"], _late(known, name, spec))
    return CalculatorFacts(introduction.environment["digest"], told)


def facts_here(
    calculators: Mapping[str, CalculatorSpec], cache: Path, environment: str | None = None
) -> CalculatorFacts | None:
    """The facts without starting anything; None where a calculator must be asked.

    A calculator need not be asked when it was before, by this run, and its weights and code are still the same bytes.

    Parameters
    ----------
    environment : str, optional
        Digest of the workers' environment. Default: this process's.
    """
    known = _read(cache)
    told = {}
    for name, spec in calculators.items():
        entry = known.get(name)
        if entry is None or entry["spec"] != _key(spec):
            return None
        provenance = Provenance.from_json(entry["provenance"])
        late = _late(known, name, spec)
        if any(_sha256(file.path) != file.sha256 for file in _files(provenance) if late.get(file.path) != SCRATCH):
            return None
        if environment is not None and not spec.interpreter.is_file():
            return None  # it is on the workers' machines alone
        told[name] = _digest(spec, provenance, measure(spec.interpreter, lock=False).digest, late)
    return CalculatorFacts(measure(lock=False).digest if environment is None else environment, told)


def remember(introduction: Introduction, calculators: Mapping[str, CalculatorSpec], cache: Path) -> None:
    """Keep what the calculators said when they were asked, for `facts_here`."""
    known = _read(cache)
    for name, spec in calculators.items():
        late = known[name]["late"] if name in known and known[name]["spec"] == _key(spec) else {}
        provenance = introduction.calculators[name]["provenance"]
        known[name] = {"spec": _key(spec), "provenance": provenance, "late": late}
    write_atomic(cache, json.dumps(known, indent=1) + "\n")


def remember_late(introduction: Introduction, cache: Path, since: float = math.inf) -> None:
    """Keep which files calculators opened only while they worked.

    They are not known before the first call, so they are no part of its identity; but when their bytes change later,
    the identity does. Files that turned out to be a calculator's scratch count no more.

    Parameters
    ----------
    since : float
        When the run began (POSIX seconds). What was written later may be what another program calculated for the
        calculator; if it was a download, the next run finds it as it is.
    """
    known = _read(cache)
    before = json.dumps(known)
    for name, said in introduction.calculators.items():
        if (entry := known.get(name)) is not None:
            asked = {file.path for file in _files(Provenance.from_json(entry["provenance"]))}
            now = Provenance.from_json(said["provenance"])
            for file in _files(now):
                if file.path not in asked and file.sha256 and not _is_written_since(file.path, since):
                    entry["late"].setdefault(file.path, file.sha256)
            entry["late"].update(dict.fromkeys(now.scratch, SCRATCH))
    if json.dumps(known) != before:
        write_atomic(cache, json.dumps(known, indent=1) + "\n")


def _late(known: Mapping[str, Any], name: str, spec: CalculatorSpec) -> dict[str, str]:
    """SHA-256, as they were at first, of the files opened late; or `SCRATCH`."""
    entry = known.get(name)
    return dict(entry["late"]) if entry is not None and entry["spec"] == _key(spec) else {}


def _digest(spec: CalculatorSpec, provenance: Provenance, environment: str, late: Mapping[str, str]) -> str:
    files = sorted(file.sha256 for file in _files(provenance) if late.get(file.path) != SCRATCH)
    now = ((_sha256(path), first) for path, first in late.items() if first != SCRATCH)
    changed = sorted(sha256 for sha256, first in now if sha256 not in ("", first))
    return digest({"spec": spec.identity(), "files": files, "environment": environment, "late": changed})


def _files(provenance: Provenance) -> tuple[Weight, ...]:
    """Weights, and code that belongs to no environment."""
    return (*provenance.weights, *provenance.code)


def _is_written_since(path: str, since: float) -> bool:
    try:
        return os.path.getmtime(path) >= since
    except OSError:
        return False


def _sha256(path: str) -> str:
    return sha256_file(path) if os.path.isfile(path) else ""


def _key(spec: CalculatorSpec) -> Any:
    return json.loads(json.dumps({**spec.identity(), "interpreter": str(spec.interpreter), "paths": list(spec.paths)}))


def _read(cache: Path) -> dict[str, Any]:
    try:
        known = json.loads(cache.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
