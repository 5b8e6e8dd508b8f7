"""``mlipcluster serve``, ``worker`` and ``status``: calculators for whatever else speaks ASE."""

from __future__ import annotations

import json
import logging
import signal
import time
from typing import Annotated, Any

import typer

from mlipcluster.cli.console import Debug, command, say, usage_error

Names = Annotated[list[str] | None, typer.Argument(metavar="[NAMES]...", help="These alone. Default: all known.")]
Tables = Annotated[
    list[str] | None,
    typer.Option("--calculators", metavar="FILE.py:NAME", help="A table of yours; again."),
]
Root = Annotated[str | None, typer.Option("--root", help="Root of environments.")]
Address = Annotated[str | None, typer.Option("--address", metavar="PATH", help="Unix socket of the server, or tls://…")]
Socket = Annotated[str | None, typer.Option("--address", metavar="PATH", help="Unix socket of the server.")]
Tls = Annotated[str | None, typer.Option("--tls", metavar="DIR", help="Credentials that `tls new` made.")]
Idle = Annotated[float | None, typer.Option("--idle-timeout", metavar="S", help="Seconds without work, then it ends.")]
WATCH_SECONDS = 1.0


@command
def serve(
    names: Names = None,
    *,
    tables: Tables = None,
    root: Root = None,
    cluster: Annotated[
        str | None, typer.Option("--cluster", metavar="NAME", help="Whose workers host them; local: this machine.")
    ] = None,
    max_workers: Annotated[
        int | None, typer.Option("--max-workers", metavar="N", help="At most, all together.")
    ] = None,
    idle_timeout: Idle = None,
    start_timeout: Annotated[
        float | None, typer.Option("--start-timeout", metavar="S", help="Seconds until a start is given up.")
    ] = None,
    address: Socket = None,
    listen: Annotated[
        str | None, typer.Option("--listen", metavar="tls://HOST:PORT", help="For other machines, too; with --tls.")
    ] = None,
    tls: Tls = None,
    folder: Annotated[
        str | None, typer.Option("--folder", help="For logs and jobs, with --cluster. Default: mlipcluster-serve.")
    ] = None,
    ipi: Annotated[
        str | None,
        typer.Option("--ipi", metavar="TARGET", help="Instead be client of an i-PI server, unix:NAME or HOST:PORT."),
    ] = None,
    structure: Annotated[
        str | None,
        typer.Option("--structure", metavar="FILE", help="With --ipi: the structure, which i-PI does not send."),
    ] = None,
    no_stress: Annotated[bool, typer.Option("--no-stress", help="With --ipi: send no stress.")] = False,
    debug: Debug = False,  # noqa: ARG001 - read by the decorator
) -> None:
    """Serve calculators: a worker starts with the first request for it, and ends when nobody has asked for a while."""
    from mlipcluster.serving.serve import Asked
    from mlipcluster.serving.serve import serve as run

    _log()
    if ipi is not None:
        without = {"--max-workers": max_workers, "--idle-timeout": idle_timeout, "--address": address}
        without |= {"--listen": listen, "--tls": tls, "--folder": folder}
        if given := [option for option, value in without.items() if value is not None]:
            raise usage_error(f"--ipi serves no other clients, so {', '.join(given)} means nothing with it")
        where = {"root": root, "cluster": cluster, "tables": tables}
        _serve_ipi(names, ipi, structure, where, timeout=start_timeout, stress=not no_stress)
        return
    asked = Asked(
        names=names or (),
        tables=tables or (),
        root=root,
        cluster=cluster,
        address=address,
        listen=listen,
        tls=tls,
        folder=folder,
        max_workers=max_workers,
        idle_timeout=idle_timeout,
        start_timeout=start_timeout,
    )
    run(asked, say)


def _serve_ipi(
    names: list[str] | None, target: str, structure: str | None, where: dict[str, Any], **options: Any
) -> None:
    from mlipcluster.serving.ipi import serve_ipi

    if not names or len(names) != 1:
        raise usage_error("--ipi takes one calculator: mlipcluster serve NAME --ipi unix:NAME --structure FILE")
    if structure is None:
        raise usage_error("--ipi needs --structure FILE, for i-PI does not say of which elements the atoms are")
    said = {key: value for key, value in {**where, **options}.items() if value is not None}
    serve_ipi(names[0], target, structure, **said)


@command
def worker(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A known calculator, or module:factory.")],
    *,
    args: Annotated[
        str | None, typer.Option("--args", metavar="JSON", help="Arguments of the factory: a list.")
    ] = None,
    kwargs: Annotated[
        str | None, typer.Option("--kwargs", metavar="JSON", help="Named arguments of the factory: an object.")
    ] = None,
    served_as: Annotated[str | None, typer.Option("--name", help="Under which it is served. Default: NAME.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, …; auto: what is there.")] = None,
    python: Annotated[str | None, typer.Option("--python", help="Interpreter, or environment, to run it in.")] = None,
    tables: Tables = None,
    root: Root = None,
    address: Socket = None,
    idle_timeout: Idle = None,
    debug: Debug = False,  # noqa: ARG001 - read by the decorator
) -> None:
    """Start a worker for a calculator and join it to the server; several may have one name."""
    from mlipcluster.serving.join import Joiner, spec_of

    _log()
    changes: dict[str, Any] = {"device": device, "python": python}
    changes |= {"args": _json("--args", args, list), "kwargs": _json("--kwargs", kwargs, dict)}
    spec = spec_of(name, tables or (), root, {key: value for key, value in changes.items() if value is not None})
    joiner = Joiner(spec, served_as or name, address, idle_timeout)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: joiner.leave())
    joiner.run()


def _json(option: str, text: str | None, kind: type) -> Any:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise usage_error(f"{option} {text!r:.80} is no JSON: {error}") from None
    if not isinstance(value, kind):
        raise usage_error(f"{option} {text!r:.80}: give a JSON {'list' if kind is list else 'object'}")
    return value


@command
def status(
    *,
    address: Address = None,
    tls: Tls = None,
    watch: Annotated[bool, typer.Option("--watch", help="Again every second, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: Debug = False,  # noqa: ARG001 - read by the decorator
) -> None:
    """Show what a server runs: workers idle and busy, requests that wait, calls, mean time, memory, devices."""
    from mlipcluster.cli.serving_tables import show_status, watched
    from mlipcluster.serving.asking import ask

    if as_json:
        print(json.dumps(ask("status", address, tls), indent=2))
    elif not watch:
        show_status(ask("status", address, tls))
    else:
        with watched() as show:
            while True:
                show(ask("status", address, tls))
                time.sleep(WATCH_SECONDS)


def _log() -> None:
    """Say on stderr what a server or worker does."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log = logging.getLogger("mlipcluster")
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    log.propagate = False
