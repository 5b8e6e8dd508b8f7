"""The visible half of an output file: its structure as text, with room for the record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ase import Atoms

RECORD_KEY = "mlipcluster"
"""Under this name the record stands in every output file, and in ``atoms.info`` once ASE has read one."""


@dataclass(frozen=True)
class Frame:
    """A structure as text, cut where the record goes.

    Attributes
    ----------
    before, after : str
        The two halves (ASCII).
    hidden : tuple of str
        What this format cannot show: ``"info 'energy'"``, ``"array 'tensor'"``. The exact values are in the record.
    """

    before: str
    after: str
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """One format of output files; `mlipcluster.outputs.formats.FORMATS` is the table of them.

    Attributes
    ----------
    suffix : str
        Of its files, without a dot.
    frame : callable
        Structure to `Frame`.
    opening, closing : str
        What stands before and behind the record.
    escape, unescape : callable
        The record's text as it stands in the file, and back. ``escape(a + b) == escape(a) + escape(b)``, so that
        pieces of it can be kept.
    split : callable
        A file's text to (before, record as it stands there, after); None when it holds no record.
    read : callable
        A file's text to `Atoms`, with ASE's own reader.
    """

    suffix: str
    frame: Callable[[Atoms], Frame]
    opening: str
    closing: str
    escape: Callable[[str], str]
    unescape: Callable[[str], str]
    split: Callable[[str], tuple[str, str, str] | None]
    read: Callable[[str], Atoms]
