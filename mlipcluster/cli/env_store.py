"""``mlipcluster env init|register|build|list|status|remove``: a root of environments that a group shares."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlipcluster.cli.console import FAILED, Debug, command, say, usage_error

if TYPE_CHECKING:
    from mlipcluster.store.store import Build, Store

Root = Annotated[
    str | None,
    typer.Option("--root", help="The root; by default MLIPCLUSTER_ROOT, or what a configuration file says."),
]
Cluster = Annotated[str | None, typer.Option("--cluster", help="Name of the cluster whose root is meant.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of environments.", show_default=False)]


@command
def init(
    *,
    root: Root = None,
    cluster: Cluster = None,
    debug: Debug = False,  # noqa: ARG001 - read by the decorator
) -> None:
    """Make a root of environments out of a folder that is empty or not there yet.

    Permissions follow the folder: make it group-writable and setgid (chmod 2775) for a group that shares it.
    """
    from mlipcluster.store.layout import make_root
    from mlipcluster.store.sites import find_root

    layout, new = make_root(find_root(root, cluster))
    print(f"{layout.root} is {'now ' if new else ''}a root of environments{'' if new else ' already'}")
    print(f"next: mlipcluster env register FILE.py --root {shlex.quote(str(layout.root))}")


@command
def register(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Source files: NAME.py with a PEP 723 block and setup(), pixi.toml or environment.yml.",
            show_default=False,
        ),
    ],
    *,
    root: Root = None,
    cluster: Cluster = None,
    name: Annotated[str, typer.Option(help="Name of the environment, of one FILE; else the file's.")] = "",
    setup: Annotated[
        Path | None,
        typer.Option(help="Of a pixi.toml or environment.yml: the Python file with setup(), else NAME.py beside it."),
    ] = None,
    debug: Debug = False,  # noqa: ARG001 - read by the decorator
) -> None:
    """Copy source files into the root. They are read, never run; what is built stays until the next build."""
    if len(files) > 1 and (name or setup):
        raise usage_error("--name and --setup are of one FILE.")
    store, failed = _store(root, cluster), 0
    for file in files:
        with _told_of_each() as failure:
            source, what = store.register(file, name, setup)
            print({"new": "registered", "same": "registered already:", "replaced": "replaced"}[what], source.name)
            if store.current(source.name) is None or what == "replaced":
                print(f"  next: {store.command('build', source.name)}")
        failed += len(failure)
    if failed:
        raise typer.Exit(FAILED)


@command
def build(
    names: Names,
    *,
    root: Root = None,
    cluster: Cluster = None,
    models: Annotated[
        str, typer.Option(metavar="M1,M2", help="Fetch the weights of these models as well, of one NAME.")
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Make it again even where it is built.")] = False,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Resolve anew; otherwise versions of the last build are kept.")
    ] = False,
    python: Annotated[str, typer.Option(help="Interpreter or version for it, else as its source allows.")] = "",
    download_python: Annotated[
        bool, typer.Option("--download-python", help="Let uv download a Python into the root if none fits.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that each may take.")] = 7200.0,
    debug: Debug = False,  # noqa: ARG001 - read by the decorator
) -> None:
    """Build environments. Running workers keep what they have; a build that fails changes nothing."""
    from mlipcluster.store.build import build as build_one
    from mlipcluster.store.workplace import Options

    if models and len(names) > 1:
        raise usage_error("--models are of one NAME.")
    store, failed = _store(root, cluster), 0
    options = Options(force=force, upgrade=upgrade, python=python, download=download_python, timeout=timeout)
    with _ended_politely():
        for name in names:
            with _told_of_each() as failure:
                built, new = build_one(store, name, options, say)
                _say_built(built, new)
                if models:
                    _fetch(store, name, [model.strip() for model in models.split(",") if model.strip()])
            failed += len(failure)
    if failed:
        raise typer.Exit(FAILED)


@command
def list_(
    *,
    root: Root = None,
    cluster: Cluster = None,
    as_json: Json = False,
    debug: Debug = False,  # noqa: ARG001 - read by the decorator
) -> None:
    """List environments, and the model strings that stand for them."""
    from mlipcluster.calculators.model_strings import examples
    from mlipcluster.calculators.stored import serving

    store = _store(root, cluster)
    rows: list[dict[str, Any]] = [
        {"name": name, "built": store.current(name) is not None, "models": examples(source)}
        for name, source in sorted(serving(store).items())
    ]
    known = {row["name"] for row in rows}
    broken = {name: why for name, why in store.broken().items() if name not in known}
    rows += [{"name": name, "built": False, "models": [], "error": why} for name, why in broken.items()]
    if as_json:
        print(json.dumps({"root": str(store.root), "environments": rows}, indent=1))
        return
    if not rows:
        print(f"nothing is registered in {store.root}; {store.command('register', 'FILE.py')}")
    for row in rows:
        words = ", ".join(row["models"]) or "cannot be read; see `mlipcluster env status`"
        print(f"{row['name']}{'' if row['built'] else ' (not built)'}: {words}")


@command
def status(
    *,
    root: Root = None,
    cluster: Cluster = None,
    check: Annotated[bool, typer.Option("--check", help="Measure each environment again, and compare.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove what dead builders left, and builds that no name stands for.")
    ] = False,
    keep_days: Annotated[
        float, typer.Option(min=0, help="With --prune: keep builds to which nobody was sent for fewer days.")
    ] = 30.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --prune: only say what would go.")] = False,
    as_json: Json = False,
    debug: Debug = False,  # noqa: ARG001 - read by the decorator
) -> None:
    """Show what is registered and built, what was fetched and tested, and what is not as it was."""
    from dataclasses import asdict

    from mlipcluster.cli.env_tables import show_status, show_waste
    from mlipcluster.store.prune import prune as clear
    from mlipcluster.store.status import status as look

    if dry_run and not prune:
        raise usage_error("--dry-run is of --prune; give that too.")
    store = _store(root, cluster)
    waste = clear(store, keep_days=keep_days, dry_run=dry_run) if prune else []
    found = look(store, check=check)
    if as_json:
        pruned = [{**asdict(one), "path": str(one.path)} for one in waste]
        print(json.dumps({**found.to_json(), **({"pruned": pruned} if prune else {})}, indent=1))
        return
    if prune:
        show_waste(waste, dry_run=dry_run)
    show_status(found, store)


@command
def remove(
    names: Names,
    *,
    root: Root = None,
    cluster: Cluster = None,
    builds: Annotated[
        bool, typer.Option("--builds", help="Remove what was built as well, even if it is in use.")
    ] = False,
    debug: Debug = False,  # noqa: ARG001 - read by the decorator
) -> None:
    """Take names out of the root. What was built stays for those that use it, until 'status --prune'."""
    store, failed = _store(root, cluster), 0
    for name in names:
        with _told_of_each() as failure:
            gone = store.remove(name, builds=builds)
            print(f"removed {name}" + (f" and {len(gone)} build{'' if len(gone) == 1 else 's'}" if builds else ""))
        failed += len(failure)
    if failed:
        raise typer.Exit(FAILED)


def _store(root: str | None, cluster: str | None) -> Store:
    from mlipcluster.store.sites import find_root
    from mlipcluster.store.store import Store

    return Store(find_root(root, cluster))


def _say_built(built: Build, new: bool) -> None:
    from mlipcluster.cli.env_tables import size

    facts = built.facts
    print(f"{built.name} is {'built' if new else 'built already'}: {built.folder}")
    print(
        f"  Python {facts.get('python_version')}, {facts.get('packages')} packages, {size(facts.get('size', 0))},"
        f" digest {built.digest[:12]}"
    )


def _fetch(store: Store, name: str, models: list[str]) -> None:
    from mlipcluster.calculators.fetch import fetch

    for fetched in fetch(store, name, models):
        print(f"  fetched {fetched.model}: {len(fetched.weights)} files")
        for weight in fetched.weights:
            if Path(weight.path).is_absolute():
                say(f"warning: {fetched.model} reads {weight.path}, which is not in the root; others may not have it")


@contextlib.contextmanager
def _told_of_each() -> Iterator[list[Exception]]:
    """Say what is wrong with one of several, and go on with the next; the list holds it then."""
    from mlipcluster.errors import MLIPClusterError

    failure: list[Exception] = []
    try:
        yield failure
    except MLIPClusterError as error:
        say(str(error))
        failure.append(error)


@contextlib.contextmanager
def _ended_politely() -> Iterator[None]:
    """Let a scheduler's SIGTERM do what Ctrl-C does: what is half made is removed."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
