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
_FORMATS = {"energy": ".6f", "max_force": ".3g", "seconds": ".3f"}
_NUMBERS = ("natoms", *_FORMATS)
_STYLE = "padding:2px 10px;text-align:"


def as_text(results: Results) -> str:
    """A few lines: how many of what, the first rows, the first failures."""
    lines = [f"Results: {_summary(results)} in {results.root}"]
    columns, rows = _table(results)
    widths = [max(map(len, texts)) for texts in zip(*rows, strict=True)]
    pads = [str.rjust if column in _NUMBERS else str.ljust for column in columns]
    for row in rows:
        texts = [pad(text, width) for pad, text, width in zip(pads, row, widths, strict=True)]
        lines.append(f"  {'  '.join(texts)}".rstrip())
    if (left := len(results.entries) - _ROWS) > 0:
        lines.append(f"  … and {left} more: to_dataframe() has them all")
    lines += [f"  failed: {failure.name}: {_complaint(failure)}" for failure in results.failures[:_ROWS]]
    return "\n".join(lines)


def as_html(results: Results) -> str:
    """The same for a notebook; everything that came from outside is escaped."""
    columns, rows = _table(results)
    parts = [f"<p><b>Results</b>: {escape(_summary(results))} in <code>{escape(str(results.root))}</code></p>"]
    if rows:
        head = _cells("th", columns, rows[0])
        body = "".join(f"<tr>{_cells('td', columns, row)}</tr>" for row in rows[1:])
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    if (left := len(results.entries) - _ROWS) > 0:
        parts.append(f"<p>… and {left} more: <code>to_dataframe()</code> has them all</p>")
    if failures := results.failures[:_ROWS]:
        items = "".join(f"<li><code>{escape(f.name)}</code>: {escape(_complaint(f))}</li>" for f in failures)
        parts.append(f"<p>Failed:</p><ul>{items}</ul>")
    return "\n".join(parts)


def _cells(tag: str, columns: Sequence[str], row: Sequence[str]) -> str:
    sides = ["right" if column in _NUMBERS else "left" for column in columns]
    cells = zip(sides, row, strict=True)
    return "".join(f'<{tag} style="{_STYLE}{side}">{escape(text)}</{tag}>' for side, text in cells)


def _summary(results: Results) -> str:
    counts = results.counts
    texts = [f"{counts['output']} output{'' if counts['output'] == 1 else 's'}"]
    texts += [f"{counts[status]} {status}" for status in ("failed", "empty") if counts[status]]
    return ", ".join(texts)


def _table(results: Results) -> tuple[list[str], list[list[str]]]:
    """Names of the columns; heading and first rows, without columns that say nothing."""
    entries = results.entries[:_ROWS]
    table = {column: [_text(column, _value(entry, column)) for entry in entries] for column in _COLUMNS}
    table = {column: texts for column, texts in table.items() if any(texts)}
    if set(table.get("status", ())) == {"output"}:
        del table["status"]
    heading = [_UNITS.get(column, column) for column in table]
    rows = [heading, *map(list, zip(*table.values(), strict=True))] if table else []
    return list(table), rows


def _value(entry: Mapping[str, Any], column: str) -> Any:
    return entry[column] if column in entry else (entry.get("scores") or {}).get(column)


def _text(column: str, value: Any) -> str:
    if isinstance(value, float):
        return format(value, _FORMATS.get(column, ".6g"))
    return "" if value is None else _short(str(value), 40)


def _complaint(failure: Failure) -> str:
    tries = f" ({failure.attempts} attempts)" if failure.attempts > 1 else ""
    return _short(f"{failure.type}: {failure.message}", _MESSAGE) + tries


def _short(text: str, length: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"
