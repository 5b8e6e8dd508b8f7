"""``mlipcluster config``: what is set, and who says so."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from mlipcluster.cli.console import Debug, command


@command
def config(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.", rich_help_panel="Other")] = False,
    debug: Debug = False,  # noqa: ARG001 - read by the decorator
) -> None:
    """Print each setting, its value, and where that comes from: built in, a file, or a variable."""
    from mlipcluster.settings.values import settings

    found = settings()
    if as_json:
        print(json.dumps({key: {"value": one.value, "origin": one.origin} for key, one in found.items()}, indent=2))
        return
    from mlipcluster.cli.serving_tables import show_settings

    show_settings(found)
