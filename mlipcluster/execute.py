"""What runs on a worker: seeds, calculator, protocol, and the worker's half of the record."""

from __future__ import annotations

import contextlib
import copy
import inspect
import pickle
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np
from ase import Atoms

from mlipcluster.attempt import NOBODY, Attempt, Watcher
from mlipcluster.calls import Call, CallResult, Failure, Introduction, Job, Product
from mlipcluster.checkpoint import CalculatorForgot, CallInterrupted, Checkpoint, Saved, got_on
from mlipcluster.environments.measure import measure
from mlipcluster.errors import ProtocolError
from mlipcluster.outputs.parent import parent_of
from mlipcluster.records.identity import digest, parameters_digest, result_digest
from mlipcluster.records.machine import describe_machine
from mlipcluster.records.packing import encode, freeze, is_portable
from mlipcluster.records.seeds import call_seed, seed_everything

if TYPE_CHECKING:
    from mlipcluster.calculators.pool import CalculatorPool
    from mlipcluster.calculators.provenance import Provenance
    from mlipcluster.calculators.socket_calculator import SocketCalculator
    from mlipcluster.calculators.spec import CalculatorSpec
    from mlipcluster.outputs.frame import Frame

HANDED = ("calc", "calculators", "checkpoint", "rng", "scratch", "seed", "task")
"""What a protocol may ask for by name beside its task's own keyword arguments."""

Protocol = Callable[..., Any]


class Executor:
    """Runs calls, one after the other, and keeps warm what they share."""

    def __init__(self, pool: CalculatorPool) -> None:
        self._pool = pool
        self._loaded: tuple[str, Protocol, Callable[[Atoms], bool] | None] | None = None
        self._environments: dict[str | None, dict[str, Any]] = {}
        self._used: dict[str, tuple[CalculatorSpec, Any]] = {}
        self._introduction: Introduction | None = None
        self._interrupted = False

    def run(self, job: Job, call: Call, watcher: Watcher = NOBODY) -> CallResult:
        """Make one call; whatever it raises becomes its `Failure`."""
        seed = self._seed(job, call)
        begun_at: Saved | None = None
        again = False
        while True:
            attempt = Attempt(call.checkpoint)
            result = self._attempt(job, call, seed, (watcher, attempt))
            # A calculator that was started anew on the way has forgotten what the old one remembered (a neighbour
            # list, a density): the last bits may differ. So the call begins again: once, or from its newest save.
            if not self._interrupted or result.interrupted or (again and not got_on(begun_at, attempt.saved)):
                return replace(result, introduction=self.introduce(job).name)
            again, begun_at = True, attempt.saved
            call = replace(call, checkpoint=begun_at)

    def _attempt(self, job: Job, call: Call, seed: int, told: tuple[Watcher, Attempt]) -> CallResult:
        watcher, attempt = told
        products: list[Product] = []
        updates: dict[str, Any] = {}
        failure = None
        self._interrupted = False
        try:
            protocol, keep = self._load(job)
            wishes = self._wishes
            with self._handed(job, call, seed, (watcher, attempt)) as handed, attempt.timed(watcher.clock):
                products, updates = _collect(attempt.noted(_values(protocol, wishes, call, handed)), job, keep)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except CallInterrupted:
            pass
        except CalculatorForgot as forgot:
            self._interrupted = True
            failure = describe_failure(forgot)
        except BaseException as error:  # noqa: BLE001 - sys.exit() in a protocol is a failure of that call only
            products, updates, failure = [], {}, describe_failure(error)
        if attempt.stopped or (self._interrupted and attempt.is_late):
            return attempt.interrupted(seed)
        return attempt.result(seed, products, updates, failure)

    def introduce(self, job: Job, *, start: bool = False) -> Introduction:
        """Tell of this process: machine, environment, and the calculators it has used so far.

        Parameters
        ----------
        start : bool
            Start the job's calculators now, so that they are told of as well.
        """
        if start:
            for name, spec in job.calculators.items():
                self._used[name] = (spec, self._pool.provenance(spec))
        if self._introduction is None or start:
            parts = {
                "machine": describe_machine(),
                "environment": self._environment(None),
                "calculators": {
                    name: {"provenance": _lasting(provenance), "environment": self._environment(str(spec.interpreter))}
                    for name, (spec, provenance) in sorted(self._used.items())
                },
            }
            self._introduction = Introduction(digest(parts)[:16], **parts)
        return self._introduction

    def _environment(self, python: str | None) -> dict[str, Any]:
        """An interpreter's environment; None: this process's own, which may import from more than its interpreter's.

        A calculator runs isolated, without the user's site-packages, also where its interpreter is this one.
        """
        if python not in self._environments:
            self._environments[python] = measure(python).to_json()
        return self._environments[python]

    def _seed(self, job: Job, call: Call) -> int:
        task = call.task
        return (
            call.seed
            if call.seed is not None
            else call_seed(job.seed, task.key, task.replicate, task.step, task.lineage)
        )

    def _load(self, job: Job) -> tuple[Protocol, Callable[[Atoms], bool] | None]:
        if self._loaded is None or self._loaded[0] != job.protocol_digest:
            self._loaded = (job.protocol_digest, *cloudpickle.loads(job.protocol))
            self._wishes = Wishes.of(self._loaded[1])
        return self._loaded[1], self._loaded[2]

    @contextlib.contextmanager
    def _handed(self, job: Job, call: Call, seed: int, told: tuple[Watcher, Attempt]) -> Iterator[dict[str, Any]]:
        """What the protocol's signature asks for; the calculators are in a defined state."""
        wanted = self._wishes.handed
        watcher, attempt = told
        with contextlib.ExitStack() as stack:
            handed: dict[str, Any] = {"seed": seed, "task": call.task}
            names = _calculators_wanted(wanted, job, call)
            leases = {name: stack.enter_context(self._pool.lease(job.calculators[name], seed)) for name in names}
            if "calculators" in wanted:
                handed["calculators"] = leases
            if "calc" in wanted and call.task.calculator in leases:
                handed["calc"] = leases[call.task.calculator]
            if "scratch" in wanted:
                handed["scratch"] = stack.enter_context(_scratch(job.scratch_dir))
            # Seeded even if no rng is asked for: code beneath a protocol may use the global generators.
            rng = seed_everything(seed)
            handed["rng"] = rng
            if "checkpoint" in wanted:
                handed["checkpoint"] = attempt.checkpoint = Checkpoint(rng, leases, seed, call.checkpoint, watcher.keep)
            try:
                yield {name: value for name, value in handed.items() if name in wanted}
            finally:
                self._interrupted = any(getattr(lease, "interrupted", False) for lease in leases.values())
                self._note_provenance(job, leases)

    def _note_provenance(self, job: Job, leases: Mapping[str, SocketCalculator]) -> None:
        """Ask the calculators that were used, as they are now: they may have opened weights late."""
        for name, calculator in leases.items():
            with contextlib.suppress(Exception):  # one that cannot be asked any more told of itself before
                if not calculator.host.alive:
                    continue
                now = (job.calculators[name], calculator.provenance())
                if self._used.get(name) != now:
                    self._used[name] = now
                    self._introduction = None


