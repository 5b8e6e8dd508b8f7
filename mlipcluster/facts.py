"""What else decides an answer, beside structure, code and seed: the calculators' weights and the environments."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlipcluster.calculators.provenance import Provenance
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.calls import Introduction
from mlipcluster.environments.measure import measure
from mlipcluster.files import sha256_file, write_atomic
from mlipcluster.records.identity import digest


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
            return digest(dict(self.calculators))
        return self.calculators.get(calculator, "") if "calc" in wanted else ""


def facts_from(introduction: Introduction, calculators: Mapping[str, CalculatorSpec]) -> CalculatorFacts:
    """The facts as a worker tells them."""
    told = {
        name: _calculator_digest(
            spec,
            Provenance.from_json(introduction.calculators[name]["provenance"]),
            introduction.calculators[name]["environment"]["digest"],
        )
        for name, spec in calculators.items()
    }
    return CalculatorFacts(introduction.environment["digest"], told)


def facts_here(calculators: Mapping[str, CalculatorSpec], cache: Path) -> CalculatorFacts | None:
    """The facts without starting anything, for workers on this machine; None where a calculator must be asked.

    A calculator need not be asked when it was before, by this run, and its weights are still the same bytes.
    """
    known = _read(cache)
    told = {}
    for name, spec in calculators.items():
        entry = known.get(name)
        if entry is None or entry["spec"] != _key(spec):
            return None
        provenance = Provenance.from_json(entry["provenance"])
        if any(not os.path.isfile(w.path) or sha256_file(w.path) != w.sha256 for w in provenance.weights):
            return None
        told[name] = _calculator_digest(spec, provenance, measure(spec.interpreter).digest)
    return CalculatorFacts(measure().digest, told)


def remember(introduction: Introduction, calculators: Mapping[str, CalculatorSpec], cache: Path) -> None:
    """Keep what the calculators said, for `facts_here`."""
    entries = {
        name: {"spec": _key(spec), "provenance": introduction.calculators[name]["provenance"]}
        for name, spec in calculators.items()
    }
    write_atomic(cache, json.dumps({**_read(cache), **entries}, indent=1) + "\n")


def _calculator_digest(spec: CalculatorSpec, provenance: Provenance, environment: str) -> str:
    weights = sorted(weight.sha256 for weight in provenance.weights)
    return digest({"spec": spec.identity(), "weights": weights, "environment": environment})


def _key(spec: CalculatorSpec) -> Any:
    return json.loads(json.dumps({**spec.identity(), "interpreter": str(spec.interpreter)}))


def _read(cache: Path) -> dict[str, Any]:
    try:
        return json.loads(cache.read_text())  # type: ignore[no-any-return]
    except (OSError, ValueError):
        return {}
