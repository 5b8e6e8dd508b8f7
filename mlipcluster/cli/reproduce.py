"""``mlipcluster reproduce``: one output again, and the verdict."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlipcluster.cli.console import Debug, command, pairs, usage_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FIND, _JUDGE = "What to make again", "How to judge"


@command
def reproduce(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="An output of a run, in any format and compression.", show_default=False),
    ] = None,
    *,
    scorefile: Annotated[
        Path | None, typer.Option(help="Instead of FILE: a run's ledger, or its folder.", rich_help_panel=_FIND)
    ] = None,
    output_name: Annotated[
        str | None, typer.Option(help="Which output of the scorefile.", rich_help_panel=_FIND)
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="Protocol to use, file.py:function or ready-made; several in order. [default: as recorded]",
            rich_help_panel=_FIND,
        ),
    ] = None,
    calculator: Annotated[
        list[str] | None,
        typer.Option(
            "--calculator",
            "-c",
            help="Calculator to use, short name or module:callable; several as in the run. [default: as recorded, "
            "if it has a short name]",
            rich_help_panel=_FIND,
        ),
    ] = None,
    calculator_param: Annotated[
        list[str] | None,
        typer.Option(
            "--calculator-param",
            "-k",
            metavar="KEY=VALUE",
            help="Argument of that --calculator.",
            rich_help_panel=_FIND,
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Device of that --calculator.", rich_help_panel=_FIND)] = None,
    python: Annotated[
        list[str] | None,
        typer.Option(
            help="Where the calculator's interpreter or environment is now; of one of several: NAME=PATH.",
            rich_help_panel=_FIND,
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Root of environments that the calculator is in now.", rich_help_panel=_FIND),
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Or the name of a cluster that has one.", rich_help_panel=_FIND)
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Run whatever FILE asks for, its calculators and pickles too: that can be any code.",
            rich_help_panel=_FIND,
        ),
    ] = False,
    lenient: Annotated[
        bool,
        typer.Option(
            "--lenient", help="Run also when things are not as recorded, and report them.", rich_help_panel=_JUDGE
        ),
    ] = False,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="Another tolerance, e.g. forces=1e-3 (eV/Å).", rich_help_panel=_JUDGE),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Keep the new output in this run folder.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the reviewer's page to this file.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Print the whole page, not only the verdict.")] = False,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-O", metavar="KEY=VALUE", help="Any other option of MLIPCluster."),
    ] = None,
    debug: Debug = False,  # noqa: ARG001 - read by the decorator
) -> None:
    """Make one output again, in the same way, and say whether it came out the same.

    Exit status: 0 identical (bit for bit), 3 within tolerance, 4 different, 5 not run because something is not as
    recorded, 6 the file is damaged, 1 another error, 2 a wrong command line.
    """
    if (file is None) == (scorefile is None) or (scorefile is not None and output_name is None):
        raise usage_error("give an output FILE, or --scorefile with --output-name.")
    from mlipcluster.cli.run import calculators, load_protocol
    from mlipcluster.reproduction.rerun import reproduce as make_again

    sys.path.append(str(Path.cwd()))  # where `python -m mlipcluster` looks for the protocols' modules
    options = pairs("--option", option or ())
    if output is not None:
        options["output_path"] = output
    where = {"root": root, "cluster": cluster}
    if calculator:
        params = pairs("--calculator-param", calculator_param or ())
        options |= calculators(calculator, params, python or (), device, **where)
    elif calculator_param or device:
        raise usage_error("--calculator-param and --device are a --calculator's; give that too.")
    elif python:
        options["calculators"] = _moved(_record(file, scorefile, output_name), python, trust)
    options |= {name: value for name, value in where.items() if value is not None}
    audit = make_again(
        file,
        scorefile=scorefile,
        output_name=output_name,
        protocols=[load_protocol(name) for name in protocol] if protocol else None,
        instance_kwargs=options,
        tolerances=_numbers(tolerance or ()),
        strict=not lenient,
        trust=trust,
    )
    if report is not None:
        report.write_text(audit.text(), encoding="utf-8")
    print(audit.text() if full or audit.exit_status or audit.differences else audit.headline)
    raise typer.Exit(audit.exit_status)


def _record(file: Path | None, scorefile: Path | None, output_name: str | None) -> Mapping[str, Any]:
    from mlipcluster.reproduction.original import load

    return load(file, scorefile, output_name)[0].record


def _moved(record: Mapping[str, Any], pythons: Sequence[str], trust: bool) -> dict[str, Any]:
    """The recorded calculators, in the interpreters where they are now; which they are is still the record's word."""
    from mlipcluster.reproduction.attempt import recorded_calculators
    from mlipcluster.reproduction.permission import check_factory

    specs = recorded_calculators(record)
    moved = {}
    for given in pythons:
        name, equals, path = given.partition("=")
        name, path = (name, path) if equals else (record["instance"]["calculator"], given)
        if name not in specs:
            raise usage_error(f"--python {given!r}: the record has no calculator {name!r}; it has {', '.join(specs)}.")
        if not trust:
            check_factory(name, specs[name])
        moved[name] = specs[name].replace(python=path)
    return moved


def _numbers(given: Sequence[str]) -> dict[str, float]:
    found = pairs("--tolerance", given)
    for name, value in found.items():
        number = math.inf if value in ("inf", math.inf) else value
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise usage_error(f"--tolerance {name}={value}: give a number, or inf.")
        found[name] = float(number)
    return found
