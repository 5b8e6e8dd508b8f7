"""`MLIPCluster`: what the user holds."""

from __future__ import annotations

import contextlib
import hashlib
import inspect as python_inspect
import logging
import operator
import os
import platform
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ase import Atoms

from mlipcluster.calculators.registry import resolve
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.calls import Introduction, Job
from mlipcluster.clusters import Clusters
from mlipcluster.deploy.arrivals import Terms
from mlipcluster.deploy.deployment import Place
from mlipcluster.distribute import Distribution, Pinned, Work
from mlipcluster.errors import InputError, MismatchError, RecordError
from mlipcluster.facts import CalculatorFacts, facts_from, facts_here, remember
from mlipcluster.files import RunFolder
from mlipcluster.interpreters import environment_here, remember_environment
from mlipcluster.options import GROUPS, Options
from mlipcluster.outputs.ledger import Ledger
from mlipcluster.outputs.output import Output
from mlipcluster.outputs.results import Results
from mlipcluster.plan import PlannedProtocol, ProtocolOptions, by_value, check_keywords, plan_protocols
from mlipcluster.progress import Progress
from mlipcluster.recorder import Told
from mlipcluster.records.git import GitState, check, inspect
from mlipcluster.records.seeds import new_root
from mlipcluster.runbook import Earlier, RunBook, Saved
from mlipcluster.tasks import Tasks, TaskSource
from mlipcluster.workers import Workers

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger("mlipcluster")

Calculator = str | Mapping[str, Any] | CalculatorSpec


