"""Results as a person sees them at a prompt and in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlipcluster.outputs.results import Failure, Results

_ROWS = 10
_MESSAGE = 160
_COLUMNS = ("name", "formula", "natoms", "energy", "max_force", "seconds", "calculator", "source", "status")
_UNITS = {"energy": "energy / eV", "max_force": "max force / eV/Å", "seconds": "time / s"}
_STYLE = "text-align:left;padding:2px 10px"


def as_text(results: Results) -> str:
    """A few lines: how many of what, the first rows, the first failures."""
    lines = [f"Results: {_summary(results)} in {results.root}"]
    rows = _rows(results)
    if rows:
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines += [
            "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
    if (left := len(results.entries) - _ROWS) > 0:
        lines.append(f"  … and {left} more: to_dataframe() has them all")
    lines += [f"  failed: {failure.name}: {_complaint(failure)}" for failure in results.failures[:_ROWS]]
    return "\n".join(lines)


def as_html(results: Results) -> str:
    """The same for a notebook; everything that came from outside is escaped."""
    rows = _rows(results)
    parts = [f"<p><b>Results</b>: {escape(_summary(results))} in <code>{escape(str(results.root))}</code></p>"]
    if rows:
        head = "".join(f'<th style="{_STYLE}">{escape(text)}</th>' for text in rows[0])
        body = "".join(f"<tr>{_cells(row)}</tr>" for row in rows[1:])
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    if (left := len(results.entries) - _ROWS) > 0:
        parts.append(f"<p>… and {left} more: <code>to_dataframe()</code> has them all</p>")
    if failures := results.failures[:_ROWS]:
        items = "".join(f"<li><code>{escape(f.name)}</code>: {escape(_complaint(f))}</li>" for f in failures)
        parts.append(f"<p>Failed:</p><ul>{items}</ul>")
    return "\n".join(parts)


def _cells(row: Sequence[str]) -> str:
    return "".join(f'<td style="{_STYLE}">{escape(text)}</td>' for text in row)


def _summary(results: Results) -> str:
    counts = results.counts
    texts = [f"{counts['output']} output{'' if counts['output'] == 1 else 's'}"]
    texts += [f"{counts[status]} {status}" for status in ("failed", "empty") if counts[status]]
    return ", ".join(texts)


def _rows(results: Results) -> list[list[str]]:
    """Heading and first rows, without columns that are empty throughout."""
    entries = results.entries[:_ROWS]
    if not entries:
        return []
    table = [[_text(_value(entry, column)) for column in _COLUMNS] for entry in entries]
    shown = [number for number in range(len(_COLUMNS)) if any(row[number] for row in table)]
    heading = [_UNITS.get(_COLUMNS[number], _COLUMNS[number]) for number in shown]
    return [heading, *([row[number] for number in shown] for row in table)]


def _value(entry: Mapping[str, Any], column: str) -> Any:
    return entry[column] if column in entry else (entry.get("scores") or {}).get(column)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else _short(str(value), 40)


def _complaint(failure: Failure) -> str:
    tries = f" ({failure.attempts} attempts)" if failure.attempts > 1 else ""
    return _short(f"{failure.type}: {failure.message}", _MESSAGE) + tries


def _short(text: str, length: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"
