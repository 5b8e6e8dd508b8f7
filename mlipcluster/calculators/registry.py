"""Names of calculators: model strings of a shared root, and short names from tables, packages and ourselves."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlipcluster.calculators.known import SOURCES, Known, by_name, known
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.errors import InputError
from mlipcluster.store.sites import PathLike, known_root


def names() -> dict[str, CalculatorSpec]:
    """Every short name that is known without a table or a root, and its spec."""
    found: dict[str, CalculatorSpec] = {}
    for source in SOURCES.values():
        for one in source(lambda _: None):
            if one.spec is not None:
                found.setdefault(one.name, one.spec)
    return found


def resolve(
    calculator: str | Mapping[str, Any] | CalculatorSpec,
    *,
    root: PathLike | None = None,
    cluster: str | None = None,
    tables: Sequence[str] = (),
    **overrides: Any,
) -> CalculatorSpec:
    """The spec of a calculator.

    Parameters
    ----------
    calculator : str, mapping or CalculatorSpec
        A model string (``"mace-medium"``), where there is a root; a short name (``"emt"``); ``"module:callable"``; the
        fields of a spec; or a spec. A mapping may give ``"calculator"``, a name, in place of ``"factory"``, and
        ``"root"`` or ``"cluster"`` with it.
    root, cluster : path or str, optional
        A root of environments, or the name of a cluster that has one (`mlipcluster.store.sites`). Its model
        strings come before short names; by default those of the root that ``MLIPCLUSTER_ROOT`` or a file names.
    tables : sequence of str
        Tables of calculators, ``FILE.py:NAME`` or ``package.module:NAME``; their names come first.
    **overrides
        Fields of the spec to change.

    Raises
    ------
    InputError
        The name is not known, its environment is not built, or a field cannot be used.
    """
    if isinstance(calculator, CalculatorSpec):
        return calculator.replace(**overrides) if overrides else calculator
    if isinstance(calculator, Mapping):
        stated = {**calculator, **overrides}
        if "calculator" in stated and "factory" not in stated:
            return resolve(stated.pop("calculator"), **{"root": root, "cluster": cluster, "tables": tables, **stated})
        return CalculatorSpec.from_json(stated)
    if not isinstance(calculator, str):
        raise InputError(
            f"{type(calculator).__name__} is not a calculator that can be started elsewhere; give a name"
            f" ({', '.join(sorted(names()))}), 'module:callable' or a CalculatorSpec"
        )
    found = _listed(calculator, tables)
    if found is None and ":" in calculator and "/" not in calculator:
        return CalculatorSpec.from_json({"factory": calculator, **overrides})
    place = known_root(root, cluster)
    if found is None and place is not None:
        found = _stored(calculator, place, root or cluster, cluster)
    found = found or by_name(calculator)
    if found is None:
        raise InputError(_unknown(calculator, place, tables))
    if found.spec is None:
        raise InputError(
            f"calculator {calculator!r} ({found.source}) is started by a command, which only a server does; run"
            f" `mlipcluster serve {calculator}` and ask for RemoteCalculator({calculator!r})"
        )
    return resolve(found.spec, **overrides)


def _listed(calculator: str, tables: Sequence[str]) -> Known | None:
    """The calculator that a table has under that name."""
    if not tables:
        return None
    from mlipcluster.calculators.tables import read_table

    if isinstance(tables, str):
        raise InputError(f"tables is {tables!r}; give a list")
    return next((one for table in tables for one in read_table(table) if one.name == calculator), None)


def _stored(model: str, place: Path, said: object, cluster: str | None) -> Known | None:
    from mlipcluster.calculators.known import Models

    return Models(place, said, cluster).find(model)


def _unknown(calculator: str, root: Path | None, tables: Sequence[str]) -> str:
    catalogue = known(root=root, tables=tables)
    short = sorted(one.name for one in catalogue.values() if not one.source.startswith("root "))
    close = difflib.get_close_matches(calculator, short, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    said = f"no calculator is called {calculator!r}; known: {', '.join(short)}, or give 'module:callable'"
    if root is None:
        said = f"{said}, or the root= (--root) whose environments serve it.{meant}"
    else:
        from mlipcluster.calculators.model_strings import unknown
        from mlipcluster.calculators.stored import serving
        from mlipcluster.store.store import Store

        said = f"{said}.{meant} In root {str(root)!r} {unknown(calculator, serving(Store(root)))}."
    return " ".join([said, *(f"Not looked at: {one}." for one in catalogue.complaints)])
