"""Calculators and settings, for a terminal."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from mlipcluster.calculators.known import Known
    from mlipcluster.settings.values import Setting

NOTHING = "–"


def show_known(found: Sequence[Known]) -> None:
    """Print one row a calculator: name, what makes it, and who says so."""
    with_notes = any(one.why for one in found)
    titles = ("calculator", "made by", "source", *(["note"] if with_notes else []))
    _show(titles, ((one.name, _maker(one), one.source, *([one.why] if with_notes else [])) for one in found))


def show_served(found: Sequence[Mapping[str, str]]) -> None:
    """Print one row a calculator that a server has: its name, and who says so."""
    _show(("calculator", "source"), ((one["name"], one["source"]) for one in found))


def show_settings(found: Mapping[str, Setting]) -> None:
    """Print one row a setting: its name, value, and who says so."""
    _show(("setting", "value", "said by"), ((key, _value(one), one.origin) for key, one in found.items()))


def _maker(one: Known) -> str:
    if one.command is not None:
        return shlex.join(one.command.command)
    return "" if one.spec is None else one.spec.factory


def _value(one: Setting) -> str:
    if one.value is None:
        return NOTHING
    return one.value if isinstance(one.value, str) else json.dumps(one.value, ensure_ascii=False)


def _show(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
