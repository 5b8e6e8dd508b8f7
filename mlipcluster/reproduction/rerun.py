"""One output: same environment, code and seeds, again, and compared."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from mlipcluster.calculators.registry import resolve
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.environments.measure import measure
from mlipcluster.errors import InputError, MismatchError, RecordError
from mlipcluster.execute import wanted_names
from mlipcluster.front import MLIPCluster
from mlipcluster.outputs.output import Output
from mlipcluster.records.identity import structure_digest
from mlipcluster.records.packing import decode
from mlipcluster.reproduction import checks
from mlipcluster.reproduction.audit import Audit
from mlipcluster.reproduction.checks import Difference
from mlipcluster.reproduction.comparison import DIFFERENT, Quantity, Tolerance, compare, overall, tolerances
from mlipcluster.reproduction.original import load
from mlipcluster.reproduction.protocols import Protocol, find

PathLike = str | os.PathLike[str]
COPIED = ("project_name", "simulation_name", "license")  # who makes it again is another author


def reproduce(  # noqa: PLR0913 - the keyword arguments that PyRosettaCluster's users know, and few more
    input_file: PathLike | None = None,
    *,
    scorefile: PathLike | None = None,
    output_name: str | None = None,
    decoy_name: str | None = None,
    protocols: Protocol | Sequence[Protocol] | None = None,
    client: Any = None,
    clients: Sequence[Any] | None = None,
    input_atoms: Atoms | None = None,
    instance_kwargs: Mapping[str, Any] | None = None,
    clients_indices: int | Sequence[int] | None = None,
    resources: Mapping[str, float] | Sequence[Mapping[str, float] | None] | None = None,
    tolerances: Mapping[str, float | Tolerance] | None = None,
    strict: bool = True,
    trust: bool = False,
) -> Audit:
    """Make one output again, in the same way, and compare.

    Before anything runs, the protocols' source and git commit, the environments, the weights and the file itself
    are held against the record. Then the one path that led to the output is run again from the recorded structure
    and seeds, and every quantity of the result is compared bit for bit, then within tolerances.

    Parameters
    ----------
    input_file : path, optional
        An output of `MLIPCluster`, in any format and compression.
    scorefile, output_name : path and str, optional
        Instead: a ledger (or the run folder that holds it), and the name of one of its outputs.
    decoy_name : str, optional
        Another word for ``output_name``.
    protocols : callable or sequence of callables, optional
        The protocols, in order. By default they are imported by the module and name in the record.
    client, clients : distributed.Client or sequence of them, optional
        Where to run. By default one worker is started here.
    input_atoms : Atoms, optional
        Start from this structure instead of the recorded one.
    instance_kwargs : mapping, optional
        Other options of `MLIPCluster`, for example ``{"output_path": "again"}`` to keep the new output, or
        ``{"calculator": spec}`` for a calculator whose environment is in another place now.
    clients_indices, resources
        As `MLIPCluster.distribute` takes them.
    tolerances : mapping, optional
        Other tolerances by quantity, see `mlipcluster.reproduction.comparison.TOLERANCES`; ``inf`` leaves a
        quantity unjudged.
    strict : bool
        Raise when something is not as recorded; otherwise it is in the `Audit`.
    trust : bool
        Load pickles from the record: protocols that cannot be imported, and keyword arguments that JSON cannot
        hold. A pickle can run any code; say so only for files whose writer you trust.

    Returns
    -------
    Audit
        Its ``verdict``, numbers and ``text()``.

    Raises
    ------
    MismatchError
        Something is not as recorded, and *strict*; its ``differences`` name each.
    RecordError
        The file is damaged or was changed after it was written, and *strict*; or it cannot be read at all.
    ProtocolError
        A protocol cannot be found.
    InputError
        An argument cannot be used, or the calculator's interpreter is not here.
    """
    original, damage = load(input_file, scorefile, output_name or decoy_name, trust=trust)
    if damage and strict:
        raise RecordError(f"{original.path} is damaged: {'; '.join(damage)}. Restore it from a copy, or strict=False.")
    options = dict(instance_kwargs or {})
    where = _Where(client, clients, clients_indices, resources)
    rerun = _Rerun(original, find(original.record, protocols, trust=trust), options, where, trust)
    compare_with = _tolerances(tolerances)
    before = [Difference(checks.FILE, line) for line in damage] + rerun.check_before(input_atoms)
    _refuse(original, before, strict=strict)
    new = rerun.run(input_atoms)
    after = [one for one in rerun.check_after(new) if one not in before] if new else []
    _refuse(original, after, strict=strict, ran=True)
    quantities = compare(original.atoms, new.atoms, compare_with) if new else (_NO_OUTPUT,)
    notes = rerun.notes(new) if new else ()
    return Audit(overall(quantities), quantities, (*before, *after), rerun.checked(), notes, original, new)


_NO_OUTPUT = Quantity("output", DIFFERENT, note="the protocols gave no such output this time")
_tolerances = tolerances  # the function, where an argument has its name


def recorded_calculators(record: Mapping[str, Any]) -> dict[str, CalculatorSpec]:
    """The calculators of a run, by name; a single one has the name ``""``."""
    return {name: CalculatorSpec.from_json(spec) for name, spec in record["instance"]["calculators"].items()}


@dataclass(frozen=True)
class _Where:
    """Where the protocols run."""

    client: Any
    clients: Sequence[Any] | None
    clients_indices: int | Sequence[int] | None
    resources: Any

    @property
    def elsewhere(self) -> bool:
        return self.client is not None or bool(self.clients)

    def for_cluster(self) -> dict[str, Any]:
        return {key: value for key in ("client", "clients") if (value := getattr(self, key)) is not None}

    def for_protocols(self) -> dict[str, Any]:
        return {key: value for key in ("clients_indices", "resources") if (value := getattr(self, key)) is not None}


class _Rerun:
    """One output on its way to being made again."""

    def __init__(
        self,
        original: Output,
        protocols: Sequence[Protocol],
        options: dict[str, Any],
        where: _Where,
        trust: bool,
    ) -> None:
        self.original = original
        self.record = original.record
        self.protocols = tuple(protocols)
        self.where = where
        self.trust = trust
        self.recorded = recorded_calculators(self.record)
        self.calculators = self._calculators(options)
        self.options = options

    def check_before(self, input_atoms: Atoms | None) -> list[Difference]:
        """What can be seen without running anything."""
        metadata = self.record["metadata"]
        found = checks.check_git(self.record, self.protocols) + checks.check_sources(self.record, self.protocols)
        if not self.where.elsewhere:
            found += checks.check_environment("of the run", metadata["environment"], measure())
        for name, facts in metadata["calculators"].items():
            found += self._check_calculator(name, facts)
        if input_atoms is not None:
            old = structure_digest(self._structure())
            if structure_digest(input_atoms) != old:
                found.append(Difference(checks.INPUT, "input_atoms is not the structure that the record starts from"))
        return found

    def check_after(self, new: Output) -> list[Difference]:
        """What the new record says of environments, weights and seeds."""
        old, here = self.record["metadata"], new.record["metadata"]
        found = checks.check_environment("of the run", old["environment"], here["environment"])
        for name, facts in old["calculators"].items():
            other = here["calculators"].get(name) or {}
            if facts.get("environment") and other.get("environment"):
                found += checks.check_environment(_of(name), facts["environment"], other["environment"])
            found += checks.check_weights(_called(name), _weights(facts), _weights(other))
        if self.record["instance"]["seeds"] != new.record["instance"]["seeds"]:
            found.append(Difference(checks.SEEDS, "the protocols were not given the recorded seeds"))
        return found

    def checked(self) -> tuple[str, ...]:
        """Kinds of things that the record holds something of."""
        weights = any(_weights(facts) for facts in self.record["metadata"]["calculators"].values())
        kinds = (checks.FILE, checks.ENVIRONMENT, checks.CODE, checks.CALCULATOR, checks.WEIGHTS, checks.SEEDS)
        return tuple(kind for kind in kinds if kind != checks.WEIGHTS or weights)

    def notes(self, new: Output) -> tuple[str, ...]:
        """What else is to be said: where it ran now, and where the protocols' files are."""
        lines = checks.machine_notes(self.record["metadata"]["machine"], new.record["metadata"]["machine"])
        for old, here in zip(self.record["metadata"]["protocols"], new.record["metadata"]["protocols"], strict=True):
            if old.get("file") != here.get("file"):
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
                **({} if self.where.elsewhere else {"max_workers": 1}),
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
            results = cluster.distribute(*self.protocols, **self.where.for_protocols())
            ours = [o for o in results if o.record["instance"]["calculator"] == instance["calculator"]]
            return _kept(ours[0]) if ours else None

    def _check_calculator(self, name: str, facts: Mapping[str, Any]) -> list[Difference]:
        spec = self.calculators[name]
        found = checks.check_calculator(name, self.recorded[name], spec)
        python = spec.interpreter
        if facts.get("environment") and (python.exists() or not self.where.elsewhere):
            found += checks.check_environment(_of(name), facts["environment"], measure(python))
        return found + checks.check_weight_files(_called(name), _weights(facts))

    def _calculators(self, options: dict[str, Any]) -> dict[str, CalculatorSpec]:
        """The recorded calculators that are needed, or those of the options instead."""
        name = self.record["instance"]["calculator"]
        needed = dict(self.recorded)
        if not any("calculators" in wanted_names(protocol) for protocol in self.protocols):
            needed = {key: spec for key, spec in needed.items() if key == name}
        if (given := options.pop("calculator", None)) is not None:
            needed[name] = resolve(given)
        needed.update({key: resolve(spec) for key, spec in (options.pop("calculators", None) or {}).items()})
        for key, spec in needed.items():
            if not self.where.elsewhere and not Path(spec.interpreter).exists():
                raise InputError(
                    f"calculator {key or spec.name or spec.factory!r} ran in {spec.interpreter}, which is not here. "
                    "Recreate its environment (recreate_env.py) and say where it is: instance_kwargs={'calculator': "
                    "spec.replace(python=…)}, or --python on the command line."
                )
        return needed

    def _structure(self) -> Atoms | None:
        atoms = decode(self.record["instance"]["tasks"]["structure"], trust=self.trust)
        return atoms if isinstance(atoms, Atoms) else None


def _refuse(original: Output, differences: Sequence[Difference], *, strict: bool, ran: bool = False) -> None:
    if not differences or not strict:
        return
    lines = tuple(map(str, differences))
    when = " (seen when it was run again)" if ran else ""
    what = "1 thing is" if len(lines) == 1 else f"{len(lines)} things are"
    raise MismatchError(
        f"{original.name}: {what} not as recorded{when}:\n  " + "\n  ".join(lines) + "\nPut things back as the "
        "record says, or use strict=False (--lenient): the output is made again all the same, and they are reported.",
        lines,
    )


@contextmanager
def _output_path(options: Mapping[str, Any]) -> Iterator[PathLike]:
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


def _weights(facts: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return (facts.get("provenance") or {}).get("weights") or ()


def _of(name: str) -> str:
    return f"of calculator {name!r}" if name else "of the calculator"


def _called(name: str) -> str:
    return name or "the calculator"
