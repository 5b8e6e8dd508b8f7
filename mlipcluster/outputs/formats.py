"""The table of output formats: a new one is one file and one row here."""

from __future__ import annotations

from mlipcluster.errors import InputError
from mlipcluster.outputs.ase_json import JSON
from mlipcluster.outputs.extxyz import EXTXYZ
from mlipcluster.outputs.frame import Format

FORMATS: dict[str, Format] = {"extxyz": EXTXYZ, "json": JSON}


def find_format(name: str) -> Format:
    """The format of that name.

    Raises
    ------
    InputError
        It is unknown; the message lists the known ones.
    """
    if name not in FORMATS:
        raise InputError(f"output format {name!r} is unknown; known: {', '.join(FORMATS)}")
    return FORMATS[name]


def recognise(text: str) -> Format:
    """The format of a file, by its content: JSON begins with a brace, extended XYZ with a number."""
    return FORMATS["json"] if text.lstrip().startswith("{") else FORMATS["extxyz"]
