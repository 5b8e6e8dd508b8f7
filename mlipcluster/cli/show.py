"""``mlipcluster show``: a record, readable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlipcluster.cli.console import DAMAGED, FAILED, Debug, command, say, usage_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@command
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An output, or a run folder.")],
    *,
    json: Annotated[bool, typer.Option("--json", help="Print the whole record as JSON.")] = False,
    environment: Annotated[bool, typer.Option("--environment", help="Print the lock file's text.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Print the uncommitted changes of the code.")] = False,
    source: Annotated[bool, typer.Option("--source", help="Print the protocols' source.")] = False,
    debug: Debug = False,  # noqa: ARG001 - read by the decorator
) -> None:
    """Show what FILE says of itself: structure, protocols, seeds, code, environment, weights, machine, scores.

    The exit status is 0, or 6 when the file was changed after it was written.
    """
    if sum((json, environment, diff, source)) > 1:
        raise usage_error("give one of --json, --environment, --diff and --source.")
    if file.is_dir():
        _show_run(file)
        return
    from mlipcluster.reproduction.original import load

    output, damage = load(file, None, None)
    if text := _part(output.record, json=json, environment=environment, diff=diff, source=source):
        print(text)
    else:
        _show_record(output.name, output.record, output.path, output.scores)
    for line in damage:
        say(f"{file}: {line}")
    if damage:
        raise typer.Exit(DAMAGED)


def _part(record: Mapping[str, Any], *, json: bool, environment: bool, diff: bool, source: bool) -> str:
    if json:
        from json import dumps

        return dumps(record, indent=2, ensure_ascii=False)
    if environment:
        return str(record["instance"].get("environment") or "the record holds no lock file")
    if diff:
        git = record["metadata"].get("git") or {}
        return str(git.get("diff") or "no uncommitted changes were recorded")
    if source:
        protocols = record["metadata"]["protocols"]
        return "\n\n".join(f"# {p['module']}:{p['name']}\n{p['text'].rstrip()}" for p in protocols)
    return ""


def _show_record(name: str, record: Mapping[str, Any], path: Path | None, scores: Mapping[str, Any]) -> None:
    from mlipcluster.reproduction.page import circumstances, what

    _show_rows(name, what(record, path))
    _show_rows("Recorded", circumstances(record))
    _show_rows("Scores", [(str(key), str(value)) for key, value in scores.items()])


def _show_rows(title: str, rows: Sequence[tuple[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for left, right in rows:
        table.add_row(Text(left), Text(right))
    console = Console()
    console.print(table)
    console.print()


def _show_run(folder: Path) -> None:
    from mlipcluster.cli.tables import summary
    from mlipcluster.outputs.results import Results

    results = Results.open(folder)
    summary(results, folder)
    if results.failures:
        raise typer.Exit(FAILED)
