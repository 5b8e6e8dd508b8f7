"""The page of an `Audit`, as plain text that a reviewer can read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlipcluster.errors import MLIPClusterError
from mlipcluster.records.packing import decode
from mlipcluster.reproduction.comparison import Quantity

if TYPE_CHECKING:
    from mlipcluster.reproduction.audit import Audit

WIDTH = 14  # of the left column


def page(audit: Audit) -> str:
    """The whole page; its first line is the headline."""
    original = audit.original
    blocks = [
        audit.headline,
        _block(original.name, what(original.record, original.path)),
        _block("Recorded", circumstances(original.record)),
        _block("Made again", circumstances(audit.new.record) if audit.new else [("result", "no such output")]),
        "\n".join(["Compared", *_table(audit.quantities)]),
    ]
    if audit.differences:
        lines = [f"  {line}" for difference in audit.differences for line in str(difference).splitlines()]
        blocks.append("\n".join(["Not as recorded", *lines]))
    if audit.notes:
        blocks.append("\n".join(["Notes", *(f"  {note}" for note in audit.notes)]))
    return "\n\n".join(blocks) + "\n"


def what(record: Mapping[str, Any], path: Path | None) -> list[tuple[str, str]]:
    """Rows that say what was run: (name, value)."""
    instance = record["instance"]
    calculator = instance["calculators"].get(instance["calculator"]) or {}
    return [
        ("file", str(path) if path else "a line of the scorefile"),
        ("structure", str(instance["tasks"]["source"])),
        ("parameters", _parameters(instance["tasks"]["kwargs"])),
        ("protocols", ", ".join(instance["protocols"])),
        ("calculator", f"{instance['calculator']} {_call(calculator)}".strip() or "none"),
        ("seeds", f"{', '.join(map(str, instance['seeds']))} (root seed {instance['seed']})"),
        ("place", f"replicate {instance['replicate']}, output {', '.join(map(str, instance['output_ids']))}"),
        ("record", f"schema {record['schema']}, SHA-256 {record.get('digest', '')}"),
    ]


def circumstances(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows that say by whom, when, where, and with which code, environment and weights."""
    instance, metadata = record["instance"], record["metadata"]
    machine, environment, times = metadata["machine"], metadata["environment"], metadata["times"]
    seconds = " + ".join(f"{s:.3g}" for s in times["seconds"])
    place = " ".join(str(machine.get(part) or "") for part in ("system", "kernel", "libc"))
    rows = [
        ("by", " ".join(filter(None, (instance.get("author"), instance.get("email")))) or "not said"),
        ("project", ", ".join(filter(None, (instance.get("project_name"), instance.get("simulation_name"))))),
        ("license", str(instance.get("license") or "")),
        ("when", f"{times['started']}, {seconds} s"),
        ("where", f"{machine.get('hostname', 'unknown')}: {machine.get('cpu', '')}, {place}"),
        ("code", _commit(metadata.get("git"))),
        *(("", f"{p['module']}:{p['name']}, SHA-256 {p['digest']}") for p in metadata["protocols"]),
        ("mlipcluster", str(instance.get("version") or "")),
        ("environment", _environment(environment)),
    ]
    for name, facts in metadata["calculators"].items():
        rows.append(("calculator", f"{name} {_environment(facts.get('environment') or {})}".strip()))
        for kind in ("code", "weights"):
            files = (facts.get("provenance") or {}).get(kind) or ()
            rows += [(kind, f"{file['path']}, {file['size']} bytes, SHA-256 {file['sha256']}") for file in files]
    result = metadata.get("result") or {}
    return [row for row in [*rows, ("result", f"SHA-256 {result.get('digest', '')}")] if row[1]]


def _commit(git: Mapping[str, Any] | None) -> str:
    if not git:
        return "protocols are in no git repository"
    remote = f" of {git['remote']}" if git.get("remote") else ""
    return f"git commit {git['sha1']}{remote}{', with uncommitted changes' if git.get('dirty') else ''}"


def _environment(environment: Mapping[str, Any]) -> str:
    if not environment:
        return "not measured"
    return (
        f"Python {environment.get('python')} ({environment.get('manager')}), {len(environment.get('packages') or ())} "
        f"packages, SHA-256 {environment.get('digest', '')}"
    )


def _call(spec: Mapping[str, Any]) -> str:
    if not spec:
        return ""
    arguments = [repr(value) for value in spec.get("args") or ()]
    arguments += [f"{key}={value!r}" for key, value in (spec.get("kwargs") or {}).items()]
    return f"{spec['factory']}({', '.join(arguments)})" + (f" on {spec['device']}" if spec.get("device") else "")


def _parameters(packed: Any) -> str:
    try:
        return ", ".join(f"{key}={_short(value)}" for key, value in decode(packed).items()) or "none"
    except MLIPClusterError:
        return "hold a pickle, which is not loaded here"


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:79] + "…"


def _block(title: str, rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join([title, *(f"  {left:<{WIDTH}}{right}".rstrip() for left, right in rows)])


def _table(quantities: Sequence[Quantity]) -> Iterator[str]:
    header = ("quantity", "verdict", "largest difference", "tolerance", "float64 steps")
    rows = [header, *map(_row, quantities)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    for row, quantity in zip(rows, [None, *quantities], strict=True):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        note = quantity.note if quantity else ""
        yield f"  {line}  {note}".rstrip()


def _row(quantity: Quantity) -> tuple[str, str, str, str, str]:
    unit = quantity.tolerance.unit if quantity.tolerance else ""
    difference = "" if quantity.difference is None else f"{quantity.difference:.3g} {unit}".strip()
    tolerance = f"{quantity.tolerance.value:g}" if quantity.tolerance else "equal"
    return quantity.name, quantity.verdict, difference, tolerance, "" if quantity.ulps is None else str(quantity.ulps)
