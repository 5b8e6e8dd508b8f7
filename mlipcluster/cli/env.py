"""``mlipcluster env``: environments, from a record and in a shared root."""

from __future__ import annotations

import typer

from mlipcluster.cli import env_models, env_record, env_store

app = typer.Typer(
    name="env",
    help="Environments: take one out of an output, build it again, and keep a root that a group shares.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("dump")(env_record.dump)
app.command("recreate")(env_record.recreate)
for name in ("init", "register", "build", "status", "remove"):
    app.command(name)(getattr(env_store, name))
app.command("list")(env_store.list_)
app.command("smoke-test")(env_models.smoke_test)
