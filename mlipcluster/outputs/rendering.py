"""Outputs as bytes: what is the same in every record of a run is written out once, and spliced into each file.

The record's text in a file is its canonical JSON (`mlipcluster.records.canonical`) with the digest first, so the digest
can be checked with nothing but SHA-256: of the text without ``"digest":"…",``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ase import Atoms

from mlipcluster.errors import InputError, RunFolderError
from mlipcluster.files import write_atomic
from mlipcluster.outputs.compression import find_compression
from mlipcluster.outputs.formats import find_format
from mlipcluster.outputs.frame import RECORD_KEY, Frame
from mlipcluster.records.canonical import canonical

Record = Mapping[str, Any]
_LONG = 512  # characters from which on a text is kept for the next record
_KEPT = 64  # so many of them
_NAME = re.compile(r"[A-Za-z0-9_+=,@-][A-Za-z0-9_+=,@.-]{0,199}")


class Renderer:
    """Writes the outputs of one run.

    Parameters
    ----------
    format : str
        A name of `mlipcluster.outputs.formats.FORMATS`.
    compression : str
        A name of `mlipcluster.outputs.compression.COMPRESSIONS`.
    constants : iterable
        Objects that appear as values of ``instance`` or ``metadata`` in many records and never change: dicts and lists
        are recognised by being the very same object, and written out once. (Long texts need not be named here.)
    durable : bool
        Flush each file to the disk itself, so that it outlives a power cut.
    """

    def __init__(
        self,
        format: str = "extxyz",  # noqa: A002 - the name that users know
        compression: str = "",
        *,
        constants: Iterable[object] = (),
        durable: bool = True,
    ) -> None:
        self.format = find_format(format)
        self.compression = find_compression(compression)
        self.durable = durable
        self._texts: dict[str, _Piece] = {}
        self._constants: dict[int, tuple[object, _Piece | None]] = {}
        for value in constants:
            self.constant(value)

    @property
    def suffix(self) -> str:
        """Suffix of the files, with its dots."""
        return f".{self.format.suffix}" + (f".{self.compression.suffix}" if self.compression.suffix else "")

    def constant(self, value: object) -> None:
        """Promise that *value* never changes from now on; it is kept alive and written out once."""
        self._constants.setdefault(id(value), (value, None))

    def write(self, folder: Path, atoms: Atoms | Frame, record: Record) -> Path:
        """Write ``<folder>/<output_name><suffix>`` and return its path; see `render`.

        Raises
        ------
        InputError
            The record's ``output_name`` is not a plain file name.
        RunFolderError
            The disk is full or the folder cannot be written; there is no half-written file then.
        """
        name = str(record["metadata"]["output_name"])
        if not _NAME.fullmatch(name):
            raise InputError(f"output name {name!r} is not a plain file name; use letters, digits, '-', '_' and '.'")
        data = self.render(atoms, record)
        try:
            return write_atomic(Path(folder) / (name + self.suffix), data, sync=self.durable)
        except OSError as error:
            raise RunFolderError(
                f"{folder} cannot be written: {error.strerror or error}; make room, or choose another output_path"
            ) from error

    def render(self, atoms: Atoms | Frame, record: Record) -> bytes:
        """The file's bytes.

        Parameters
        ----------
        atoms
            The structure; or its `Frame`, made by ``format.frame`` wherever there was time for it.
        record
            The record; it is left as it is. In the file it has besides: ``metadata.text_sha256``,
            ``metadata.checksums`` (of each entry, so that damage can be named), ``metadata.not_in_text`` (what this
            format cannot show), ``metadata.parent`` (name and digest of the record that the structure itself was
            read with) and ``digest``.
        """
        frame = atoms if isinstance(atoms, Frame) else self.format.frame(atoms)
        pieces = self._sealed(record, frame, parent_of(atoms))
        before, after = frame.before.encode("ascii"), frame.after.encode("ascii")
        body = "".join(pieces).encode("ascii")
        closing = self.format.closing.encode("ascii")
        return self.compression.compress(b"".join((before, self.format.opening.encode("ascii"), body, closing, after)))

    def _sealed(self, record: Record, frame: Frame, parent: Record | None) -> list[str]:
        """The record's text as it stands in the file, in pieces, the digest first."""
        metadata = dict(record["metadata"])
        for name in ("checksums", "not_in_text"):
            metadata.pop(name, None)
        metadata["text_sha256"] = text_sha256(frame)
        if frame.hidden:
            metadata["not_in_text"] = list(frame.hidden)
        if parent is not None:
            metadata["parent"] = parent
        parts = {name: value for name, value in record.items() if name != "digest"} | {"metadata": metadata}
        entries = {name: self._entries(value) for name, value in parts.items() if name in ("instance", "metadata")}
        entries["metadata"]["checksums"] = self._piece(checksums(parts, entries))
        raw: list[str] = ["{"]
        escaped: list[str] = []
        for number, name in enumerate(sorted(parts)):
            self._add(f'{"," if number else ""}"{name}":', entries.get(name) or self._piece(parts[name]), raw, escaped)
        raw.append("}")
        escaped.append("}")
        digest = hashlib.sha256("".join(raw).encode("ascii")).hexdigest()
        return [self.format.escape(f'{{"digest":"{digest}",'), *escaped]

    def _add(self, label: str, value: dict[str, _Piece] | _Piece, raw: list[str], escaped: list[str]) -> None:
        raw.append(label)
        escaped.append(self.format.escape(label))
        if isinstance(value, _Piece):
            raw.append(value.raw)
            escaped.append(value.escaped)
            return
        opening = "{"
        for name in sorted(value):
            self._add(f"{opening}{canonical(name)}:", value[name], raw, escaped)
            opening = ","
        raw.append("}" if value else "{}")
        escaped.append("}" if value else "{}")

    def _entries(self, part: Mapping[str, Any]) -> dict[str, _Piece]:
        return {name: self._piece(value) for name, value in part.items()}

    def _piece(self, value: Any) -> _Piece:
        if (known := self._constants.get(id(value))) is not None:
            piece = known[1]
            if piece is None:
                piece = _Piece.of(value, self.format.escape)
                self._constants[id(value)] = (value, piece)
            return piece
        if type(value) is not str or len(value) < _LONG:
            return _Piece.of(value, self.format.escape)
        piece = self._texts.get(value)
        if piece is None:
            if len(self._texts) >= _KEPT:
                self._texts.clear()
            piece = self._texts[value] = _Piece.of(value, self.format.escape)
        return piece


