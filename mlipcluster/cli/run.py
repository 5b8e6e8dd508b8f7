"""``mlipcluster run``: protocols on structure files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlipcluster.cli.console import FAILED, Debug, command, pairs, usage_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlipcluster.outputs.results import Results

_CALCULATOR, _SAVING, _COMPUTE, _FAULTS = "Calculator", "Outputs", "Compute", "Faults"
_ELSEWHERE = {  # what --option cannot say
    "tasks": "FILES and --param",
    "calculator": "--calculator",
    "calculators": "--calculator",
    "nstruct": "--nstruct",
    "seed": "--seed",
    "root": "--root",
    "cluster": "--cluster",
    "output_path": "--output",
}


@command
def run(
    protocol: Annotated[
        str,
        typer.Argument(
            metavar="PROTOCOL", help="A ready-made protocol (relax, single_point, md, eos), or file.py:function."
        ),
    ],
    files: Annotated[
        list[str], typer.Argument(metavar="FILES", help="Structure files: whatever ASE reads; each frame is a task.")
    ],
    *,
    calculator: Annotated[
        list[str] | None,
        typer.Option(
            "--calculator",
            "-c",
            help="Model string of the root, short name or module:callable; several: each task with each.",
            rich_help_panel=_CALCULATOR,
        ),
    ] = None,
    calculator_param: Annotated[
        list[str] | None,
        typer.Option(
            "--calculator-param",
            "-k",
            metavar="KEY=VALUE",
            help="Argument of the calculator.",
            rich_help_panel=_CALCULATOR,
        ),
    ] = None,
    python: Annotated[
        list[str] | None,
        typer.Option(
            help="Interpreter or environment of the calculator; of one of several: NAME=PATH.",
            rich_help_panel=_CALCULATOR,
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Device of the calculator: cpu, cuda, …", rich_help_panel=_CALCULATOR)
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Root of environments that the --calculator is of.", rich_help_panel=_CALCULATOR),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Where the workers run, the root, or both: a cluster of the settings files, or a scheduler's address.",
            rich_help_panel=_COMPUTE,
        ),
    ] = None,
    then: Annotated[
        list[str] | None, typer.Option(help="Next protocol, on each output of the one before; several in order.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param", "-p", metavar="KEY=VALUE", help="Keyword argument of the protocols; the value may be JSON."
        ),
    ] = None,
    nstruct: Annotated[int, typer.Option(min=1, help="Repeats of each task.")] = 1,
    seed: Annotated[int | None, typer.Option(min=0, help="Root seed; drawn and recorded when not given.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Run folder.", rich_help_panel=_SAVING)] = Path(
        "mlipcluster-run"
    ),
    output_format: Annotated[
        list[str] | None,
        typer.Option("--format", help="extxyz, json; may be given twice. [default: extxyz]", rich_help_panel=_SAVING),
    ] = None,
    compress: Annotated[str, typer.Option(help="gz, bz2 or xz.", rich_help_panel=_SAVING)] = "",
    save_all: Annotated[
        bool, typer.Option("--save-all", help="Keep the outputs of every protocol.", rich_help_panel=_SAVING)
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--max-workers",
            "--workers",
            "-j",
            min=1,
            help="Workers at most. [default: the cluster's; on this machine one a core]",
            rich_help_panel=_COMPUTE,
        ),
    ] = None,
    retries: Annotated[
        int, typer.Option(min=0, help="How often a failed call is tried again.", rich_help_panel=_FAULTS)
    ] = 0,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds that a protocol call may take.", rich_help_panel=_FAULTS)
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Do again what failed in an earlier run of this folder.", rich_help_panel=_FAULTS
        ),
    ] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first failure.", rich_help_panel=_FAULTS)
    ] = False,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "-O",
            metavar="KEY=VALUE",
            help="Any other option of MLIPCluster, e.g. author=Ada.",
            rich_help_panel="Other",
        ),
    ] = None,
    no_progress: Annotated[
        bool, typer.Option("--no-progress", help="Show no progress.", rich_help_panel="Other")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check and count.", rich_help_panel="Other")] = False,
    debug: Debug = False,  # noqa: ARG001 - read by the decorator
) -> None:
    """Run PROTOCOL on each structure in FILES.

    Run the same command again to go on where it stopped. The exit status is 0 when every task gave its outputs and
    1 when any failed; failures are in the run folder, each with its traceback and input.
    """
    from mlipcluster.cli.tables import summary
    from mlipcluster.clusters import Clusters
    from mlipcluster.front import MLIPCluster

    kwargs = pairs("--param", param or ())
    options = pairs("--option", option or ())
    for name in _ELSEWHERE.keys() & options:
        raise usage_error(f"--option {name}={options[name]}: say it with {_ELSEWHERE[name]}.")
    whole = MLIPCluster(
        tasks=_tasks(files, kwargs),
        **calculators(
            calculator or (),
            pairs("--calculator-param", calculator_param or ()),
            python or (),
            device,
            **Clusters(cluster).where(root),
        ),
        cluster=cluster,
        nstruct=nstruct,
        seed=seed,
        **{
            "output_path": output,
            "output_types": tuple(output_format or ("extxyz",)),
            "compression": compress,
            "save_all": save_all,
            "max_workers": workers,
            "timeout": timeout,
            "retry_failed": retry_failed,
            "ignore_errors": not fail_fast,
            "progress": not no_progress,
            "dry_run": dry_run,
            **options,
        },
    )
    results: Results = whole.distribute(*(load_protocol(name) for name in (protocol, *(then or ()))), retries=retries)
    summary(results, output)
    if results.failures:
        raise typer.Exit(FAILED)


def load_protocol(name: str) -> Callable[..., Any]:
    """A ready-made protocol, or the function of ``file.py:function``."""
    import mlipcluster.protocols as ready_made
    from mlipcluster.errors import ProtocolError
    from mlipcluster.reproduction.protocols import load_file

    file, colon, function = name.rpartition(":")
    if not colon:
        if name in ready_made.__all__:
            return getattr(ready_made, name)  # type: ignore[no-any-return]
        raise usage_error(
            f"no protocol is called {name!r}; ready-made: {', '.join(ready_made.__all__)}; or file.py:function."
        )
    module = load_file(file)
    found = getattr(module, function, None)
    if not callable(found):
        here = [key for key, value in vars(module).items() if callable(value) and value.__module__ == module.__name__]
        raise ProtocolError(f"{file} has no function {function!r}; it has {', '.join(here) or 'none'}.")
    return found  # type: ignore[no-any-return]


def _tasks(files: Sequence[str], kwargs: dict[str, Any]) -> Any:
    """File names as tasks, with the keyword arguments if there are any; a name that is not there is told at once."""
    from glob import has_magic

    for name in files:
        if not Path(name).expanduser().exists() and not has_magic(name):
            raise usage_error(f"there is no file {name!r}.")
    return [{"atoms": name, **kwargs} for name in files]


def calculators(
    given: Sequence[str], params: dict[str, Any], pythons: Sequence[str], device: str | None, **where: Any
) -> dict[str, Any]:
    """The calculators of a command line as `MLIPCluster` takes them: one, or several by name.

    *where* is ``root`` and ``cluster``, as `resolve` takes them.
    """
    from mlipcluster.calculators.registry import resolve

    if not given and (params or pythons or device is not None):
        raise usage_error("--calculator-param, --python and --device are a --calculator's; give that too.")
    by_name = dict(item.split("=", 1) for item in pythons if "=" in item)
    for_all = next((item for item in pythons if "=" not in item), None)
    specs = {}
    for name in given:
        spec = resolve(name, **where)
        python = by_name.pop(name, for_all)
        changes = {key: value for key, value in (("python", python), ("device", device)) if value is not None}
        specs[name if len(given) > 1 else ""] = spec.replace(kwargs={**spec.kwargs, **params}, **changes)
    if by_name:
        raise usage_error(f"--python names {', '.join(by_name)}, which is no --calculator here.")
    return {"calculator": specs[""]} if "" in specs else {"calculators": specs or None}
