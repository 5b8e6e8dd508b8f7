"""The record that every output carries: its layout, its seal, and the way from older layouts to this one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, TypedDict, cast

from mlipcluster.errors import InputError, RecordError
from mlipcluster.records.canonical import canonical, digest

SCHEMA = 1


class TaskEntry(TypedDict):
    """What the user handed in for this output."""

    structure: Any  # packed Atoms, or None
    kwargs: Any  # packed keyword arguments
    source: str  # where the structure came from: "Cu.cif#0"


class Instance(TypedDict, total=False):
    """What the run was told: enough to make this one output again."""

    tasks: TaskEntry
    nstruct: int
    replicate: int  # which of the nstruct repetitions this is, from 0
    seed: int  # the run's root seed
    seeds: list[int]  # one a protocol
    output_ids: list[int]  # which output of each protocol led here, one a protocol
    protocols: list[str]  # "module:qualname"
    calculators: dict[str, Any]  # name: CalculatorSpec as JSON
    calculator: str  # the name of the one that was used, or ""
    sha1: str  # of the protocol's repository, or ""
    environment: str  # text of the lock file
    environment_digest: str
    project_name: str
    simulation_name: str
    author: str
    email: str
    license: str
    version: str


class Metadata(TypedDict, total=False):
    """What happened."""

    output_name: str
    step: int  # the last protocol that ran, from 0
    task_key: str
    identity: str
    parts: dict[str, str]  # mlipcluster.records.identity.Parts
    toml: str
    toml_format: str
    environment_manager: str
    environment: dict[str, Any]  # the Environment without lock and toml
    calculators: dict[str, Any]  # name: {provenance, environment, environment_digest}
    protocols: list[dict[str, Any]]  # ProtocolSource as JSON, with "pickle": packed bytes
    git: dict[str, Any] | None  # GitState as JSON
    machine: dict[str, Any]
    times: dict[str, Any]  # started (ISO 8601, UTC), seconds: one a protocol
    printed: str  # the end of what the protocols printed
    result: dict[str, Any]  # atoms: packed, with the calculator's results; digest
    text_sha256: str  # of the output file's text without the record
    not_in_text: list[str]  # what the file's format cannot show
    parent: dict[str, str]  # output_name and digest of the record that the structure was read with


class Record(TypedDict):
    """One JSON object: see docs/records.md."""

    schema: int
    digest: str
    digests: dict[str, str]  # of each entry: what `changes` names
    instance: Instance
    metadata: Metadata
    scores: dict[str, Any]


# What every record of this schema has, and of which type. What a user has come to rely on stands here.
REQUIRED: dict[str, dict[str, type | tuple[type, ...]]] = {
    "instance": {
        "tasks": dict,
        "replicate": int,
        "seed": int,
        "seeds": list,
        "output_ids": list,
        "protocols": list,
        "calculators": dict,
        "calculator": str,
        "sha1": str,
        "environment": str,
        "environment_digest": str,
    },
    "metadata": {
        "output_name": str,
        "step": int,
        "identity": str,
        "toml": str,
        "toml_format": str,
        "environment_manager": str,
        "environment": dict,
        "calculators": dict,
        "protocols": list,
        "machine": dict,
        "result": dict,
    },
    "scores": {},
}

# From schema n (the key) to n + 1. A migration gets a record whose digest was found right and returns a new one; it
# may add, rename and reshape, and must not drop what was measured.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


def build(instance: Instance, metadata: Metadata, scores: Mapping[str, Any]) -> Record:
    """A sealed record of the three parts."""
    return seal({"schema": SCHEMA, "instance": instance, "metadata": metadata, "scores": dict(scores)})


def seal(record: Mapping[str, Any]) -> Record:
    """A copy of *record* with the digests of what it now holds.

    ``digest`` is the SHA-256 of the canonical JSON of everything else. ``digests`` has the first eight digits for
    each entry of ``instance``, ``metadata`` and ``scores``, to name what was changed.

    Raises
    ------
    InputError
        The record is not JSON.
    """
    content = {key: value for key, value in record.items() if key not in {"digest", "digests", "schema"}}
    body = {"schema": record.get("schema", SCHEMA), "digests": _entry_digests(content), **content}
    return cast("Record", {"schema": body["schema"], "digest": digest(body), **body})


def check(record: Any) -> Record:
    """Hold *record* against its seal and this version's layout; return it, brought to this schema.

    Raises
    ------
    RecordError
        It was changed or damaged (the message names the entries), its schema is newer than this version knows, or
        a part is missing.
    """
    try:
        return _check(record)
    except RecordError:
        raise
    except (InputError, RecursionError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(f"not a record ({error}); restore the file from a copy") from error


def changes(record: Mapping[str, Any]) -> list[str]:
    """Names of the entries that are not what they were when *record* was sealed, e.g. ``metadata.times``."""
    before = record.get("digests")
    before = before if isinstance(before, Mapping) else {}
    content = {key: value for key, value in record.items() if key not in {"digest", "digests", "schema"}}
    now = _entry_digests(content)
    return sorted(str(name) for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def to_text(record: Mapping[str, Any], indent: int | None = None) -> str:
    """The record as JSON text, ASCII only; NaN and infinities as Python's :mod:`json` writes and reads them.

    Raises
    ------
    InputError
        It is not JSON.
    """
    try:
        return json.dumps(record, indent=indent, ensure_ascii=True, allow_nan=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"a record cannot be written: {error}; pack its values with packing.encode first") from error


def from_text(text: str | bytes) -> dict[str, Any]:
    """Read a record's JSON text; :func:`check` it next.

    Raises
    ------
    RecordError
        It is no JSON object.
    """
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"a record cannot be read: {error}; restore the file from a copy") from error
    if not isinstance(record, dict):
        raise RecordError(f"a record is a JSON object, not a {type(record).__name__}; restore the file from a copy")
    return record


def migrate(record: Mapping[str, Any]) -> Record:
    """Bring a record of an older schema to this one, one step after the other.

    Raises
    ------
    RecordError
        There is no way from its schema.
    """
    brought = dict(record)
    while brought["schema"] != SCHEMA:
        step = MIGRATIONS.get(brought["schema"])
        if step is None:
            raise RecordError(
                f"nothing reads records of schema {brought['schema']}; take the mlipcluster that wrote it"
            )
        brought = {**step(brought), "schema": brought["schema"] + 1}
    return seal(brought)


def _check(record: Any) -> Record:
    if not isinstance(record, Mapping):
        raise RecordError(f"a record is a JSON object, not a {type(record).__name__}; restore the file from a copy")
    schema = record.get("schema")
    if type(schema) is not int:
        raise RecordError("a record without a schema number; restore the file from a copy")
    if schema > SCHEMA:
        raise RecordError(
            f"the record has schema {schema}, and this mlipcluster knows up to {SCHEMA}; install a newer mlipcluster"
        )
    _check_seal(record)
    if schema != SCHEMA:
        record = migrate(record)
    check_layout(record)
    return cast("Record", record)


def _check_seal(record: Mapping[str, Any]) -> None:
    written = record.get("digest")
    if not isinstance(written, str):
        raise RecordError("a record without a digest was never sealed; restore the file from a copy")
    if digest({key: value for key, value in record.items() if key != "digest"}) != written:
        named = changes(record)
        what = ", ".join(named[:10]) + (f" and {len(named) - 10} more" if len(named) > 10 else "")
        raise RecordError(
            f"the record was changed after it was written ({what or 'its digests'}); restore the file from a copy"
        )


def check_layout(record: Mapping[str, Any]) -> None:
    """See that no part of this version's layout is missing, whatever the seal says; `check` does so too.

    Raises
    ------
    RecordError
        A part is missing or has another type.
    """
    for part, entries in REQUIRED.items():
        found = record.get(part)
        if not isinstance(found, Mapping):
            raise RecordError(f"the record has no {part!r}; restore the file from a copy")
        for name, kind in entries.items():
            if not isinstance(found.get(name), kind):
                raise _missing(f"{part}.{name}")
    _check_entries(record)


def _check_entries(record: Mapping[str, Any]) -> None:
    for name in ("structure", "kwargs"):
        if name not in record["instance"]["tasks"]:
            raise _missing(f"instance.tasks.{name}")
    for number, protocol in enumerate(record["metadata"]["protocols"]):
        if not isinstance(protocol, Mapping):
            raise _missing(f"metadata.protocols[{number}]")
        for name in ("module", "name", "text", "digest"):
            if not isinstance(protocol.get(name), str):
                raise _missing(f"metadata.protocols[{number}].{name}")


def _missing(name: str) -> RecordError:
    return RecordError(f"the record's '{name}' is missing or damaged; restore the file from a copy")


def _entry_digests(content: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for part, entries in content.items():
        if isinstance(entries, Mapping):
            for name, value in entries.items():
                found[f"{part}.{name}"] = entry_digest(canonical(value))
        else:
            found[str(part)] = entry_digest(canonical(entries))
    return found


def entry_digest(text: str) -> str:
    """What ``digests`` has for an entry of that canonical text: the first eight digits of its SHA-256."""
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:8]
