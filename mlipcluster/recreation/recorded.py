"""What a record says of environments and code: enough to build the ones and check out the other."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlipcluster.environments.environment import Environment
from mlipcluster.environments.measure_script import without_credentials
from mlipcluster.errors import RecordError

SCHEMA = 1  # as in mlipcluster.records.record
_SHA1 = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REMOTE = re.compile(r"(?:https?|ssh|git|git\+ssh|file)://[^\s-]\S*|(?:[\w.+]+@)?[\w][\w.-]*:(?!:)\S+|/\S.*")


@dataclass(frozen=True)
class Recorded:
    """The part of a record that is needed to build its environments again.

    Attributes
    ----------
    environment : Environment
        Of the run's workers.
    calculators : mapping of str to Environment
        Of each calculator that took part.
    name : str
        Of the output.
    sha1, remote : str
        Commit of the protocols' repository and the address of its origin; empty where it has none.
    dirty : bool
        Whether there were uncommitted changes.
    diff : str
        Those changes.
    warnings : tuple of str
        What is wrong with the record without being in the way.
    """

    environment: Environment
    calculators: Mapping[str, Environment] = field(default_factory=dict)
    name: str = ""
    sha1: str = ""
    remote: str = ""
    dirty: bool = False
    diff: str = ""
    warnings: tuple[str, ...] = ()


def recorded(found: Mapping[str, Any]) -> Recorded:
    """Read a record, or what an ``environment.json`` holds.

    Raises
    ------
    RecordError
        It is of a newer schema, or lacks the environment or its lock file.
    """
    try:
        if "packages" in found:
            return Recorded(_whole(found, "the file", []))
        return _from_record(found)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"the record is damaged ({type(error).__name__}: {error}); restore the file") from error


def _from_record(record: Mapping[str, Any]) -> Recorded:
    _check_schema(record.get("schema"))
    warnings = _seal(record)
    instance, metadata = _part(record, "instance"), _part(record, "metadata")
    packed = {
        **_part(metadata, "environment"),
        "lock": instance.get("environment", ""),
        "toml": metadata.get("toml", ""),
        "toml_format": metadata.get("toml_format", ""),
    }
    packed.setdefault("manager", metadata.get("environment_manager", ""))
    git = metadata.get("git")
    return Recorded(
        _whole(packed, "the run", warnings),
        _calculators(metadata.get("calculators"), warnings),
        name=_text(metadata.get("output_name")),
        warnings=tuple(warnings),
        **_code(git if isinstance(git, Mapping) else {}, _text(instance.get("sha1"))),
    )


def _check_schema(schema: object) -> None:
    if type(schema) is not int:
        raise RecordError("the record has no schema number; restore the file from a copy")
    if schema > SCHEMA:
        raise RecordError(
            f"the record has schema {schema!s:.20}, and this mlipcluster knows up to {SCHEMA}; take a newer mlipcluster"
        )


def _seal(record: Mapping[str, Any]) -> list[str]:
    """Whether the record is as it was sealed; the text is that of mlipcluster.records.canonical."""
    content = {key: value for key, value in record.items() if key != "digest"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    if hashlib.sha256(text.encode("ascii")).hexdigest() == record.get("digest"):
        return []
    return ["the record was changed after it was written: look at what it says before you build from it"]


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = record.get(name)
    if not isinstance(part, Mapping):
        raise RecordError(f"the record holds no {name!r}; take another output of the run, or restore the file")
    return part


def _whole(packed: Mapping[str, Any], owner: str, warnings: list[str]) -> Environment:
    """An environment that can be built again."""
    environment = Environment.from_json(packed)
    if not environment.files():
        raise RecordError(
            f"the record holds no lock file of {owner}'s environment; take another output of the same run, or install "
            "by hand what 'mlipcluster show FILE --json' lists under metadata.environment"
        )
    for name, text in environment.files().items():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RecordError(
                f"{name} of {owner}'s environment is damaged ({error.reason}); restore the file"
            ) from None
    digest = packed.get("digest")
    if digest and digest != environment.digest:
        warnings.append(f"the packages of {owner}'s environment do not have the digest that is recorded for them")
    return environment


def _calculators(packed: object, warnings: list[str]) -> dict[str, Environment]:
    if not isinstance(packed, Mapping):
        return {}
    found = {}
    for name, said in packed.items():
        try:
            found[str(name)] = _whole(_part(said, "environment"), f"calculator {name!r:.80}", warnings)
        except (RecordError, AttributeError) as error:
            warnings.append(f"calculator {name!r:.80}: {error}")
    return found


def _code(git: Mapping[str, Any], sha1: str) -> dict[str, Any]:
    sha1 = _text(git.get("sha1")) or sha1
    return {
        "sha1": sha1 if _SHA1.fullmatch(sha1) else "",
        "remote": without_credentials(_text(git.get("remote"))),
        "dirty": git.get("dirty") is True,
        "diff": _text(git.get("diff")).encode("utf-8", "backslashreplace").decode("utf-8"),
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def can_be_cloned(remote: str) -> bool:
    """Whether git takes a remote for an address, not for an option or the name of a program to run."""
    return bool(_REMOTE.fullmatch(remote))
