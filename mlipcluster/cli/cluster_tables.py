"""The clusters that settings files name, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def show_clusters(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print one row a cluster: name, kind, root of environments, and the files that say so."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("cluster", "type", "root", "said by"):
        table.add_column(title, overflow="fold")
    for row in rows:
        cells = (row["name"], row["type"] or "–", row["root"] or "–", ", ".join(row["origins"]))
        table.add_row(*(Text(cell) for cell in cells))
    Console().print(table)
