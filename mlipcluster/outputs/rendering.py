"""Outputs as bytes: what is the same in every record of a run is written out once, and spliced into each file.

The record's text in a file is its canonical JSON (`mlipcluster.records.canonical`) with the digest first, so the digest
can be checked with nothing but SHA-256: of the text without ``"digest":"…",``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ase import Atoms

from mlipcluster.errors import InputError, RunFolderError
from mlipcluster.files import write_atomic
from mlipcluster.outputs.compression import find_compression
from mlipcluster.outputs.formats import find_format
from mlipcluster.outputs.frame import Frame
from mlipcluster.outputs.parent import parent_of
from mlipcluster.records.canonical import canonical
from mlipcluster.records.record import entry_digest

Record = Mapping[str, Any]
_KEPT = 64  # texts, for the next record
_KEPT_LABELS = 1000
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
        Flush each file to the disk itself, so that it outlives a power cut too. It costs more than all the rest
        (milliseconds on a local disk); without it, `mlipcluster.outputs.entries.missing_files` finds what a power cut
        took.
    """

    def __init__(
        self,
        format: str = "extxyz",  # noqa: A002 - the name that users know
        compression: str = "",
        *,
        constants: Iterable[object] = (),
        durable: bool = False,
    ) -> None:
        self.format = find_format(format)
        self.compression = find_compression(compression)
        self.durable = durable
        self._texts: dict[str, _Piece] = {}
        self._labels: dict[str, tuple[str, str]] = {}
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
            The record; it is left as it is. In the file it is sealed (`mlipcluster.records.record.seal`) and has
            besides: ``metadata.text_sha256``; ``metadata.not_in_text``, what this format cannot show;
            ``metadata.parent``, name and digest of the record that the structure itself was read with.
        """
        frame = atoms if isinstance(atoms, Frame) else self.format.frame(atoms)
        pieces = self._sealed(record, frame, parent_of(atoms))
        before, after = frame.before.encode("ascii"), frame.after.encode("ascii")
        body = "".join(pieces).encode("ascii")
        closing = self.format.closing.encode("ascii")
        return self.compression.compress(b"".join((before, self.format.opening.encode("ascii"), body, closing, after)))

    def _sealed(self, record: Record, frame: Frame, parent: Record | None) -> list[str]:
        """The sealed record's text as it stands in the file, in pieces, the digest first."""
        metadata = dict(record["metadata"])
        metadata.pop("not_in_text", None)
        metadata["text_sha256"] = text_sha256(frame)
        if frame.hidden:
            metadata["not_in_text"] = list(frame.hidden)
        if parent is not None:
            metadata["parent"] = parent
        content = {**record, "metadata": metadata}
        pieces: dict[str, _Piece | dict[str, _Piece]] = {
            part: self._entries(value) if isinstance(value, Mapping) else self._piece(value)
            for part, value in content.items()
            if part not in ("digest", "digests")
        }
        pieces["digests"] = self._piece(_digests(pieces))
        raw: list[str] = []
        escaped: list[str] = []
        self._add(pieces, raw, escaped)
        digest = hashlib.sha256("".join(raw).encode("ascii")).hexdigest()
        return [self.format.escape(f'{{"digest":"{digest}",'), escaped[0][1:], *escaped[1:]]

    def _add(self, pieces: Mapping[str, Any], raw: list[str], escaped: list[str]) -> None:
        """Append the text of an object whose values are pieces or such objects, sorted by name."""
        opening = "{"
        for name in sorted(pieces):
            label = self._label(opening + name)
            raw.append(label[0])
            escaped.append(label[1])
            opening = ","
            piece = pieces[name]
            if isinstance(piece, _Piece):
                raw.append(piece.raw)
                escaped.append(piece.escaped)
            else:
                self._add(piece, raw, escaped)
        closing = "}" if pieces else "{}"
        raw.append(closing)
        escaped.append(closing)

    def _label(self, text: str) -> tuple[str, str]:
        """A name behind its brace or comma, as it is and as it stands in the file: the same few, a million times."""
        label = self._labels.get(text)
        if label is None:
            if len(self._labels) >= _KEPT_LABELS:
                self._labels.clear()
            raw = f"{text[0]}{canonical(text[1:])}:"
            label = self._labels[text] = (raw, self.format.escape(raw))
        return label

    def _entries(self, part: Mapping[str, Any]) -> dict[str, _Piece]:
        return {str(name): self._piece(value) for name, value in part.items()}

    def _piece(self, value: Any) -> _Piece:
        if (known := self._constants.get(id(value))) is not None:
            piece = known[1]
            if piece is None:
                piece = _Piece(value, self.format.escape)
                self._constants[id(value)] = (value, piece)
            return piece
        if type(value) is not str:
            return _Piece(value, self.format.escape)
        piece = self._texts.get(value)
        if piece is None:
            if len(self._texts) >= _KEPT:
                self._texts.clear()
            piece = self._texts[value] = _Piece(value, self.format.escape)
        return piece


class _Piece:
    """Canonical text of one entry, as it is, as it stands in the file, and its digest."""

    __slots__ = ("digest", "escaped", "raw")

    def __init__(self, value: Any, escape: Callable[[str], str]) -> None:
        self.raw = canonical(value)
        self.escaped = escape(self.raw)
        self.digest = entry_digest(self.raw)


def _digests(pieces: Mapping[str, _Piece | dict[str, _Piece]]) -> dict[str, str]:
    """The entries' digests, as `mlipcluster.records.record.seal` has them."""
    found: dict[str, str] = {}
    for part, piece in pieces.items():
        if isinstance(piece, dict):
            found |= {f"{part}.{name}": entry.digest for name, entry in piece.items()}
        elif part != "schema":
            found[part] = piece.digest
    return found


def text_sha256(frame: Frame) -> str:
    """SHA-256 of a file's text without its record, as hexadecimal digits."""
    hasher = hashlib.sha256(frame.before.encode("ascii"))
    hasher.update(frame.after.encode("ascii"))
    return hasher.hexdigest()
