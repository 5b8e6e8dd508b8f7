"""TOML, read by Python's own reader; Python 3.10 needs the package ``tomli`` for it, which mlipcluster brings there."""

from __future__ import annotations

import importlib
from typing import Any

from mlipcluster.errors import InputError


def parse_toml(text: str, what: str) -> dict[str, Any]:
    """The tables of a TOML text.

    Parameters
    ----------
    text : str
        The text.
    what : str
        What it is, for the error: ``"'/a/pixi.toml'"``.

    Raises
    ------
    InputError
        It is not TOML, or this Python has no reader for it.
    """
    for name in ("tomllib", "tomli"):
        try:
            reader = importlib.import_module(name)
        except ImportError:
            continue
        try:
            return dict(reader.loads(text))
        except reader.TOMLDecodeError as error:
            raise InputError(f"{what} is not TOML: {error}; correct it") from error
    raise InputError(
        f"{what} cannot be read: Python before 3.11 has no TOML reader; take a newer Python, or install tomli"
    )
