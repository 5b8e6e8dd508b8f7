"""Extended XYZ: ASE's writer for the structure, the record as the last entry of the comment line."""

from __future__ import annotations

from io import StringIO

from ase import Atoms
from ase.io.extxyz import read_extxyz, write_extxyz

from mlipcluster.outputs.frame import RECORD_KEY, Format, Frame
from mlipcluster.outputs.info_text import escape, info_text, unescape
from mlipcluster.outputs.visible import show

OPENING = f' {RECORD_KEY}="_JSON '
CLOSING = '"'


def frame(atoms: Atoms) -> Frame:
    """Text of *atoms* with results, constraints, arrays and info, as far as this format can hold them."""
    visible, hidden = show(atoms)
    info = info_text(atoms.info, hidden)
    buffer = StringIO()
    write_extxyz(buffer, visible)
    count, comment, rows = buffer.getvalue().split("\n", 2)
    if ":move_mask:" not in comment:  # older versions of ASE write no constraints
        hidden += [f"constraint {type(constraint).__name__}" for constraint in visible.constraints]
    return Frame(f"{count}\n{comment}{info}", f"\n{rows}", tuple(hidden))


def split(text: str) -> tuple[str, str, str] | None:
    """The record is in the second line, behind the only unescaped ``mlipcluster="_JSON`` there can be."""
    start = text.find("\n") + 1
    end = text.find("\n", start)
    found = text.find(OPENING, start, end)
    if not start or end < 0 or found < 0 or not text.endswith(CLOSING, found + len(OPENING), end):
        return None
    return text[:found], text[found + len(OPENING) : end - len(CLOSING)], text[end:]


def read(text: str) -> Atoms:
    """The structure, as ASE reads it."""
    atoms: Atoms = next(read_extxyz(StringIO(text), 0))
    return atoms


EXTXYZ = Format("extxyz", frame, OPENING, CLOSING, escape, unescape, split, read)
