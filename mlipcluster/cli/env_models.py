"""``mlipcluster env smoke-test``: models of a root, held against their known answers."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlipcluster.cli.console import FAILED, Debug, command, say
from mlipcluster.cli.env_store import Cluster, Json, Root

if TYPE_CHECKING:
    from mlipcluster.calculators.smoke import Smoke
    from mlipcluster.calculators.stored import Stored
    from mlipcluster.store.store import Store


@command
def smoke_test(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME|MODEL...",
            help="Environments, all of whose models are tested, or model strings. [default: all that is built]",
            show_default=False,
        ),
    ] = None,
    *,
    root: Root = None,
    cluster: Cluster = None,
    device: Annotated[
        str | None, typer.Option(help="Where to compute: cpu, cuda, …; else a GPU if there is one.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,  # noqa: ARG001 - read by the decorator
) -> None:
    """Calculate a reference cell with each model, offline, and hold it against the known answer.

    The first test of a model in a build writes its energy and forces down as that answer. The exit status is 1 when a
    model fails or gives another answer.
    """
    from mlipcluster.calculators.smoke import smoke
    from mlipcluster.errors import MLIPClusterError
    from mlipcluster.store.sites import find_root
    from mlipcluster.store.store import Store

    store = Store(find_root(root, cluster))
    told: list[dict[str, Any]] = []
    failed = 0
    for one in _models(store, names or [], cluster):
        try:
            found = smoke(store, one, device)
        except MLIPClusterError as error:
            say(f"{one.model}: {error}")
            told.append({"model": one.model, "environment": one.environment, "error": str(error)})
            failed += 1
        else:
            told.append({**asdict(found), "passed": found.passed})
            failed += not found.passed
            if not as_json:
                print(_line(found))
    if as_json:
        print(json.dumps(told, indent=1))
    if failed:
        raise typer.Exit(FAILED)


def _models(store: Store, names: list[str], cluster: str | None) -> list[Stored]:
    """The models that are named: model strings; of environments those that were fetched or are listed, else their own.

    Whatever is wrong with a name is told before any is tested.
    """
    from mlipcluster.calculators.model_strings import unknown
    from mlipcluster.calculators.stored import find, models_of, serving
    from mlipcluster.errors import InputError

    environments = serving(store)
    found: list[Stored] = []
    for name in names or [name for name in sorted(environments) if store.current(name) is not None]:
        if name in environments:
            found += models_of(store, name)
        elif (one := find(name, store, cluster)) is not None:
            found.append(one)
        else:
            raise InputError(f"in root {str(store.root)!r} {unknown(name, serving(store))}")
    if not found:
        raise InputError(f"nothing is built in {str(store.root)!r}; {store.command('build', 'NAME')}")
    return found


def _line(found: Smoke) -> str:
    from mlipcluster.calculators.smoke import FIRST, IDENTICAL, TOLERANCE

    where = f"{found.answer.cell} on {', '.join(found.devices)}, {found.seconds:.1f} s"
    energy = f"{found.answer.energy:.6f} eV"
    if found.verdict == FIRST:
        return f"{found.model}: {energy}, kept as the known answer ({where})"
    if found.verdict == IDENTICAL:
        return f"{found.model}: {energy}, identical to the known answer, bit for bit ({where})"
    limits: dict[str, Any] = TOLERANCE
    return (
        f"{found.model}: {energy}, {found.verdict}: off by {found.energy:.1e} eV an atom (allowed {limits['energy']:g})"
        f" and {found.forces:.1e} eV/Å (allowed {limits['forces']:g}) ({where})"
    )
