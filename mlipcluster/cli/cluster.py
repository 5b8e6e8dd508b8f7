"""``mlipcluster cluster``: what is known of places to run, and what would be submitted there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlipcluster.cli.console import Debug, command, pairs

if TYPE_CHECKING:
    from mlipcluster.deploy.deployment import Deployment

app = typer.Typer(
    name="cluster",
    help="Clusters: those that settings files name, and the job scripts that would be submitted.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
SET = "--set"
JOB = ("JOB_SPEC", "job0-1")
"""What stands in a script that is only shown for the file and the name that each job gets."""


@app.command("list")
@command
def list_(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.", rich_help_panel="Other")] = False,
    debug: Debug = False,  # noqa: ARG001 - read by the decorator
) -> None:
    """List the clusters of the settings files: what kind each is, its root, and who says so."""
    from mlipcluster.cli.cluster_tables import show_clusters
    from mlipcluster.settings.keys import TYPE
    from mlipcluster.settings.values import settings
    from mlipcluster.store.sites import cluster_fields, cluster_names, cluster_roots

    known = settings()
    roots = cluster_roots(known)
    rows: list[dict[str, Any]] = []
    for name in cluster_names(known):
        fields = cluster_fields(name, known)
        said = [*fields.values(), *([roots[name]] if name in roots else [])]
        rows.append(
            {
                "name": name,
                "type": fields[TYPE].value if fields else None,
                "root": roots[name].value if name in roots else None,
                "origins": sorted({one.origin for one in said}),
            }
        )
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        show_clusters(rows)


@app.command("show")
@command
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A cluster of the settings files, or a kind: slurm, pbs, …")
    ],
    *,
    change: Annotated[
        list[str] | None, typer.Option(SET, "-s", metavar="KEY=VALUE", help="Another value of a field, e.g. gpus=2.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Run folder, which takes the jobs' logs.")] = Path(
        "mlipcluster-run"
    ),
    debug: Debug = False,  # noqa: ARG001 - read by the decorator
) -> None:
    """Print the job script that would be submitted; of a cluster without jobs, its fields."""
    from mlipcluster.deploy.batch import Batch

    found = _deployment(name, pairs(SET, change or ()))
    if not isinstance(found, Batch):
        print(found)
        return
    print(found.script(found.node_command(*JOB), name="mlipcluster-RUN-0", logs=output / "logs"), end="")


def _deployment(name: str, changes: dict[str, Any]) -> Deployment:
    """The deployment of a cluster, or of a kind, with other values of some fields."""
    from mlipcluster.clusters import unknown, with_environment
    from mlipcluster.deploy.configured import deployment
    from mlipcluster.deploy.table import DEPLOYMENTS
    from mlipcluster.errors import InputError
    from mlipcluster.settings.keys import TYPE
    from mlipcluster.store.sites import cluster_fields, cluster_names, cluster_roots

    told = {key: (one.value, one.origin) for key, one in cluster_fields(name).items()}
    if not told and name in DEPLOYMENTS:
        told = {TYPE: (name, "the command line")}
    if not told and name in cluster_names():
        raise InputError(
            f"cluster {name!r} has a root of environments, but does not say where workers run; add a type to it, one "
            f"of {', '.join(DEPLOYMENTS)}."
        )
    found = deployment(name, {**told, **{key: (value, SET) for key, value in changes.items()}} if told else {})
    if found is None:
        raise InputError(unknown(name))
    root = cluster_roots().get(name)
    return with_environment(found, None if root is None else root.value)
