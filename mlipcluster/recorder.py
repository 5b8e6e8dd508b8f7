"""Puts the two halves of a record together: what the run was told, and what a worker says happened."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.calls import Call, CallResult, Introduction, Product
from mlipcluster.options import About
from mlipcluster.plan import PlannedProtocol
from mlipcluster.records.git import GitState
from mlipcluster.records.identity import Parts, digest
from mlipcluster.records.packing import encode
from mlipcluster.records.record import SCHEMA
from mlipcluster.tasks import Task

MANY_TRAILS = 10_000
"""Ways through the workers' processes that are kept in mind."""


@dataclass(frozen=True)
class Told:
    """What a run was told, as far as every record of it says the same."""

    protocols: tuple[PlannedProtocol, ...]
    calculators: Mapping[str, CalculatorSpec]
    nstruct: int
    seed: int
    about: About
    git: GitState | None
    version: str


@dataclass(frozen=True)
class Trail:
    """What happened on the way to a call, one entry for each protocol before it."""

    seeds: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()
    introductions: tuple[str, ...] = ()

    def then(self, result: CallResult) -> Trail:
        """The trail behind the outputs of a call."""
        return Trail(
            (*self.seeds, result.seed),
            (*self.seconds, result.seconds),
            (*self.introductions, result.introduction),
        )


@dataclass(frozen=True)
class Live:
    """A call on its way through the driver.

    Attributes
    ----------
    task : Task
        The user's task that it began with.
    call : Call
        What the worker is told.
    parts : Parts
        Its identity.
    slot : str
        Its place: task, replicate, lineage and step.
    trail : Trail
    natoms : int
        Size of its structure; 0 if it has none.
    """

    task: Task
    call: Call
    parts: Parts
    slot: str
    trail: Trail = field(default_factory=Trail)
    natoms: int = 0


class Recorder:
    """Makes records; keeps the introductions of the workers' processes.

    Attributes
    ----------
    constants : list of object
        What appears unchanged, as the very same object, in many records: writers render it once.
    """

    def __init__(self, told: Told) -> None:
        self._told = told
        self._met: dict[str, _Met] = {}
        self._facts: dict[tuple[str, ...], dict[str, Any]] = {}
        self._same: dict[str, dict[str, Any]] = {}
        self._git = told.git.to_json() if told.git else None
        protocols = [{**p.source.to_json(), "pickle": encode(p.pickled)} for p in told.protocols]
        self._protocols = [protocols[: step + 1] for step in range(len(protocols))]
        self._names = [[p.name for p in told.protocols[: step + 1]] for step in range(len(protocols))]
        self._calculators = {name: spec.recorded() for name, spec in told.calculators.items()}
        self.constants: list[object] = [self._git, *self._protocols, *self._names, self._calculators]

    def meet(self, introduction: Introduction) -> bool:
        """Keep what a process says of itself; whether it was new."""
        if introduction.name in self._met:
            return False
        met = self._met[introduction.name] = _Met(introduction)
        self.constants += [met.environment, introduction.machine]
        return True

    def environment_digest(self, trail: Trail) -> str:
        """Digest of the environment of the worker that made the last call of a trail."""
        met = self._met.get(trail.introductions[-1]) if trail.introductions else None
        return str(met.environment["digest"]) if met else ""

    def record(
        self, live: Live, result: CallResult, product: Product | None, output: tuple[str, tuple[int, ...]]
    ) -> dict[str, Any]:
        """The record of one output, or of a failure where *product* is None; not yet sealed.

        Parameters
        ----------
        output : (str, tuple of int)
            Its name, and its number among the outputs of each protocol so far.
        """
        name, output_ids = output
        trail = live.trail.then(result)
        met = self._met.get(result.introduction, _NOBODY)
        step = live.call.task.step
        return {
            "schema": SCHEMA,
            "instance": {
                **self._instance(live.task, step),
                "seeds": list(trail.seeds),
                "output_ids": list(output_ids),
                "environment": met.lock,
                "environment_digest": met.environment.get("digest", ""),
            },
            "metadata": {
                "output_name": name,
                "step": step,
                "task_key": live.task.key,
                "identity": live.parts.identity(),
                "parts": live.parts.to_json(),
                "toml": met.toml,
                "toml_format": met.environment.get("toml_format", ""),
                "environment_manager": met.environment.get("manager", ""),
                "environment": met.environment,
                "calculators": self._calculator_facts(trail),
                "protocols": self._protocols[step],
                "git": self._git,
                "machine": met.introduction.machine,
                "times": {"started": utc(result.started), "seconds": list(trail.seconds), **_parts(result)},
                "printed": result.printed,
                "result": {"atoms": product.packed, "digest": product.digest} if product else None,
                **({"parent": product.parent} if product and product.parent else {}),
            },
            "scores": product.scores if product else {},
        }

    def _instance(self, task: Task, step: int) -> dict[str, Any]:
        told = self._told
        return {
            "tasks": {"structure": encode(task.atoms), "kwargs": encode(task.kwargs), "source": task.source},
            "nstruct": told.nstruct,
            "replicate": task.replicate,
            "seed": told.seed,
            "protocols": self._names[step],
            "calculators": self._calculators,
            "calculator": task.calculator,
            "sha1": told.git.sha1 if told.git else "",
            **asdict(told.about),
            "version": told.version,
        }

    def _calculator_facts(self, trail: Trail) -> dict[str, Any]:
        """For each calculator that took part, what the process that used it last said of it."""
        if trail.introductions not in self._facts:
            facts: dict[str, Any] = {}
            for name in trail.introductions:
                for calculator, said in self._met.get(name, _NOBODY).introduction.calculators.items():
                    facts[calculator] = {**said, "environment_digest": said["environment"].get("digest", "")}
            content = digest(facts)
            if content not in self._same:
                self._same[content] = facts
                self.constants.append(facts)
            if len(self._facts) > MANY_TRAILS:
                self._facts.clear()
            self._facts[trail.introductions] = self._same[content]
        return self._facts[trail.introductions]


class _Met:
    """An introduction, with its environment taken apart as records want it."""

    def __init__(self, introduction: Introduction) -> None:
        self.introduction = introduction
        self.environment = dict(introduction.environment)
        self.lock = str(self.environment.pop("lock", ""))
        self.toml = str(self.environment.pop("toml", ""))


_NOBODY = _Met(Introduction("", {}, {}, {}))


def _parts(result: CallResult) -> dict[str, Any]:
    """When and how long each worker ran a call that was interrupted."""
    if not result.parts:
        return {}
    return {"parts": [{"started": utc(part.started), "seconds": part.seconds} for part in result.parts]}


def output_name(live: Live, formula: str, index: int, count: int) -> str:
    """Name of an output: its formula, its identity, and its number where there are several."""
    name = f"{formula[:40] or 'task'}-{live.parts.identity()[:12]}"
    return f"{name}-{index}" if count > 1 else name


def utc(seconds: float) -> str:
    """A time as ISO 8601 text, in UTC."""
    return dt.datetime.fromtimestamp(seconds, dt.timezone.utc).isoformat(timespec="milliseconds")
