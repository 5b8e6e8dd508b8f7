"""What a run gave, for a terminal."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from mlipcluster.outputs.results import Results

ROWS, FAILURES, SCORES = 30, 10, 5  # shown at most
FORMATS = {"energy": ".4f", "max_force": ".1e", "seconds": ".2f"}
UNITS = {"energy": "eV", "max_force": "eV/Å", "seconds": "s"}

Entry = Mapping[str, Any]


def summary(results: Results, folder: Path) -> None:
    """Print the outputs as a table, what failed and why, and where everything is."""
    console = Console()
    outputs = [entry for entry in results.entries if entry.get("status") == "output"]
    if outputs:
        console.print(outputs_table(outputs[:ROWS]))
        if len(outputs) > ROWS:
            console.print(f"… and {len(outputs) - ROWS} more outputs")
    for failure in results.failures[:FAILURES]:
        text = Text.assemble(("failed: ", "red"), f"{failure.source}: {_class(failure.type)}: {failure.message}")
        console.print(text, soft_wrap=True)
        console.print(Text(f"  {failure.path}", "dim"), soft_wrap=True)
    counts = results.counts
    rest = f", {counts['empty']} gave nothing" if counts["empty"] else ""
    made = f"{counts['output']} output{'' if counts['output'] == 1 else 's'}"
    console.print(Text(f"{made}, {counts['failed']} failed{rest} in {folder}"), soft_wrap=True)
    example = next((entry["file"] for entry in outputs if entry.get("file")), None)
    if example:
        command = shlex.join(["mlipcluster", "reproduce", str(folder / example)])
        console.print(Text(f"make one again: {command}", "dim"), soft_wrap=True)


def outputs_table(entries: Sequence[Entry]) -> Table:
    """One row an output: source, formula, energy, largest force, further scores, seconds."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = _columns(entries)
    for name in columns:
        unit = f"\n{UNITS[name]}" if name in UNITS else ""
        numeric = all(_is_number(_value(entry, name)) for entry in entries)
        table.add_column(name + unit, justify="right" if numeric else "left", no_wrap=numeric)
    for entry in entries:
        table.add_row(*(Text(_shown(name, _value(entry, name))) for name in columns))
    return table


def _class(name: str) -> str:
    return name.rpartition(".")[2]


def _columns(entries: Sequence[Entry]) -> list[str]:
    several = [n for n in ("replicate", "calculator") if len({_value(entry, n) for entry in entries}) > 1]
    known = ("formula", "energy", "max_force")
    scores = dict.fromkeys(name for entry in entries for name in entry.get("scores") or {})
    have = [name for name in known if name in scores]
    others = [n for n in scores if n not in (*known, "natoms") and all(_is_plain(_value(e, n)) for e in entries)]
    return ["source", *several, *have, *others[:SCORES], "seconds"]


def _value(entry: Entry, name: str) -> Any:
    return entry.get(name) if name in ("source", "replicate", "calculator", "seconds") else entry["scores"].get(name)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (int, float))


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:{FORMATS.get(name, '.5g')}}"
    return "" if value is None else str(value)
