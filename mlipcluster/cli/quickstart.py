"""``mlipcluster quickstart``: the main job, on real structures, in a minute."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from mlipcluster.cli.console import FAILED, Debug, command

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ase import Atoms
    from distributed import Client

    from mlipcluster.calculators.spec import CalculatorSpec
    from mlipcluster.outputs.results import Results

RARE_GASES: Mapping[str, tuple[float, float]] = {
    "Ne": (2.74, 0.0031),
    "Ar": (3.40, 0.0104),
    "Kr": (3.65, 0.0140),
    "Xe": (3.98, 0.0200),
}
"""Lennard-Jones σ (Å) and ε (eV): C. Kittel, Introduction to Solid State Physics, 8th ed., chapter 3, table 4."""

BUILT = ("Cu", "Al", "Ni", "Ag", "Pd", "Ar")
"""What is relaxed where the examples are not at hand (installed without the repository)."""

_NEXT = """What else to try:
  mlipcluster show {file}
      what this file says of itself: structure, seeds, code, environment, machine
  mlipcluster reproduce {file} --full
      make it again, and print the page a reviewer would read
  mlipcluster run md YOUR_FILES --calculator emt --param steps=200 -o runs/md
      your own structures; `mlipcluster run --help` for protocols and options
  from mlipcluster import MLIPCluster
      the same from Python, with protocols of your own: see README.md and docs/"""


@command
def quickstart(
    output: Annotated[Path, typer.Option("--output", "-o", help="Run folder.")] = Path("mlipcluster-quickstart"),
    *,
    workers: Annotated[int | None, typer.Option("--workers", "-j", min=1, help="Workers at most.")] = None,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Show no progress.")] = False,
    debug: Debug = False,  # noqa: ARG001 - read by the decorator
) -> None:
    """Relax example structures with EMT and Lennard-Jones, show the table, and make one output again.

    Each calculator runs in a process of its own, as a machine-learned model would in its own environment. Run it
    again and everything is found done. The exit status is that of `mlipcluster reproduce`.
    """
    from mlipcluster.cli.tables import outputs_table, summary
    from mlipcluster.reproduction.rerun import reproduce

    console = Console()
    groups, left_out = _groups(_structures())
    count = sum(map(len, groups.values()))
    console.print(Text(f"Relaxing {count} structure files, atoms and cell, with {_labels(groups)}.", "bold"))
    if left_out:
        console.print(Text(f"Left out, they need a model that knows their elements: {', '.join(left_out)}.", "dim"))
    with _workers(workers) as client:
        options = {"client": client, "progress": not no_progress, "retry_failed": True}
        runs = [_relax(spec, tasks, output / spec.name, options) for spec, tasks in groups.items()]
    console.print()
    console.print(
        outputs_table([entry for results in runs for entry in results.entries if entry["status"] == "output"])
    )
    for results in runs:
        if results.failures:
            summary(results, results.root)
    if not len(runs[0]):
        raise typer.Exit(FAILED)
    longest = runs[0].reduce(lambda outputs: max(outputs, key=lambda one: one.scores["steps"]))
    console.print(Text(f"\nMaking {longest.name} again, from its file alone:", "bold"))
    audit = reproduce(longest.path)
    console.print(Text(audit.headline, "green" if audit.exit_status == 0 else "yellow"), soft_wrap=True)
    console.print(Text("\n" + _NEXT.format(file=os.path.relpath(str(longest.path)))), soft_wrap=True)
    raise typer.Exit(audit.exit_status)


def _structures() -> Iterator[tuple[Path | None, Atoms]]:
    """The examples of the repository, or a few built here."""
    from ase.build import bulk, molecule
    from ase.io import iread

    import mlipcluster

    folder = Path(mlipcluster.__file__).parent.parent / "examples" / "structures"
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            with contextlib.suppress(Exception):  # a file that is no structure, and one that is broken on purpose
                yield path, next(iread(path))
        return
    for symbol in BUILT:
        yield None, bulk(symbol, cubic=True)
    for name in ("H2O", "N2"):
        yield None, molecule(name)


def _groups(
    structures: Iterator[tuple[Path | None, Atoms]],
) -> tuple[dict[CalculatorSpec, list[dict[str, Any]]], list[str]]:
    """Tasks by the calculator that knows all their elements, and the names of those that none knows."""
    from ase.calculators.emt import parameters

    from mlipcluster.calculators.registry import names

    groups: dict[CalculatorSpec, list[dict[str, Any]]] = {}
    left_out = []
    for path, atoms in structures:
        elements = set(atoms.symbols)
        if elements <= set(parameters):
            spec = names()["emt"]
        elif len(elements) == 1 and (element := next(iter(elements))) in RARE_GASES:
            sigma, epsilon = RARE_GASES[element]
            spec = names()["lj"].replace(
                name=f"lj-{element}", kwargs={"sigma": sigma, "epsilon": epsilon, "rc": 3 * sigma}
            )
        else:
            left_out.append(path.name if path else atoms.get_chemical_formula())
            continue
        task = {"atoms": atoms if path is None else str(path), "cell": bool(atoms.pbc.all()), "fmax": 0.01}
        groups.setdefault(spec, []).append(task)
    return groups, left_out


@contextlib.contextmanager
def _workers(count: int | None) -> Iterator[Client]:
    """Workers on this machine that all runs share."""
    from distributed import Client

    from mlipcluster.deploy.local import local_cluster

    with local_cluster(count or os.cpu_count() or 1) as cluster, Client(cluster, set_as_default=False) as client:
        yield client


def _relax(spec: CalculatorSpec, tasks: list[dict[str, Any]], output: Path, options: dict[str, Any]) -> Results:
    from mlipcluster.front import MLIPCluster
    from mlipcluster.protocols import relax

    return MLIPCluster(tasks, spec, seed=1, output_path=output, **options).distribute(relax)


def _labels(groups: Mapping[CalculatorSpec, Any]) -> str:
    names = ["EMT" if spec.name == "emt" else spec.name.removeprefix("lj-") for spec in groups]
    gases = ", ".join(name for name in names if name != "EMT")
    return " and ".join([*(["EMT"] if "EMT" in names else []), *([f"Lennard-Jones ({gases})"] if gases else [])])
