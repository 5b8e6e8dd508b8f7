"""``mlipcluster``: the commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from mlipcluster.cli import calculators, cluster, config, env, quickstart, reproduce, run, serve, show, tls

app = typer.Typer(
    name="mlipcluster",
    help="Distribute, record and reproduce calculations with machine-learned interatomic potentials.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("reproduce")(reproduce.reproduce)
app.command("show")(show.show)
app.command("quickstart")(quickstart.quickstart)
app.command("serve")(serve.serve)
app.command("worker")(serve.worker)
app.command("status")(serve.status)
app.command("list")(calculators.list_)
app.command("config")(config.config)
app.add_typer(cluster.app)
app.add_typer(env.app)
app.add_typer(tls.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        import mlipcluster

        print(f"mlipcluster {mlipcluster.__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Distribute, record and reproduce calculations with machine-learned interatomic potentials."""


def main() -> None:
    """Run the command line; the entry point of ``mlipcluster`` and ``python -m mlipcluster``."""
    app(prog_name="mlipcluster")
