"""Calculators, settings, and what a server runs, for a terminal."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mlipcluster.cli.env_tables import size

if TYPE_CHECKING:
    from mlipcluster.calculators.known import Known
    from mlipcluster.settings.values import Setting

NOTHING = "–"
NUMBERS = {"idle", "busy", "starting", "waiting", "calls", "mean", "since", "memory"}


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


def show_status(told: Mapping[str, Any]) -> None:
    """Print it."""
    Console().print(_page(told))


@contextlib.contextmanager
def watched() -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Show it again and again in the same place, until Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt), Live(console=Console(), auto_refresh=False) as live:
        yield lambda told: live.update(_page(told), refresh=True)


def _maker(one: Known) -> str:
    if one.command is not None:
        return shlex.join(one.command.command)
    return "" if one.spec is None else one.spec.factory


def _value(one: Setting) -> str:
    if one.value is None:
        return NOTHING
    return one.value if isinstance(one.value, str) else json.dumps(one.value, ensure_ascii=False)


def _page(told: Mapping[str, Any]) -> Group:
    head = f"{told['address']}: {len(told['workers'])} of at most {told['max_workers']} workers"
    if others := told["clients"] - 1:  # who asks is one of them
        head += f", {others} {'client' if others == 1 else 'clients'}"
    notes = [*(f"also {one}" for one in told["tls_addresses"]), told["waits_for"], "ending" if told["stopping"] else ""]
    parts: list[Any] = [Text(one) for one in [head, *notes] if one]
    if told["calculators"]:
        parts += [Text(), _calculators(told["calculators"])]
    if told["workers"]:
        parts += [Text(), _workers(told["workers"])]
    idle = [name for name in told["served"] if name not in {one["name"] for one in told["calculators"]}]
    if idle:
        parts += [Text(), Text(f"served when they are asked for: {', '.join(idle)}")]
    return Group(*parts)


def _calculators(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("calculator", "idle", "busy", "starting", "waiting", "calls", "mean")
    for row in rows:
        numbers = (str(row[key]) for key in ("idle", "busy", "starting", "waiting", "calls"))
        table.add_row(Text(row["name"]), *numbers, _seconds(row["mean_seconds"]))
    return table


def _workers(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("worker", "calculator", "state", "since", "calls", "mean", "memory", "device", "where")
    for row in rows:
        table.add_row(
            str(row["number"]),
            Text(row["name"]),
            row["state"],
            _seconds(row["seconds"]),
            str(row["calls"]),
            _seconds(row["mean_seconds"]),
            NOTHING if row["memory"] is None else size(row["memory"]),
            Text(", ".join(row["devices"]) or NOTHING),
            Text(" ".join(str(one) for one in (row["where"], row["pid"]) if one is not None) or NOTHING),
        )
    return table


def _seconds(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s" if value >= 1 else f"{1000 * value:.1f} ms"


def _show(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = _table(*titles)
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, justify="right" if title in NUMBERS else "left", overflow="fold")
    return table
