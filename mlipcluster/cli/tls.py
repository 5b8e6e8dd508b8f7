"""``mlipcluster tls``: credentials that outlive a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlipcluster.cli.console import FAILED, Debug, command, say

if TYPE_CHECKING:
    from mlipcluster.deploy.credentials_folder import Shown

app = typer.Typer(
    name="tls",
    help="Make and look at credentials for TLS. A run needs none of these: it makes its own.",
    no_args_is_help=True,
)


@app.command("new")
@command
def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder, made with mode 0700.", show_default=False)],
    *,
    days: Annotated[float, typer.Option(help="How long they are valid.")] = 365,
    name: Annotated[str, typer.Option(help="Name in the certificates.")] = "mlipcluster",
    dns: Annotated[list[str] | None, typer.Option(metavar="HOST", help="Host name that they are for; again.")] = None,
    ip: Annotated[
        list[str] | None, typer.Option(metavar="ADDRESS", help="IP address that they are for; again.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace those that are there.")] = False,
    debug: Debug = False,  # noqa: ARG001 - read by the decorator
) -> None:
    """Make an authority, and certificates and keys for scheduler, worker and client.

    Hand them in with security="DIR". The authority's own key is not kept: nobody can sign more.
    """
    from mlipcluster.deploy.certificates import issue
    from mlipcluster.deploy.credentials_folder import write_folder
    from mlipcluster.deploy.vetting import check_folder

    if (there := folder.expanduser()).exists():
        check_folder(there)  # now rather than when a run is to use it
    path = write_folder(folder, issue(days=days, name=name, dns=dns or (), addresses=ip or ()), overwrite=force)
    print(f"made credentials for {days:g} days in {path}; use them with security={str(path)!r}")


@app.command("show")
@command
def show(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `tls new` made.", show_default=False)],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: Debug = False,  # noqa: ARG001 - read by the decorator
) -> None:
    """Show whom the certificates are for and how long they are valid, and whether they can be used.

    The exit status is 1 when they cannot.
    """
    from mlipcluster.deploy.credentials_folder import read_folder, show_folder
    from mlipcluster.errors import InputError

    shown = show_folder(folder)
    wrong = ""
    try:
        read_folder(folder)
    except InputError as error:
        wrong = str(error)
    if as_json:
        print(json.dumps({"certificates": [_as_json(one) for one in shown], "wrong": wrong or None}, indent=1))
    else:
        for one in shown:
            print(f"{one.role:10s} {one.begin:%Y-%m-%d %H:%M} to {one.end:%Y-%m-%d %H:%M} UTC  {one.name}{_for(one)}")
    if wrong:
        say(wrong)
        raise typer.Exit(FAILED)


def _for(one: Shown) -> str:
    return f"  for {', '.join(one.alternatives)}" if one.alternatives else ""


def _as_json(one: Shown) -> dict[str, Any]:
    return {
        "role": one.role,
        "name": one.name,
        "begin": one.begin.isoformat(),
        "end": one.end.isoformat(),
        "for": list(one.alternatives),
    }
