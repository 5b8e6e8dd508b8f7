"""What a root of environments holds, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from mlipcluster.store.prune import Waste
    from mlipcluster.store.status import EnvironmentStatus, StoreStatus
    from mlipcluster.store.store import Store

DIGITS = 8  # of a digest
GOOD = ("first", "identical", "within tolerance")


def show_status(found: StoreStatus, store: Store) -> None:
    """Print a table of the environments, what is not as it should be, and what could be cleared away."""
    console = Console()
    if not found.environments:
        _say(console, f"nothing is registered; {store.command('register', 'FILE.py')}")
    else:
        console.print(_table(found.environments))
    for environment in found.environments:
        for line in environment.drift:
            _say(console, Text.assemble((f"{environment.name}: ", "yellow"), line))
    for builder in found.building:
        _say(console, f"being built by {builder}")
    waste = [f"{len(found.abandoned)} left by builds that were ended"] if found.abandoned else []
    if found.old:
        waste.append(f"{len(found.old)} that no name stands for ({size(sum(build.size for build in found.old))})")
    if waste:
        _say(console, f"{' and '.join(waste)}: {store.command('status', '--prune')}")


def show_waste(waste: Sequence[Waste], *, dry_run: bool) -> None:
    """Print what was removed, or would be."""
    console = Console()
    for one in waste:
        verb = "would remove" if dry_run else "removed" if one.gone else "could not remove"
        _say(console, f"{verb} {one.path} ({one.what}{f', {size(one.size)}' if one.size else ''})")
    if not waste:
        _say(console, "there is nothing to remove")


def size(count: float) -> str:
    """Bytes for people: ``"1.2 GB"``."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _table(environments: Sequence[EnvironmentStatus]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("environment", "source", "lock", "Python", "size", "models", "smoke test"):
        wraps = name in ("environment", "models", "smoke test")
        table.add_column(name, justify="right" if name == "size" else "left", no_wrap=not wraps, overflow="fold")
    for one in environments:
        built = one.state == "built"
        lock = Text(one.lock_digest[:DIGITS]) if built else Text(one.state, "yellow")
        shown: list[str | Text] = [
            one.name,
            one.source_digest[:DIGITS],
            lock,
            one.python,
            size(one.size) if built else "",
        ]
        table.add_row(*shown, ", ".join(one.models), _smoke(one))
    return table


def _smoke(one: EnvironmentStatus) -> Text:
    tests = [*(one.smoke or {}).values()]
    bad = [model for model, test in (one.smoke or {}).items() if test.get("verdict") not in GOOD]
    if bad:
        return Text(f"differs: {', '.join(bad)}", "red")
    when = max((str(test.get("when", "")) for test in tests), default="")
    return Text(f"passed {when[:10]}", "green") if tests else Text("")


def _say(console: Console, text: str | Text) -> None:
    console.print(text if isinstance(text, Text) else Text(text), soft_wrap=True)