class MLIPCluster:
    """Distributes protocols over tasks, and records every output so that it can be made again.

    Parameters
    ----------
    tasks : Atoms, str, path, mapping, iterable or callable
        What to work on: structures, names of files that ASE reads (patterns too; each frame is a task), dictionaries
        of keyword arguments for the protocols (with ``atoms`` or not), a list or generator of these, or a function
        that returns one. Generators are read as the workers need tasks.
    calculator : str, mapping or CalculatorSpec, optional
        Handed to protocols as ``calc``: a model string of the root (``"mace-medium"``), a short name (``"emt"``), a
        factory (``"module:callable"``) or a spec.
    calculators : mapping of str to these, optional
        Several, by name: each task is run once with each; ``calculators`` hands a protocol all of them.
    root : path, optional
        The root of environments that model strings are looked up in. Default: that of the named *cluster*, else what
        ``MLIPCLUSTER_ROOT`` or a settings file names (`mlipcluster.store.sites`).
    cluster : Deployment, str, distributed.Cluster, distributed.Client or callable, optional
        Where the workers run: a value such as ``Slurm(…)``, the name of a configured cluster (which may have a root of
        environments, workers, or both), a Dask cluster or client of your own, the address of a scheduler, or a function
        that makes one of these three when it is needed. What was handed in is not closed; what was made is. Default:
        this machine.
    clusters : sequence of these, optional
        Several, which ``clients_indices`` of `distribute` counts from 0.
    nstruct : int
        Repeats of each task, each with seeds of its own.
    seed : int, optional
        Root seed of the run. Drawn, and recorded, when not given; a run that goes on keeps its own.
    seeds, output_ids : sequence of int, optional
        Pin the seed, and the output to follow, of each protocol, as a record says: one path of a run.
    replicate : int, optional
        With them: which repeat it is.
    input_atoms : Atoms, optional
        The structure of tasks that bring none.
    client, clients : distributed.Client or a sequence of them, optional
        The same for clients of your own.
    **options
        Any field of the groups in `mlipcluster.options`, by its name: `Compute`, `Saving`, `Faults`, `About`,
        `Checks` and `Showing`; ``output_path="runs/relax"`` among them.

    Raises
    ------
    InputError
        An option or a calculator is unknown, or a value cannot be meant.

    Examples
    --------
    >>> from mlipcluster.protocols import relax
    >>> results = MLIPCluster("structures/*.cif", "emt", output_path="runs/relax").distribute(relax)  # doctest: +SKIP
    """

    def __init__(  # noqa: PLR0913 - the public face; everything else is in the groups of options
        self,
        tasks: Tasks | None = None,
        calculator: Calculator | None = None,
        *,
        calculators: Mapping[str, Calculator] | None = None,
        root: str | os.PathLike[str] | None = None,
        cluster: Any = None,
        clusters: Sequence[Any] | None = None,
        nstruct: int = 1,
        seed: int | None = None,
        seeds: Sequence[int] | None = None,
        output_ids: Sequence[int] | None = None,
        replicate: int | None = None,
        input_atoms: Atoms | None = None,
        client: Client | None = None,
        clients: Sequence[Client] | None = None,
        **options: Any,
    ) -> None:
        self.options = Options.from_names(options)
        chosen = Clusters(cluster, clusters, client, clients)
        self._calculators = _calculators(calculator, calculators, chosen.where(root))
        self._nstruct = _whole("nstruct", nstruct, 1)
        self._seed = None if seed is None else _whole("seed", seed, 0)
        self._pinned = Pinned(_wholes("seeds", seeds), _wholes("output_ids", output_ids))
        self._source = TaskSource(
            tasks,
            input_atoms=input_atoms,
            nstruct=self._nstruct,
            calculators=list(self._calculators) or [""],
            replicate=None if replicate is None else _whole("replicate", replicate, 0),
        )
        saving = self.options.saving
        self.folder = RunFolder(
            saving.output_path,
            outputs=saving.output_dir_name,
            logs=saving.logs_dir_name,
            ledger=saving.scorefile_name,
        )
        checks = self.options.checks
        self._workers = Workers(
            chosen.deployments(self.options.compute, root),
            self._place,
            self.options.compute.security,
            Terms(checks.same_versions, checks.environment),
        )
        self._inside = False

    def _place(self, number: int) -> Place:
        folder = self.folder
        token = hashlib.sha256(os.fspath(folder.root).encode()).hexdigest()[:12]
        address = self.options.compute.dashboard_address
        private = folder.private / str(number)
        return Place(token, number, folder.logs, private, folder.jobs, dashboard_address=address)

    def __enter__(self) -> MLIPCluster:
        self._inside = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._inside = False
        self._workers.close(abort=error is not None)

    def distribute(
        self,
        *protocols: Any,
        retries: int | Sequence[int] = 0,
        resources: Mapping[str, float] | Sequence[Mapping[str, float] | None] | None = None,
        priorities: int | Sequence[int | None] | None = None,
        clients_indices: int | Sequence[int] = 0,
    ) -> Results:
        """Run the protocols, one after the other, over all tasks, and return the results.

        Parameters
        ----------
        *protocols : callable or list of callable
            Each output of one is a task of the next, at once.
        retries, resources, priorities, clients_indices
            As in `mlipcluster.plan.ProtocolOptions`.

        Returns
        -------
        Results
            Everything of this run, what was finished earlier included.

        Raises
        ------
        ProtocolError
            A protocol cannot be called or pickled, or does not take its tasks' keyword arguments.
        RunFolderError
            The output folder cannot be written or holds another run.
        CalculatorStartError
            A calculator cannot be started.
        """
        told = ProtocolOptions(retries, resources, priorities, clients_indices)
        slots: set[str] = set()
        for _ in self._run(protocols, told, slots):
            pass  # each is in the folder already
        lines = Ledger(self.folder.ledger).entries()
        return Results((line for line in lines if line["slot"] in slots), self.folder.root)

    def generate(
        self,
        *protocols: Any,
        retries: int | Sequence[int] = 0,
        resources: Mapping[str, float] | Sequence[Mapping[str, float] | None] | None = None,
        priorities: int | Sequence[int | None] | None = None,
        clients_indices: int | Sequence[int] = 0,
    ) -> Iterator[Output]:
        """As `distribute`, but give each final output as soon as it is saved; those finished earlier as well."""
        told = ProtocolOptions(retries, resources, priorities, clients_indices)
        return self._outputs(self._run(protocols, told, set()))

    @staticmethod
    def _outputs(run: Generator[Saved | Earlier, None, None]) -> Iterator[Output]:
        with contextlib.closing(run):
            for saved in run:
                try:
                    output = saved.output()
                except RecordError as error:
                    text = f"an output of an earlier run is left out: {error}. Delete its file to have it made again."
                    warnings.warn(text, stacklevel=2)
                else:
                    yield output

    def _run(
        self, protocols: Sequence[Any], told: ProtocolOptions, slots: set[str]
    ) -> Generator[Saved | Earlier, None, None]:
        keep = self.options.saving.filter_results
        planned = plan_protocols(protocols, told, keep if callable(keep) else None, self._workers.count)
        self._check_pinned(len(planned))
        self._workers.check_resources([protocol.step for protocol in planned])
        git = _repository(planned)
        _check_git(self.options.checks.sha1, git)
        self._check_first_task(planned)
        if self.options.saving.dry_run:
            self._rehearse(planned)
            return
        with contextlib.ExitStack() as stack:
            book = stack.enter_context(RunBook(self.folder, self.options.saving))
            book.slots = slots
            book.retry_failed |= not self.options.faults.ignore_errors
            stack.enter_context(_logging(self.folder, self.options.showing.logging_level))
            stack.enter_context(by_value(module for protocol in planned for module in protocol.modules))
            stack.push(self._end)
            seed = self._root_seed(book)
            book.begin(Told(planned, self._calculators, self._nstruct, seed, self.options.about, git, _version()))
            progress = stack.enter_context(Progress(self._title(planned), shown=self.options.showing.progress))
            facts = self._facts(planned, book, progress)
            work = Work(self._source, planned, self._calculators, facts, seed, self._pinned)
            progress.begin()
            distribution = Distribution(work, self.options, book, self._workers, progress)
            try:
                yield from distribution.saved()
            except KeyboardInterrupt:
                progress.say("Stopped. What is finished is saved; run the same again to go on.")
                raise
            self._tell(book, distribution, progress)

    def _end(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if not self._inside or error is not None:
            self._workers.close(abort=error is not None)

    def _root_seed(self, book: RunBook) -> int:
        known = book.root_seed()
        if self._seed is not None:
            return self._seed
        return new_root() if known is None else known

    def _facts(self, planned: Sequence[PlannedProtocol], book: RunBook, progress: Progress) -> CalculatorFacts:
        """Ask the calculators what they are, unless nothing has changed since they were asked."""
        used = self._calculators if any({"calc", "calculators"} & p.wanted for p in planned) else {}
        cache = self.folder.calculators
        asking = next((p for p in planned if {"calc", "calculators"} & p.wanted), planned[0])
        facts, there = None, (self._workers.interpreters, self.folder.workers, asking.step.client)
        if self._workers.here:
            facts = facts_here(used, cache)
        elif not self.folder.jobs.exists():  # those that a lost driver has left are found by whoever starts more
            environment = environment_here(*there)
            facts = None if environment is None else facts_here(used, cache, environment)
        if facts is None:
            self.folder.logs.mkdir(parents=True, exist_ok=True)
            job = Job.asking(used, self.options.compute.scratch_dir)
            introduction = self._workers.introduce(job, asking.step, self._source.known_length, progress.wait)
            _check_python(introduction)
            with book.together():
                book.meet(introduction)
            remember(introduction, used, cache)
            if not self._workers.here:
                remember_environment(introduction.environment["digest"], *there)
            facts = facts_from(introduction, used, cache)
        wanted = self.options.checks.environment
        if wanted is not None and not (wanted and facts.environment.startswith(wanted)):
            raise MismatchError(
                f"the workers' environment has the digest {facts.environment[:16]}…, not {wanted!r} as asked; "
                "install what the run is meant to have, or leave out environment=.",
                (f"environment: {wanted} -> {facts.environment}",),
            )
        return facts

    def _check_first_task(self, planned: Sequence[PlannedProtocol]) -> None:
        first = self._source.peek()
        if first is None:
            raise InputError("there are no tasks; give at least one structure, file name or dictionary.")
        if first.error is None:
            check_keywords(planned, first.kwargs)
        if not self._calculators and any("calc" in p.wishes.required for p in planned):
            raise InputError(
                "a protocol asks for calc, but the run has no calculator; give calculator='emt' or another."
            )

    def _check_pinned(self, protocols: int) -> None:
        for name in ("seeds", "output_ids"):
            count = len(getattr(self._pinned, name))
            if count not in (0, protocols):
                raise InputError(f"{name} has {count} entries for {protocols} protocols; give one for each.")

    def _rehearse(self, planned: Sequence[PlannedProtocol]) -> None:
        tasks = list(self._source)
        wrong = [task for task in tasks if task.error is not None]
        names = " → ".join(p.short_name for p in planned)
        lines = [f"dry run: {len(tasks)} tasks × {names}; nothing was started or written."]
        lines += [f"  cannot be run: {task.source}: {task.error}" for task in wrong]
        print("\n".join(lines))  # noqa: T201 - what a dry run is for

    def _title(self, planned: Sequence[PlannedProtocol]) -> str:
        return self.options.about.simulation_name or " → ".join(p.short_name for p in planned)

    def _tell(self, book: RunBook, distribution: Distribution, progress: Progress) -> None:
        for reason, count in book.again.items():
            text = f"{count} finished {'call was' if count == 1 else 'calls were'} made again: {reason}."
            log.info(text)
            progress.say(text)
        if self._source.duplicates:
            several = ", ".join(self._source.duplicates[:3])
            warnings.warn(
                f"{len(self._source.duplicates)} tasks were handed in more than once ({several}, …); "
                "each was run as a further repeat, with its own seed.",
                stacklevel=4,
            )
        if distribution.failed:
            progress.say(f"{distribution.failed} failed; see .failures of the results, or {self.folder.failures}")


def _calculators(
    one: Calculator | None, several: Mapping[str, Calculator] | None, where: Mapping[str, Any]
) -> dict[str, CalculatorSpec]:
    if one is not None and several is not None:
        raise InputError("calculator and calculators are both given; give one of them.")
    if several is not None:
        if not isinstance(several, Mapping) or not several or not all(isinstance(n, str) and n for n in several):
            raise InputError(
                'calculators: give a dictionary of names, e.g. {"mace": "mace-medium", "chgnet": "chgnet"}.'
            )
        return {name: resolve(calculator, **where) for name, calculator in several.items()}
    return {} if one is None else {"": resolve(one, **where)}


def _whole(name: str, value: Any, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least:
        raise InputError(f"{name}={value!r}: give a whole number, {least} or more.")
    return number


def _wholes(name: str, values: Any) -> tuple[int, ...]:
    try:
        given = () if values is None else tuple(values)
    except TypeError:
        raise InputError(f"{name}={values!r}: give a list with a whole number for each protocol.") from None
    return tuple(_whole(name, value, 0) for value in given)


def _repository(planned: Sequence[PlannedProtocol]) -> GitState | None:
    """State of the repository of the first protocol that has a file of the user's in one."""
    for protocol in planned:
        file = protocol.source.file
        if file and os.path.isfile(file) and not protocol.source.module.startswith("mlipcluster."):
            state = inspect(Path(file))
            if state is not None:
                return state
    return None


def _check_git(policy: str | None, git: GitState | None) -> None:
    check(policy, git)
    if policy is None and git is not None and git.dirty:
        warnings.warn(
            f"{git.root} has uncommitted changes; they are recorded with each output. Commit them, "
            'or say sha1="" to insist on a clean tree.',
            stacklevel=5,
        )


@contextlib.contextmanager
def _logging(folder: RunFolder, level: str) -> Iterator[None]:
    """The run's log file, for as long as the run goes on; no other logger is touched."""
    folder.logs.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder.logs / "driver.log", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    before = log.level
    try:
        log.addHandler(handler)
        log.setLevel(level)
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
        handler.close()


def _check_python(introduction: Introduction) -> None:
    there, here = introduction.environment["python"], platform.python_version()
    if there.split(".")[:2] != here.split(".")[:2]:
        raise MismatchError(
            f"the workers run Python {there}, this process {here}; functions cannot be sent between the two. Start the "
            "workers, or this process, with the other's Python.",
            (f"python: {here} -> {there}",),
        )


def _version() -> str:
    from importlib.metadata import version

    return version("mlipcluster")


def _signature() -> python_inspect.Signature:
    """The constructor's signature with every option spelled out, for ``help()`` and notebooks."""
    own = python_inspect.signature(MLIPCluster.__init__)
    parameters = [p for p in own.parameters.values() if p.name != "self" and p.kind is not p.VAR_KEYWORD]
    for group in GROUPS:
        for field in fields(group):
            default = field.default if field.default is not MISSING else python_inspect.Parameter.empty
            parameters.append(
                python_inspect.Parameter(
                    field.name, python_inspect.Parameter.KEYWORD_ONLY, default=default, annotation=field.type
                )
            )
    return own.replace(parameters=parameters)


MLIPCluster.__signature__ = _signature()  # type: ignore[attr-defined]
