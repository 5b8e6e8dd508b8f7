"""Ledger entries as tables. Pandas is imported here and only when a table is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlipcluster.errors import InputError
from mlipcluster.outputs.entries import Slot

if TYPE_CHECKING:
    import pandas as pd

Entry = Mapping[str, Any]
_USUAL = ("formula", "natoms", "energy", "max_force")
_FLOATS = ("energy", "max_force", "seconds")


def to_dataframe(entries: Sequence[Entry]) -> pd.DataFrame:
    """One row an entry; see `mlipcluster.outputs.results.Results.to_dataframe`."""
    import pandas as pd

    facts = [_facts(entry) for entry in entries]
    scores = [_scores(entry) for entry in entries]
    columns: dict[str, list[Any]] = {"name": [fact.pop("name") for fact in facts]}
    last = list(_facts({}))[1:]
    for name in (*_USUAL, *other_scores(entries)):
        label = name if name not in ("name", *last) else f"score {name}"
        columns[label] = [score.get(name) for score in scores]
    columns |= {name: [fact[name] for fact in facts] for name in last}
    frame = pd.DataFrame(columns)
    for name in _FLOATS:
        frame[name] = pd.to_numeric(frame[name], errors="coerce").astype(float)
    return frame


def _facts(entry: Entry) -> dict[str, Any]:
    """The columns that are no scores, in their order."""
    seeds = list(entry.get("seeds") or [])
    protocols = list(entry.get("protocols") or [])
    error = entry.get("error") or {}
    return {
        "name": entry.get("name"),
        "seconds": entry.get("seconds"),
        "seed": seeds[-1] if seeds else None,
        "seeds": seeds,
        "replicate": entry.get("replicate"),
        "calculator": entry.get("calculator"),
        "protocol": protocols[-1] if protocols else None,
        "source": entry.get("source"),
        "step": entry.get("step", Slot.parse(entry["slot"]).step if "slot" in entry else None),
        "output": (entry.get("output") or [None])[0],
        "status": entry.get("status"),
        "error": f"{error.get('type')}: {error.get('message')}" if error else None,
        "file": entry.get("file"),
        "identity": entry.get("identity"),
    }


def _scores(entry: Entry) -> Mapping[str, Any]:
    scores = entry.get("scores")
    return scores if isinstance(scores, Mapping) else {}


def other_scores(entries: Iterable[Entry]) -> list[str]:
    """Names of the scores beside the usual ones, as they first appear."""
    names: dict[str, None] = {}
    for entry in entries:
        names.update(dict.fromkeys(_scores(entry)))
    return [name for name in names if name not in _USUAL]


def compare(entries: Sequence[Entry], score: str) -> pd.DataFrame:
    """See `mlipcluster.outputs.results.Results.compare`."""
    import pandas as pd

    if not any(score in _scores(entry) for entry in entries):
        known = ", ".join([*_USUAL, *other_scores(entries)])
        raise InputError(f"no output has the score {score!r}; there are: {known}")
    frame = pd.DataFrame([_place(entry) | {score: _scores(entry).get(score)} for entry in entries])
    levels = ["source", *(name for name in ("replicate", "output") if len(set(frame[name])) > 1)]
    if frame.duplicated([*levels, "calculator"]).any():  # files of one name in several folders
        levels.insert(1, "task")
    calculators = list(dict.fromkeys(frame["calculator"]))
    rows = frame.drop_duplicates(levels)[levels]
    wide = frame.set_index([*levels, "calculator"])[score].unstack("calculator")  # noqa: PD010 - pivot_table would take means
    return wide.reindex(pd.Index(rows[levels[0]]) if len(levels) == 1 else pd.MultiIndex.from_frame(rows))[calculators]


def _place(entry: Entry) -> dict[str, Any]:
    """What tells an entry from those of the same source, and the calculator."""
    slot = Slot.parse(entry["slot"])
    index = (entry.get("output") or [0])[0]
    return {
        "source": entry.get("source"),
        "task": entry.get("task") or slot.key,
        "replicate": slot.replicate,
        "output": ".".join(map(str, (*slot.lineage, index))),
        "calculator": entry.get("calculator") or "",
    }
