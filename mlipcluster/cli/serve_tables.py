"""What a server of calculators runs, for a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mlipcluster.cli.env_tables import size

NONE = "–"


def show_status(told: Mapping[str, Any]) -> None:
    """Print it."""
    Console().print(_page(told))


@contextlib.contextmanager
def watched() -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Show it again and again in the same place, until Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt), Live(console=Console(), auto_refresh=False) as live:
        yield lambda told: live.update(_page(told), refresh=True)


def _page(told: Mapping[str, Any]) -> Group:
    head = (
        f"{told['address']}: {len(told['workers'])} of at most {told['max_workers']} workers, {told['clients']} clients"
    )
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
            NONE if row["memory"] is None else size(row["memory"]),
            Text(", ".join(row["devices"]) or NONE),
            Text(" ".join(str(one) for one in (row["where"], row["pid"]) if one is not None) or NONE),
        )
    return table


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        right = title in ("idle", "busy", "starting", "waiting", "calls", "mean", "since", "memory")
        table.add_column(title, justify="right" if right else "left", overflow="fold")
    return table


def _seconds(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s" if value >= 1 else f"{1000 * value:.1f} ms"
