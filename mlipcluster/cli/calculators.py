"""``mlipcluster list``: the calculators that could be served, and where each comes from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlipcluster.cli.console import Debug, command, say, usage_error

if TYPE_CHECKING:
    from mlipcluster.calculators.known import Catalogue, Known

Tables = Annotated[
    list[str] | None,
    typer.Option(
        "--calculators",
        metavar="FILE.py:NAME",
        help="A table of calculators, also package.module:NAME; again for more. Default: serve.calculators.",
    ),
]
Root = Annotated[str | None, typer.Option("--root", help="A root of environments, whose models are listed.")]
Cluster = Annotated[str | None, typer.Option("--cluster", help="A named cluster, whose root is meant.")]


@command
def list_(
    *,
    calculators: Tables = None,
    root: Root = None,
    cluster: Cluster = None,
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="PATH", help="Of a server: list what that one serves."),
    ] = None,
    tls: Annotated[str | None, typer.Option("--tls", metavar="DIR", help="Credentials for tls://.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.", rich_help_panel="Other")] = False,
    debug: Debug = False,  # noqa: ARG001 - read by the decorator
) -> None:
    """List the calculators that could be served, and where each comes from.

    What a source says that cannot be read is told on stderr, and does not hide the others.
    """
    from mlipcluster.calculators.known import known
    from mlipcluster.settings.values import setting

    if address is not None:
        without = {"--calculators": calculators, "--root": root, "--cluster": cluster}
        if given := [option for option, value in without.items() if value is not None]:
            raise usage_error(f"--address lists what that server has, so {', '.join(given)} means nothing with it")
        _list_served(address, tls, as_json=as_json)
        return
    tables = setting("serve.calculators", calculators).value
    found = known(root=root, cluster=cluster, tables=tables)
    if as_json:
        print(json.dumps(_as_json(found), indent=2, ensure_ascii=False))
        return
    from mlipcluster.cli.serving_tables import show_known

    show_known([*found.values()])
    for complaint in found.complaints:
        say(f"warning: {complaint}")


def _list_served(address: str, tls: str | None, *, as_json: bool) -> None:
    from mlipcluster.cli.serving_tables import show_served
    from mlipcluster.serving.asking import ask

    told = ask("list", address, tls)
    if as_json:
        print(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        show_served(told["calculators"])


def _as_json(found: Catalogue) -> dict[str, Any]:
    return {"calculators": [_row(one) for one in found.values()], "complaints": found.complaints}


def _row(one: Known) -> dict[str, Any]:
    return {
        "name": one.name,
        "source": one.source,
        "spec": None if one.spec is None else one.spec.recorded(),
        "command": None if one.command is None else list(one.command.command),
        "why": one.why,
    }
