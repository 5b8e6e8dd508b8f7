"""The run folder as the driver keeps it: what is finished already, and what is written when something finishes."""

from __future__ import annotations

import contextlib
import json
import pickle
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ase import Atoms

from mlipcluster.calls import CallResult, Introduction, Product
from mlipcluster.environments.environment import Environment, difference
from mlipcluster.errors import MLIPClusterError, RunFolderError
from mlipcluster.facts import remember_late
from mlipcluster.files import RunFolder, remove_parts, write_atomic
from mlipcluster.options import Saving
from mlipcluster.outputs.entries import PASSED_ON, Entry, files_of, missing_files, newest_by_slot, orphans
from mlipcluster.outputs.failure import write_failure
from mlipcluster.outputs.ledger import Ledger
from mlipcluster.outputs.output import Output, read_output
from mlipcluster.outputs.rendering import Renderer
from mlipcluster.recorder import Live, Recorder, Told, output_name, utc
from mlipcluster.records.identity import Parts, result_digest
from mlipcluster.records.packing import decode, encode
from mlipcluster.records.record import seal

RUN_SCHEMA = 1


@dataclass(frozen=True)
class Found:
    """What the folder knows of a call.

    Attributes
    ----------
    status : str
        ``"output"``, ``"empty"``, ``"failed"``, or ``"children"`` for a call whose outputs went to the next protocol.
    result : CallResult, optional
        Outputs and updates, for ``"children"``.
    outputs : tuple of Earlier
        Final outputs that have a file.
    """

    status: str
    result: CallResult | None = None
    outputs: tuple[Earlier, ...] = ()


@dataclass(frozen=True)
class Earlier:
    """An output that the run folder held before this run."""

    path: Path

    def output(self) -> Output:
        """Read it."""
        return read_output(self.path)


@dataclass(frozen=True)
class Saved:
    """An output in the run folder; its structure is unpacked when somebody asks for it."""

    name: str
    packed: Mapping[str, Any] = field(repr=False)
    scores: Mapping[str, Any] = field(repr=False)
    record: Mapping[str, Any] = field(repr=False)
    path: Path | None = None

    def output(self) -> Output:
        """The output itself."""
        return Output(self.name, decode(self.packed, trust=True), self.scores, self.record, self.path)


@dataclass
class _Known:
    """A call in the ledger: its identity, and the files of those of its outputs that are whole.

    Unless it is final, its outputs went to the next protocol: those are in the other file.
    """

    parts: Parts
    status: str
    count: int
    final: bool
    have: dict[int, tuple[str, ...]] = field(default_factory=dict)


