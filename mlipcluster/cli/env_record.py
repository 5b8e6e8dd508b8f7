"""``mlipcluster env dump`` and ``env recreate``: what the scripts of a bare checkout do, for who has it installed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Annotated

import typer

from mlipcluster.cli.console import INTERRUPTED, Debug, command, say, usage_error
from mlipcluster.recreation.containers import LIMIT
from mlipcluster.recreation.recreate_plan import TIMEOUT

Folder = Annotated[Path, typer.Option("--env-dir", "--env_dir", help="Folder of the lock files.")]


@command
def dump(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="An output of a run, in any format and compression.", show_default=False),
    ] = None,
    *,
    input_file: Annotated[Path | None, typer.Option("--input-file", "--input_file", help="The same as FILE.")] = None,
    scorefile: Annotated[
        Path | None, typer.Option(help="Instead of FILE: a run's ledger, its folder, or a pickled table.")
    ] = None,
    output_name: Annotated[
        str | None,
        typer.Option(
            "--output-name", "--output_name", "--decoy-name", "--decoy_name", help="Which output of the scorefile."
        ),
    ] = None,
    env_dir: Folder = Path("env"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite files of these names.")] = False,
    pandas_secure: Annotated[
        bool,
        typer.Option("--pandas-secure", "--pandas_secure", help="Read a pickled table, admitting nothing but tables."),
    ] = False,
    max_bytes: Annotated[int, typer.Option("--max-bytes", "--max_bytes", help="Most that is read of a file.")] = LIMIT,
    debug: Debug = False,  # noqa: ARG001 - read by the decorator
) -> None:
    """Take the environments of an output out of its record: lock files, ready for 'mlipcluster env recreate'."""
    from mlipcluster.recreation.command_line import dump_file
    from mlipcluster.recreation.command_line import say as show

    if file is not None and input_file is not None:
        raise usage_error("give FILE or --input-file, not both.")
    file = file or input_file
    if scorefile is None and output_name:
        file, scorefile = None, file
    if (file is None) == (scorefile is None) or (scorefile is not None and not output_name):
        raise usage_error("give an output FILE, or --scorefile with --output-name.")
    told = SimpleNamespace(
        scorefile=scorefile,
        output_name=output_name,
        env_dir=env_dir,
        force=force,
        pandas_secure=pandas_secure,
        max_bytes=max_bytes,
    )
    dump_file(told, file, ["mlipcluster", "env", "recreate", "--env-dir"], show)


@command
def recreate(
    *,
    env_dir: Folder = Path("env"),
    env_manager: Annotated[
        str,
        typer.Option("--env-manager", "--env_manager", help="uv, pip, conda, …  [default: the recorded one]"),
    ] = "",
    timeout: Annotated[float, typer.Option(min=0.01, help="Seconds, for all commands together.")] = TIMEOUT,
    dry_run: Annotated[bool, typer.Option("--dry-run", "--dry_run", help="Only show the commands.")] = False,
    python: Annotated[str, typer.Option(help="Interpreter or version, for uv and pip.")] = "",
    package: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="Where a package is that came from a folder; NAME= leaves it out."),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Go on where platform or Python differ; make again what was made here before."),
    ] = False,
    debug: Debug = False,  # noqa: ARG001 - read by the decorator
) -> None:
    """Build an environment again from the lock files that 'mlipcluster env dump' wrote, and compare it.

    Exit status: 0 as recorded, 3 made but different (the differences are listed), 1 an error, 2 a wrong command line.
    """
    from mlipcluster.recreation.command_line import local_places, recreate_folder
    from mlipcluster.recreation.command_line import say as show
    from mlipcluster.recreation.recreate_plan import Order

    if any("=" not in given for given in package or ()):
        raise usage_error("--package is NAME=PATH, or NAME= to leave the package out.")
    order = Order(env_dir, env_manager, timeout, python, local_places(package or ()), force)
    try:
        status = recreate_folder(order, show, dry_run=dry_run)
    except KeyboardInterrupt:
        say("interrupted; nothing was left half made")
        status = INTERRUPTED
    raise typer.Exit(status)
