"""What an output file holds, and every way in which it differs from what was written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mlipcluster.errors import RecordError
from mlipcluster.outputs.compression import Compression, unpack
from mlipcluster.outputs.formats import recognise
from mlipcluster.outputs.frame import Format, Frame
from mlipcluster.outputs.rendering import text_sha256
from mlipcluster.records.packing import decode
from mlipcluster.records.record import SCHEMA, changes, seal

_HEAD = '{"digest":"'
_DIGITS = 8  # decimals that extended XYZ columns have


@dataclass(frozen=True)
class Contents:
    """An output file, taken apart.

    Attributes
    ----------
    raw : bytes
        The file.
    compression : Compression
    text : str
        The file, decompressed.
    format : Format
    frame : Frame
        Its text without the record.
    embedded : str
        The record as it stands in the file.
    record_text : str
        The record's JSON.
    """

    raw: bytes
    compression: Compression
    text: str
    format: Format
    frame: Frame
    embedded: str
    record_text: str

    @cached_property
    def record(self) -> dict[str, Any]:
        """The record, as it stands there.

        Raises
        ------
        RecordError
            It is not JSON.
        """
        try:
            record = json.loads(self.record_text)
        except (ValueError, RecursionError) as error:
            where = getattr(error, "pos", 0)
            near = self.record_text[max(0, where - 30) : where + 10]
            raise RecordError(f"the record is not readable: {error} (near {near!r}); restore the file") from error
        if not isinstance(record, dict):
            raise RecordError("the record is not readable: it is no JSON object; restore the file")
        return record

    def seen(self) -> Atoms:
        """The structure as ASE reads it (without the record, over which its reader takes a hundred times longer)."""
        return self.format.read(self.frame.before + self.frame.after)

    def record_problems(self) -> list[str]:
        """How the record differs from what was written."""
        text = self.record_text
        head = f'{_HEAD}{self.record.get("digest")}",'
        is_whole = self.format.escape(text) == self.embedded and text.startswith(head)
        if is_whole and _sha256(f"{{{text[len(head) :]}") == self.record["digest"]:
            return []
        return _changed_entries(self.record)

    def text_problems(self) -> list[str]:
        """Whether the structure's text differs from what was written."""
        expected = _metadata(self.record).get("text_sha256")
        return [] if text_sha256(self.frame) == expected else ["structure text changed after it was written"]

    def container_problems(self) -> list[str]:
        """Whether the compressed container differs from what was written."""
        if self.compression.is_ours(self.raw, self.text.encode("ascii")):
            return []
        return [f"{self.compression.suffix} container changed after it was written; its content is what was written"]


def take_apart(path: str | os.PathLike[str]) -> Contents:
    """Read an output file of any format and compression, told by its content.

    Raises
    ------
    RecordError
        There is no such file, or it is no output, or too damaged to say anything of it.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise RecordError(f"{path} is not readable: {error.strerror}; check its name") from error
    try:
        compression, content = unpack(raw)
        text = content.decode("ascii")
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} is not readable: byte {error.start} is not ASCII; restore the file") from error
    except RecordError as error:
        raise RecordError(f"{path} is not readable: {error}") from error
    found = recognise(text)
    parts = found.split(text)
    if parts is None:
        raise RecordError(
            f"{path} is not readable: it holds no whole record; restore it, or give an output of mlipcluster"
        )
    before, embedded, after = parts
    return Contents(raw, compression, text, found, Frame(before, after), embedded, found.unescape(embedded))


def differences(contents: Contents) -> list[str]:
    """Every way in which the file differs from what was written; empty when it does not."""
    try:
        found = contents.record_problems() or schema_problems(contents.record)
    except RecordError as error:
        return [f"not readable: {error}"]
    if not any("metadata.text_sha256" in line for line in found):
        found += contents.text_problems()
    if not found:
        found += result_problems(contents)
    return found + contents.container_problems()


def schema_problems(record: Mapping[str, Any]) -> list[str]:
    """Whether the record is of a layout that this version knows."""
    schema = record.get("schema")
    if type(schema) is int and schema <= SCHEMA:
        return []
    return [f"record has schema {schema!r}, and this mlipcluster knows up to {SCHEMA}; install a newer mlipcluster"]


def result_problems(contents: Contents) -> list[str]:
    """Whether the structure that can be seen is the one that the record packs."""
    result = _metadata(contents.record).get("result")
    if not isinstance(result, Mapping) or "atoms" not in result:
        return []
    try:
        exact = decode(result["atoms"])
    except RecordError as error:
        return [] if "trust=True" in str(error) else [f"result arrays are not readable: {error}"]
    try:
        seen = contents.seen()
    except Exception as error:  # noqa: BLE001 - whatever ASE's reader stumbles over
        return [f"structure text is not readable: {type(error).__name__}: {error}"]
    unlike = _unlike(exact, seen)
    return [f"result arrays do not match the text ({', '.join(unlike)})"] if unlike else []


def _unlike(exact: Atoms, seen: Atoms) -> list[str]:
    """Names of what differs by more than the text's decimals."""
    if len(exact) != len(seen) or not np.array_equal(exact.numbers, seen.numbers):
        return ["numbers"]
    pairs: dict[str, tuple[Any, Any]] = {
        "positions": (exact.positions, seen.positions),
        "cell": (exact.cell.array, seen.cell.array),
        "pbc": (exact.pbc, seen.pbc),
    }
    a = exact.calc.results if exact.calc is not None else {}
    b = seen.calc.results if seen.calc is not None else {}
    pairs |= {name: (a[name], b[name]) for name in ("energy", "forces") if name in a and name in b}
    if "stress" in a and "stress" in b:
        pairs["stress"] = _voigt(a["stress"]), _voigt(b["stress"])
    return [name for name, (x, y) in pairs.items() if not _is_close(np.asarray(x), np.asarray(y))]


def _voigt(stress: Any) -> np.ndarray[Any, Any]:
    """A stress of six or of 3 × 3 components as ASE's reader gives it: of the latter, the upper triangle."""
    array = np.asarray(stress)
    return array.ravel()[[0, 4, 8, 5, 2, 1]] if array.size == 9 else array


def _is_close(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> bool:
    if x.dtype.kind == "b":
        return bool(np.array_equal(x, y))
    return x.size == y.size and bool(np.allclose(x.ravel(), y.ravel(), rtol=1e-12, atol=10.0**-_DIGITS, equal_nan=True))


def _changed_entries(record: Mapping[str, Any]) -> list[str]:
    """Which entries of a record are not what they were when it was sealed."""
    names = changes(record)
    if names and seal(record)["digest"] == record.get("digest"):
        return ["record changed (digests)"]
    return [f"record changed ({name})" for name in names] or ["record changed (digest, or the way it is written)"]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _metadata(record: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = record.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}