class RunBook:
    """Reads and writes one run folder; the only one who does while it is open.

    Files come first and their ledger line after them, so a line never promises what is not there; whatever dies in
    between leaves a file that the rerun writes again under the same name.
    """

    def __init__(self, folder: RunFolder, saving: Saving) -> None:
        self.folder = folder
        self.saving = saving
        self.again: Counter[str] = Counter()
        self.slots: set[str] = set()
        self.retry_failed = saving.retry_failed
        self._ledger = Ledger(folder.ledger)
        self._intermediate = Ledger(folder.intermediate)
        self._begun = time.time()
        self._known: dict[str, _Known] = {}
        self._children: dict[str, int] = {}
        # Not flushed to the disk one by one: the death of any process harms no file, and after a power cut a damaged
        # one is told by its digest.
        self._renderers = [Renderer(form, saving.compression, durable=False) for form in saving.output_types]
        self._recorder: Recorder | None = None
        self._lines: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
        self._count = 0
        self._strays: dict[str, Path] = {}
        self._protocol_names: tuple[str, ...] = ()

    def __enter__(self) -> RunBook:
        try:
            self.folder.root.mkdir(parents=True, exist_ok=True)
            self._ledger.open()
            self._intermediate.open()
        except RunFolderError:
            self.__exit__()
            raise
        except OSError as error:
            text = f"output_path {self.folder.root} cannot be written: {error.strerror}; choose another folder."
            raise RunFolderError(text) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._ledger.close()
        self._intermediate.close()

    @property
    def recorder(self) -> Recorder:
        """Makes this run's records."""
        assert self._recorder is not None, "begin() comes first"
        return self._recorder

    def root_seed(self) -> int | None:
        """Root seed of the run that the folder holds."""
        told = self._told()
        return None if told is None else int(told["seed"])

    def begin(self, told: Told) -> None:
        """Hold the folder's run against this one, or make it this one's; then read what is finished.

        Raises
        ------
        RunFolderError
            The folder holds another run.
        """
        now = _summary(told)
        before = self._told()
        if before is None or not self._holds_calls():
            write_atomic(self.folder.run_file, json.dumps(now, indent=1) + "\n")
        else:
            self._compare(before, now)
        self._recorder = Recorder(told)
        self._protocol_names = tuple(p.short_name for p in told.protocols)
        for protocol in told.protocols:
            self._keep_source(asdict(protocol.source), protocol.digest)
        self._read()

    def find(self, live: Live) -> Found | None:
        """What is known of a call as it would be made now; None if it has to be made."""
        self.slots.add(live.slot)
        known = self._known.get(live.slot)
        if known is not None and known.final:
            changed = live.parts.first_difference(known.parts, self.saving.accept_changes)
            if changed:
                self.again[self._reason(changed, live, known.parts)] += 1
            elif known.status == "failed" and self.retry_failed:
                self.again["it failed before"] += 1
            elif known.status in ("failed", "empty") or len(known.have) >= known.count:
                return Found(known.status, outputs=self._earlier(known.have))
            else:
                self.again["files of its outputs are not there"] += 1
            return None
        return self._find_children(live, known)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Append the lines of all that is saved inside at once, also when something goes wrong on the way."""
        try:
            yield
        finally:
            lines, self._lines = self._lines, ([], [])
            # Whoever dies in between has the call made again; the other way round, the ledger would lack its lines.
            self._ledger.append(lines[0])
            self._intermediate.append(lines[1])

    def save_outputs(self, live: Live, result: CallResult, only: int | None = None) -> list[Saved | Earlier]:
        """Write a call's final outputs (or *only* one of them), or that it gave none; those that are there stay."""
        return self._save(live, result, final=True, only=only)

    def save_children(self, live: Live, result: CallResult) -> None:
        """Keep a call's outputs for the protocol that works on them next."""
        self._lines[1].append(self._child_entry(live, result))
        if (live.slot in self._known or live.slot in self._children) and not self.saving.save_all:
            # It failed before, or gave something else: what the ledger says of it and its children no longer holds.
            entry = self._entry(live, result, PASSED_ON, output_name(live, "", 0, 1), final=False)
            entry["passed_on"] = [product.index for product in result.products]
            self._lines[0].append(entry)
        if self.saving.save_all:
            self._save(live, result, final=False)

    def save_failure(self, live: Live, result: CallResult, attempts: int) -> None:
        """Write a failure: its file, then its line."""
        failure = result.failure
        assert failure is not None
        name = output_name(live, formula_of(live), 0, 1)
        record = self.recorder.record(live, result, None, (name, live.call.task.lineage))
        error = {"type": failure.type_name, "message": failure.message}
        payload = {
            "error": {**error, "traceback": failure.traceback, "attempts": attempts},
            "printed": result.printed,
            "source": live.task.source,
            "input": {"structure": _packed(structure_of(live)), "kwargs": _packed(live.call.kwargs)},
            "record": record,
        }
        path = write_failure(self.folder.failures, name, payload)
        file = path.relative_to(self.folder.root).as_posix()
        entry = self._entry(live, result, "failed", name)
        entry["error"] = {**error, "file": file, "attempts": attempts}
        self._lines[0].append(entry)

    def meet(self, introduction: Introduction) -> None:
        """Keep what a worker's process says of itself, and the environments it names."""
        if not self.recorder.meet(introduction):
            return
        self._lines[1].append({"status": "introduction", **asdict(introduction)})
        remember_late(introduction, self.folder.calculators, self._begun)
        for packed in [introduction.environment, *(c["environment"] for c in introduction.calculators.values())]:
            self._keep_environment(Environment.from_json(packed))

    def _save(self, live: Live, result: CallResult, *, final: bool, only: int | None = None) -> list[Saved | Earlier]:
        known = self._known.get(live.slot)
        have = known.have if known and known.parts == live.parts else {}
        count = len(result.products)
        outputs: list[Saved | Earlier] = []
        entries = []
        for product in result.products:
            index = product.index
            if index in have or only not in (None, index):
                outputs += self._earlier({index: have.get(index, ())})
                continue
            name = output_name(live, product.formula, index, count)
            record: dict[str, Any] = {}
            if self._renderers or self.saving.simulation_records_in_scorefile:
                record = self.recorder.record(live, result, product, (name, (*live.call.task.lineage, index)))
            paths = self._write(product, record)
            entry = self._entry(live, result, "output", name, output=[index, count], final=final)
            if paths:
                sizes = {path.relative_to(self.folder.root).as_posix(): path.stat().st_size for path in paths}
                (entry["file"], entry["bytes"]), *more = sizes.items()
                if more:
                    entry["more_files"] = dict(more)
            entry["scores"] = product.scores
            entry["result_digest"] = product.digest
            if self.saving.simulation_records_in_scorefile:
                entry["record"] = seal(record)
            entries.append(entry)
            outputs.append(Saved(name, product.packed, product.scores, record, paths[0] if paths else None))
        if not count and final:
            entries.append(self._entry(live, result, "empty", output_name(live, formula_of(live), 0, 1)))
        self._lines[0].extend(entries)
        return outputs

    def _earlier(self, have: Mapping[int, tuple[str, ...]]) -> tuple[Earlier, ...]:
        return tuple(Earlier(self.folder.root / files[0]) for _, files in sorted(have.items()) if files)

    def _write(self, product: Product, record: dict[str, Any]) -> list[Path]:
        paths = []
        stray = self._strays.get(record["metadata"]["output_name"]) if self._renderers else None
        folder = self.folder.output_folder(self._count) if stray is None else stray.parent
        constants, self.recorder.constants = self.recorder.constants, []
        for renderer in self._renderers:
            for constant in constants:
                renderer.constant(constant)
            frame = product.frames[renderer.format.suffix]
            paths.append(renderer.write(folder, frame, record))
        self._count += 1
        return paths

    def _entry(
        self, live: Live, result: CallResult, status: str, name: str, *, output: Any = None, final: bool = True
    ) -> dict[str, Any]:
        trail = live.trail.then(result)
        return {
            "status": status,
            "name": name,
            "identity": live.parts.identity(),
            "slot": live.slot,
            "step": live.call.task.step,
            "final": final,
            "output": output,
            "parts": live.parts.to_json(),
            "file": None,
            "source": live.task.source,
            "task": live.task.key,
            "replicate": live.task.replicate,
            "calculator": live.task.calculator,
            "protocols": list(self._protocol_names[: live.call.task.step + 1]),
            "seeds": list(trail.seeds),
            "scores": {},
            "seconds": sum(trail.seconds),
            "finished": utc(result.started + result.seconds),
            "environment_digest": self.recorder.environment_digest(trail),
        }

    def _child_entry(self, live: Live, result: CallResult) -> dict[str, Any]:
        return {
            "status": "children",
            "slot": live.slot,
            "parts": live.parts.to_json(),
            "seed": result.seed,
            "started": result.started,
            "seconds": result.seconds,
            "introduction": result.introduction,
            "updates": encode(result.updates),
            "products": [[product.index, product.packed] for product in result.products],
        }

    def _find_children(self, live: Live, known: _Known | None) -> Found | None:
        position = self._children.get(live.slot)
        if position is None:
            return None
        entry = self._intermediate.read(position)
        parts = Parts.from_json(entry["parts"])
        changed = live.parts.first_difference(parts, self.saving.accept_changes)
        if changed:
            self.again[self._reason(changed, live, parts)] += 1
            return None
        saved = known.have.keys() if known is not None and known.parts == parts else ()
        if self.saving.save_all and any(index not in saved for index, _ in entry["products"]):
            self.again["files of its outputs are not there"] += 1
            return None
        try:
            return Found("children", _result_from(entry))
        except MLIPClusterError:  # it holds pickles, which are never loaded from files: the call is made once more
            return None

    def _read(self) -> None:
        names = ("parts", "final", "file", "bytes", "more_files")
        calls = newest_by_slot(self._ledger.entries(), names=names)
        lines = [entry for entries in calls.values() for entry in entries]
        remove_parts(self.folder.root)
        gone = {id(entry) for entry in missing_files(lines, self.folder.root, sizes=True)}
        whole = {id(entry): entry for entry in lines if id(entry) not in gone and self._has_all_formats(entry)}
        # The others are written again in the same place: those that were cut, and those of a driver that died before
        # it wrote their line.
        self._strays = orphans(whole.values(), self.folder.root, self.folder.outputs.name)
        for slot, entries in calls.items():
            first = entries[0]
            output = first.get("output") or (0, 0)
            have = {e["output"][0]: tuple(files_of(e)) for e in entries if e.get("output") and id(e) in whole}
            self._known[slot] = _Known(
                Parts.from_json(first["parts"]), first["status"], output[1], first["final"], have
            )
            self._count += len(have)
        for position, entry in self._intermediate.positions():
            if entry["status"] == "children":
                self._children[entry["slot"]] = position
            elif entry["status"] == "introduction":
                known = {k: entry[k] for k in ("name", "machine", "environment", "calculators")}
                self.recorder.meet(Introduction(**known))

    def _has_all_formats(self, entry: Entry) -> bool:
        """Whether an output has a file of each wanted format, compressed or not."""
        names = [name.rpartition("/")[2].partition(".")[2].partition(".")[0] for name in files_of(entry)]
        return all(renderer.format.suffix in names for renderer in self._renderers)

    def _holds_calls(self) -> bool:
        """Whether anything came of the run that the folder holds; otherwise another may have it."""
        return any(True for _ in self._ledger.entries()) or any(
            entry["status"] == "children" for _, entry in self._intermediate.positions()
        )

    def _told(self) -> dict[str, Any] | None:
        try:
            told = json.loads(self.folder.run_file.read_text())
            if not isinstance(told, dict) or not {"schema", "seed"} <= told.keys():
                raise ValueError("it does not say what the run was told")
        except FileNotFoundError:
            return None
        except ValueError as error:
            text = f"{self.folder.run_file} is damaged: {error}. Choose another output_path, or mend it."
            raise RunFolderError(text) from error
        if told["schema"] > RUN_SCHEMA:
            raise RunFolderError(
                f"{self.folder.run_file} was written by a newer mlipcluster; use that, or another folder."
            )
        return told

    def _compare(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        if not self.saving.resume:
            raise RunFolderError(
                f"{self.folder.root} already holds a run and resume=False; choose another output_path, or resume it."
            )
        lines = [
            f"{key}: there {_short(before.get(key))}, here {_short(now[key])}"
            for key in ("protocols", "calculators", "seed")
            if before.get(key) != now[key]
        ]
        if lines:
            raise RunFolderError(
                f"{self.folder.root} holds another run ({'; '.join(lines)}). Choose another output_path for this one."
            )

    def _reason(self, part: str, live: Live, before: Parts) -> str:
        if part == "protocol":
            return self._protocol_change(live.call.task.protocol, before.protocol, live.parts.protocol)
        if part == "environment":
            return f"the environment changed{self._environment_change(before.environment, live.parts.environment)}"
        if part == "calculator":
            return "the calculator, its weights or its environment changed"
        if part in ("structure", "parameters"):
            return "an earlier protocol gave something else"
        return "the seed changed"

    def _protocol_change(self, name: str, before: str, now: str) -> str:
        old, new = (_load(self._source_file(name, digest)) for digest in (before, now))
        if old is None or new is None or old["text"] != new["text"]:
            return f"protocol {name!r} changed"
        was, here = old["dependencies"], new["dependencies"]
        changed = sorted(key for key in {*was, *here} if was.get(key) != here.get(key))
        return f"protocol {name!r} changed ({', '.join(changed) or 'its filter'})"

    def _environment_change(self, before: str, now: str) -> str:
        old, new = (_load(self.folder.environments / digest / "environment.json") for digest in (before, now))
        if old is None or new is None:
            return ""
        lines = difference(Environment.from_json(old), Environment.from_json(new))
        return f" ({'; '.join(lines[:3])}{'; …' if len(lines) > 3 else ''})"

    def _source_file(self, name: str, digest: str) -> Path:
        return self.folder.root / "protocols" / f"{name}-{digest[:16]}.json"

    def _keep_source(self, source: dict[str, Any], digest: str) -> None:
        path = self._source_file(source["name"].rpartition(".")[2], digest)
        if not path.exists():
            write_atomic(path, json.dumps(source, indent=1) + "\n")

    def _keep_environment(self, environment: Environment) -> None:
        folder = self.folder.environments / environment.digest
        if (folder / "environment.json").exists():
            return
        for name, text in environment.files().items():
            write_atomic(folder / name, text)
        write_atomic(folder / "environment.json", json.dumps(environment.to_json(), indent=1) + "\n")


def _summary(told: Told) -> dict[str, Any]:
    summary = {
        "schema": RUN_SCHEMA,
        "protocols": [p.name for p in told.protocols],
        "calculators": {name: spec.identity() for name, spec in told.calculators.items()},
        "seed": told.seed,
        "nstruct": told.nstruct,
        **asdict(told.about),
        "version": told.version,
        "command": sys.argv,
    }
    return json.loads(json.dumps(summary))  # type: ignore[no-any-return]


def _result_from(entry: Mapping[str, Any]) -> CallResult:
    products = tuple(_revived(index, packed) for index, packed in entry["products"])
    return CallResult(
        entry["seed"], entry["started"], entry["seconds"], entry["introduction"], products, decode(entry["updates"])
    )


def _revived(index: int, packed: dict[str, Any]) -> Product:
    atoms = decode(packed)
    formula = atoms.get_chemical_formula()
    return Product(formula, index, packed, result_digest(atoms), {}, pickle.dumps(atoms), natoms=len(atoms))


def formula_of(live: Live) -> str:
    """Formula of the structure that a call was given."""
    atoms = structure_of(live)
    return "" if atoms is None else str(atoms.get_chemical_formula())


def structure_of(live: Live) -> Atoms | None:
    """The structure that a call was given."""
    return pickle.loads(live.call.structure) if live.call.structure else None  # noqa: S301 - pickled by this run


def _packed(value: Any) -> Any:
    try:
        return encode(value)
    except MLIPClusterError as error:
        return f"could not be packed: {error}"


def _load(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())  # type: ignore[no-any-return]
    except (OSError, ValueError):
        return None


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) < 200 else f"{text[:200]}…"