@dataclass(frozen=True)
class Wishes:
    """What a protocol's signature asks for.

    Attributes
    ----------
    names : frozenset of str
        Its parameters' names.
    anything : bool
        Whether it takes ``**kwargs``.
    required : frozenset of str
        Those without a default.
    first : str, optional
        Its first parameter, where that can be given by position: the structure's, unless it has another's name.
    """

    names: frozenset[str]
    required: frozenset[str]
    anything: bool
    first: str | None

    @classmethod
    def of(cls, protocol: Protocol) -> Wishes:
        """Read a protocol's signature."""
        parameters = list(inspect.signature(protocol).parameters.values())
        named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        names = frozenset(p.name for p in named)
        required = frozenset(p.name for p in named if p.default is p.empty)
        anything = any(p.kind is p.VAR_KEYWORD for p in parameters)
        by_position = bool(parameters) and parameters[0].kind not in (
            inspect.Parameter.KEYWORD_ONLY,
            inspect.Parameter.VAR_KEYWORD,
        )
        return cls(names, required, anything, parameters[0].name if by_position else None)

    @property
    def handed(self) -> frozenset[str]:
        """Names among `HANDED` that it asks for; ``**kwargs`` asks for all."""
        return frozenset(HANDED) if self.anything else self.names & frozenset(HANDED)

    def takes_atoms(self, kwargs: Mapping[str, Any]) -> bool:
        """Whether its first parameter is the structure."""
        return self.first is not None and self.first not in HANDED and self.first not in kwargs

    def does_without_atoms(self) -> bool:
        """Whether its first parameter has a default of its own, for a task that has no structure."""
        return self.first in self.names - self.required