class _Piece:
    """Canonical text of one entry, as it is, as it stands in the file, and its checksum."""

    __slots__ = ("checksum", "escaped", "raw")

    def __init__(self, raw: str, escaped: str, checksum: str) -> None:
        self.raw = raw
        self.escaped = escaped
        self.checksum = checksum

    @classmethod
    def of(cls, value: Any, escape: Any) -> _Piece:
        raw = canonical(value)
        return cls(raw, escape(raw), checksum(raw))


def checksum(text: str) -> str:
    """The first 16 hexadecimal digits of SHA-256."""
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]


def checksums(parts: Record, pieces: Mapping[str, Mapping[str, _Piece]] | None = None) -> dict[str, str]:
    """Checksum of the canonical text of each entry of a record, by its name, and one of all these.

    Parameters
    ----------
    parts
        The record; ``digest`` and ``metadata.checksums`` themselves are left out.
    pieces
        Texts that are there already, for ``instance`` and ``metadata``.
    """
    found: dict[str, str] = {}
    for part, value in parts.items():
        if part in ("instance", "metadata") and isinstance(value, Mapping):
            known = (pieces or {}).get(part)
            for name in value:
                found[f"{part}.{name}"] = known[name].checksum if known else checksum(canonical(value[name]))
        elif part != "digest":
            found[part] = checksum(canonical(value))
    found.pop("metadata.checksums", None)
    return found | {"": checksum(canonical(found))}


def text_sha256(frame: Frame) -> str:
    """SHA-256 of a file's text without its record, as hexadecimal digits."""
    hasher = hashlib.sha256(frame.before.encode("ascii"))
    hasher.update(frame.after.encode("ascii"))
    return hasher.hexdigest()


def parent_of(atoms: Atoms | Frame) -> dict[str, str] | None:
    """Name and digest of the record that *atoms* brought along in ``info["mlipcluster"]``; None without one.

    A structure that ASE read from an output carries that output's whole record. Only this much of it is kept, or
    records would hold records without end.
    """
    record = atoms.info.get(RECORD_KEY) if isinstance(atoms, Atoms) else None
    if not isinstance(record, Mapping):
        return None
    metadata = record.get("metadata")
    name = metadata.get("output_name") if isinstance(metadata, Mapping) else record.get("output_name")
    return {"output_name": str(name or ""), "digest": str(record.get("digest") or "")}


def forget_record(atoms: Atoms) -> Atoms:
    """*atoms* with nothing but `parent_of` left of the record it was read with; itself when it has none."""
    if RECORD_KEY not in atoms.info:
        return atoms
    plain: Atoms = atoms.copy()  # type: ignore[no-untyped-call]
    plain.calc = atoms.calc
    parent = parent_of(atoms)
    if parent is None:
        del plain.info[RECORD_KEY]
    else:
        plain.info[RECORD_KEY] = parent
    return plain
