"""One output on its way to being made again: what is checked before, the run itself, what is checked after."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ase import Atoms

from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.clusters import Clusters
from mlipcluster.environments.environment import Environment
from mlipcluster.environments.measure import measure
from mlipcluster.errors import InputError
from mlipcluster.execute import Wishes
from mlipcluster.front import MLIPCluster
from mlipcluster.outputs.output import Output
from mlipcluster.records.identity import structure_digest
from mlipcluster.records.packing import decode
from mlipcluster.reproduction import checks
from mlipcluster.reproduction.checks import Difference
from mlipcluster.reproduction.permission import check_calculator, check_factory
from mlipcluster.reproduction.protocols import Located
from mlipcluster.reproduction.roots import Roots

COPIED = ("project_name", "simulation_name", "license")  # who makes it again is another author
FILES = (checks.WEIGHTS, checks.CODE)  # what a calculator read that belongs to no environment


def recorded_calculators(record: Mapping[str, Any]) -> dict[str, CalculatorSpec]:
    """The calculators of a run, by name; a single one has the name ``""``."""
    return {name: CalculatorSpec.from_json(spec) for name, spec in record["instance"]["calculators"].items()}


@dataclass(frozen=True)
class Where:
    """Where the protocols run: as `MLIPCluster` and its `distribute` take them."""

    clusters: Clusters
    clients_indices: int | Sequence[int] | None = None
    resources: Any = None

    @property
    def elsewhere(self) -> bool:
        """Whether on workers that a run would not start on this machine."""
        return self.clusters.elsewhere

    def for_cluster(self) -> dict[str, Any]:
        """Arguments of `MLIPCluster`."""
        told = {field.name: getattr(self.clusters, field.name) for field in fields(self.clusters)}
        return {key: value for key, value in told.items() if value is not None}

    def for_protocols(self) -> dict[str, Any]:
        """Arguments of `MLIPCluster.distribute`."""
        return {key: value for key in ("clients_indices", "resources") if (value := getattr(self, key)) is not None}


class Attempt:
    """One output on its way to being made again."""

    def __init__(
        self,
        original: Output,
        protocols: Sequence[Located],
        options: dict[str, Any],
        where: Where,
        trust: bool,
    ) -> None:
        self.original = original
        self.record = original.record
        self.protocols = tuple(one.function for one in protocols)
        self._to_check = [None if one.from_record else one.function for one in protocols]
        self.where = where
        self.trust = trust
        self.recorded = recorded_calculators(self.record)
        self.calculators = self._calculators(options)
        self.options = options
        self._seen: set[tuple[Any, str]] = set()

    def check_before(self, input_atoms: Atoms | None) -> list[Difference]:
        """What can be seen without running anything."""
        metadata = self.record["metadata"]
        found = checks.check_git(self.record, self._to_check) + checks.check_sources(self.record, self._to_check)
        if not self.where.elsewhere:
            found += self._check_environment("the run", metadata["environment"], measure())
        for name in self.calculators:
            found += self._check_calculator(name, metadata["calculators"].get(name) or {})
        if input_atoms is not None:
            old = structure_digest(self._structure())
            if structure_digest(input_atoms) != old:
                found.append(Difference(checks.INPUT, "input_atoms is not the structure that the record starts from"))
        return found

    def check_after(self, new: Output) -> list[Difference]:
        """What the new record says of environments, weights and seeds."""
        old, here = self.record["metadata"], new.record["metadata"]
        found = self._check_environment("the run", old["environment"], here["environment"])
        for name in self.calculators:  # a process that served others too tells of them as well
            facts, other = (record["calculators"].get(name) or {} for record in (old, here))
            found += self._check_environment(_of(name), facts.get("environment"), other.get("environment"))
            scratch = {path for one in (facts, other) for path in _said(one, "scratch")}
            for kind in FILES:
                then = [file for file in _said(facts, kind) if file["path"] not in scratch]
                now = [file for file in _said(other, kind) if file["path"] not in scratch]
                found += checks.check_files_read(_of(name), then, now, kind)
        if self.record["instance"]["seeds"] != new.record["instance"]["seeds"]:
            found.append(Difference(checks.SEEDS, "the protocols were not given the recorded seeds"))
        return found

    def checked(self) -> tuple[str, ...]:
        """Kinds of things that the record holds something of."""
        metadata = self.record["metadata"]
        facts = [metadata["calculators"].get(name) or {} for name in self.calculators]
        held = {
            checks.FILE: True,
            checks.ENVIRONMENT: all([metadata["environment"], *(one.get("environment") for one in facts)]),
            checks.CODE: bool(metadata["protocols"]),
            checks.CALCULATOR: bool(self.recorded),
            checks.WEIGHTS: any(_said(one, checks.WEIGHTS) for one in facts),
            checks.SEEDS: bool(self.record["instance"]["seeds"]),
        }
        return tuple(kind for kind, holds in held.items() if holds)

    def notes(self, new: Output) -> tuple[str, ...]:
        """What else is to be said: where it ran now, and where the protocols' files are."""
        lines = checks.source_notes(self.record)
        lines += checks.machine_notes(self.record["metadata"]["machine"], new.record["metadata"]["machine"])
        protocols = zip(self.record["metadata"]["protocols"], new.record["metadata"]["protocols"], strict=True)
        for (old, here), checked in zip(protocols, self._to_check, strict=True):
            if checked is None:
                lines.append(f"protocol {old['name']} is the record's own: unpickled, because you trust it")
            elif old.get("file") != here.get("file"):
                lines.append(f"protocol {here['name']} is from {here.get('file')}, recorded {old.get('file')}")
        return tuple(lines)

    def run(self, input_atoms: Atoms | None) -> Output | None:
        """Run the one path that led to the output; None if it leads to none now."""
        instance = self.record["instance"]
        atoms = self._structure() if input_atoms is None else input_atoms
        kwargs = decode(instance["tasks"]["kwargs"], trust=self.trust)
        with _output_path(self.options) as folder:
            options: dict[str, Any] = {
                **{name: instance.get(name) or "" for name in COPIED},
                **({} if self.where.clusters.anywhere else {"max_workers": 1}),
                "filter_results": False,  # it has its number whatever was left out beside it
                "ignore_errors": False,
                "progress": False,
                "resume": False,  # a folder that holds this output already would only give it back
                **self.options,
                "output_path": folder,
            }
            cluster = MLIPCluster(
                tasks=[{"atoms": atoms, **kwargs}],
                seed=instance["seed"],
                seeds=instance["seeds"],
                output_ids=instance["output_ids"],
                replicate=instance["replicate"],
                **_named(self.calculators),
                **self.where.for_cluster(),
                **options,
            )
            with warnings.catch_warnings():
                # Uncommitted changes were held against the record before, which says more than that there are some.
                warnings.filterwarnings("ignore", message=".*uncommitted changes", category=UserWarning)
                results = cluster.distribute(*self.protocols, **self.where.for_protocols())
            ours = next((output for output in results if self._is_the_same(output.record)), None)
            return _kept(ours) if ours else None

    def _is_the_same(self, new: Mapping[str, Any]) -> bool:
        """Whether a record is of the output that is asked for: with ``save_all`` there are those on the way, too."""
        names = ("calculator", "output_ids")
        return new["metadata"]["step"] == self.record["metadata"]["step"] and all(
            new["instance"][name] == self.record["instance"][name] for name in names
        )

    def _check_calculator(self, name: str, facts: Mapping[str, Any]) -> list[Difference]:
        spec = self.calculators[name]
        found = checks.check_calculator(name, self.recorded[name], spec) if name in self.recorded else []
        if spec.interpreter.exists() and not self.where.elsewhere:
            found += self._check_environment(_of(name), facts.get("environment"), measure(spec.interpreter))
        for kind in FILES:
            found += checks.check_files(_of(name), _said(facts, kind), kind)
        return found

    def _check_environment(
        self, name: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | Environment | None
    ) -> list[Difference]:
        """As `checks.check_environment`, but the same two environments are told of once, whoever they serve."""
        if not old or not new:
            where = "the new record" if old else "the record"
            text = f"that of {name} is not in {where}, so nothing can be held against it"
            return [Difference(checks.ENVIRONMENT, text)]
        here = new if isinstance(new, Environment) else Environment.from_json(new)
        if (pair := (Environment.from_json(old).digest, here.digest)) in self._seen:
            return []
        self._seen.add(pair)
        return checks.check_environment(name, old, here)

    def _calculators(self, options: dict[str, Any]) -> dict[str, CalculatorSpec]:
        """The recorded calculators that are needed, or those of the options instead."""
        name = self.record["instance"]["calculator"]
        needed = dict(self.recorded)
        if not any("calculators" in Wishes.of(protocol).handed for protocol in self.protocols):
            needed = {key: spec for key, spec in needed.items() if key == name}
        roots = Roots(**self.where.clusters.where(options.pop("root", None)))
        given = {key: roots.resolve(spec) for key, spec in (options.pop("calculators", None) or {}).items()}
        if (one := options.pop("calculator", None)) is not None:
            given.setdefault(name, roots.resolve(one))
        for key, spec in needed.items():
            if key not in given and spec.build is not None:
                given[key] = roots.located(key, spec, trust=self.trust)
        needed.update(given)
        for key, spec in needed.items():
            if not self.trust and key not in given:
                check_factory(key, spec)
            if not self.where.elsewhere and not Path(spec.interpreter).exists():
                raise InputError(
                    f"calculator {key or spec.name or spec.factory!r} ran in {spec.interpreter}, which is not here. "
                    "Build its environment again and say where it is: instance_kwargs={'calculator': "
                    "spec.replace(python=…)}, or --python on the command line."
                )
            if not self.trust and key not in given:
                check_calculator(key, spec)
        return {key: spec if key in given else spec.revealed(os.environ) for key, spec in needed.items()}

    def _structure(self) -> Atoms | None:
        atoms = decode(self.record["instance"]["tasks"]["structure"], trust=self.trust)
        return atoms if isinstance(atoms, Atoms) else None


@contextmanager
def _output_path(options: Mapping[str, Any]) -> Iterator[Any]:
    if options.get("output_path"):
        yield options["output_path"]
        return
    with tempfile.TemporaryDirectory(prefix="mlipcluster-reproduce-") as folder:
        yield Path(folder) / "run"


def _kept(output: Output) -> Output:
    """An output whose file may go."""
    return Output(output.name, output.atoms, dict(output.scores), dict(output.record), output.path)


def _named(calculators: Mapping[str, CalculatorSpec]) -> dict[str, Any]:
    if "" in calculators:
        return {"calculator": calculators[""]}
    return {"calculators": dict(calculators)} if calculators else {}


def _said(facts: Mapping[str, Any], kind: str) -> Sequence[Any]:
    return (facts.get("provenance") or {}).get(kind) or ()


def _of(name: str) -> str:
    return f"calculator {name!r}" if name else "the calculator"