def describe_failure(error: BaseException) -> Failure:
    """Make an exception fit to travel."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    pickled = None
    for form in (error, _ByParts(error)):
        # Whatever a user's exception class does wrong, type and text still travel.
        with contextlib.suppress(Exception):
            pickled = cloudpickle.dumps(form)
            cloudpickle.loads(pickled)
            break
        pickled = None
    lines = "".join(traceback.format_exception(error))
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - as above
        message = lines.strip().rpartition("\n")[2]
    return Failure(name, message, lines, pickled)


class _ByParts:
    """Pickles an exception whose constructor takes other arguments than it hands to its base class."""

    def __init__(self, error: BaseException) -> None:
        self._parts = type(error), error.args, vars(error)

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_parts, self._parts


def _from_parts(kind: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(attributes)
    return error


def _calculators_wanted(wanted: frozenset[str], job: Job, call: Call) -> list[str]:
    if "calculators" in wanted:
        return list(job.calculators)
    return [call.task.calculator] if "calc" in wanted and call.task.calculator in job.calculators else []


def _values(protocol: Protocol, wishes: Wishes, call: Call, handed: dict[str, Any]) -> Iterator[Any]:
    """Call the protocol and give what it returns or yields, one by one."""
    own = {name: value for name, value in call.kwargs.items() if wishes.anything or name in wishes.names}
    own = copy.deepcopy(own)  # calls of a chunk share the values that their tasks share; what one changes is its own
    arguments: tuple[Atoms | None, ...] = ()
    if wishes.takes_atoms(call.kwargs) and (call.structure or not wishes.does_without_atoms()):
        arguments = (pickle.loads(call.structure) if call.structure else None,)  # noqa: S301
    result = protocol(*arguments, **{**handed, **own})
    if inspect.isgenerator(result) or isinstance(result, (list, tuple)):
        yield from result
    else:
        yield result


def _lasting(provenance: Provenance) -> dict[str, Any]:
    """Provenance without what is another at each start: a process started again needs no new introduction."""
    stated = provenance.to_json()
    del stated["build_seconds"]
    return stated


def _collect(
    values: Iterator[Any], job: Job, keep: Callable[[Atoms], bool] | None
) -> tuple[list[Product], dict[str, Any]]:
    products: list[Product] = []
    updates: dict[str, Any] = {}
    index = 0
    for value in values:
        if isinstance(value, Atoms):
            if (len(value) or not job.drop_empty) and (keep is None or keep(value)):
                products.append(_product(freeze(value), index, job))
            index += 1
        elif value is not None:
            _update(value, updates)
    parameters_digest(updates)  # what has no stable value is told here, where it came from
    return products, updates


def _update(value: Any, updates: dict[str, Any]) -> None:
    if isinstance(value, dict):
        if updates:
            raise ProtocolError("the protocol gave more than one dict; give one with all updates of keyword arguments.")
        updates.update(value)
    else:
        raise ProtocolError(
            f"the protocol gave a {type(value).__name__}; a protocol returns or yields Atoms, None, "
            "and at most one dict that updates the keyword arguments of the next protocol."
        )


def _product(atoms: Atoms, index: int, job: Job) -> Product:
    packed = encode(atoms)
    scores = scores_of(atoms)
    return Product(
        scores["formula"],
        index,
        packed,
        result_digest(atoms, packed),
        scores,
        b"" if job.last else pickle.dumps(atoms),
        _frames(atoms, job.formats),
        parent_of(atoms),
        len(atoms),
    )


def _frames(atoms: Atoms, formats: Sequence[str]) -> dict[str, Frame]:
    if not formats:
        return {}
    from mlipcluster.outputs.formats import FORMATS  # their readers and SciPy take half a second to import

    return {name: FORMATS[name].frame(atoms) for name in formats}


def scores_of(atoms: Atoms) -> dict[str, Any]:
    """Scores of an output: what its calculator found, and what the protocol left in ``atoms.info``.

    ``energy`` is in eV; ``max_force``, the largest norm of a force on an atom after constraints, in eV/Å.
    """
    scores: dict[str, Any] = {"formula": atoms.get_chemical_formula(), "natoms": len(atoms)}
    results = atoms.calc.results if atoms.calc is not None else {}
    if "energy" in results:
        scores["energy"] = float(results["energy"])
    if "forces" in results and len(atoms):
        scores["max_force"] = float(np.sqrt((atoms.get_forces() ** 2).sum(axis=1).max()))
    for key, value in atoms.info.items():
        if (score := _score(value)) is not None:
            scores.setdefault(str(key), score)
    return scores


def _score(value: Any) -> Any:
    """A value as JSON knows it, or None where it is no score."""
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return _score(value.item())
    if isinstance(value, np.ndarray) and value.ndim <= 1 and value.size <= 16 and value.dtype.kind in "bif":
        return value.tolist()
    if isinstance(value, (list, tuple)) and is_portable(value) and len(value) <= 16:
        return list(value) if all(isinstance(v, (bool, int, float, str)) for v in value) else None
    return None


@contextlib.contextmanager
def _scratch(parent: str | None) -> Iterator[Path]:
    folder = tempfile.mkdtemp(prefix="call-", dir=parent)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
