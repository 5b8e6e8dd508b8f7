"""Names of calculators: model strings of a shared root, and short names from a table of sources."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.errors import InputError
from mlipcluster.settings.values import settings
from mlipcluster.store.sites import PathLike, known_root

if TYPE_CHECKING:
    from mlipcluster.store.store import Store


def _built_in() -> dict[str, CalculatorSpec]:
    return {
        "emt": CalculatorSpec("ase.calculators.emt:EMT", name="emt"),
        "lj": CalculatorSpec("ase.calculators.lj:LennardJones", name="lj"),
        # Loading the model takes seconds; its calculator keeps nothing but the last results between calls.
        "chgnet": CalculatorSpec("chgnet.model.dynamics:CHGNetCalculator", state="reset", name="chgnet"),
    }


#: Where names come from; a later source may not take a name from an earlier one.
SOURCES: dict[str, Callable[[], Mapping[str, CalculatorSpec]]] = {"built in": _built_in}


def names() -> dict[str, CalculatorSpec]:
    """Every known short name and its spec."""
    known: dict[str, CalculatorSpec] = {}
    for source in SOURCES.values():
        for name, spec in source().items():
            known.setdefault(name, spec)
    return known


def resolve(
    calculator: str | Mapping[str, Any] | CalculatorSpec,
    *,
    root: PathLike | None = None,
    cluster: str | None = None,
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
            return resolve(stated.pop("calculator"), **{"root": root, "cluster": cluster, **stated})
        return CalculatorSpec.from_json(stated)
    if not isinstance(calculator, str):
        raise InputError(
            f"{type(calculator).__name__} is not a calculator that can be started elsewhere; give a name"
            f" ({', '.join(sorted(names()))}), 'module:callable' or a CalculatorSpec"
        )
    if ":" in calculator and "/" not in calculator:
        return CalculatorSpec.from_json({"factory": calculator, **overrides})
    place = known_root(root, cluster)
    found = _stored(calculator, _store(place, root or cluster), cluster) if place is not None else None
    if found is None:
        found = names().get(calculator)
    if found is None:
        raise InputError(_unknown(calculator, place))
    return resolve(found, **overrides)


def _store(place: Path, said: object) -> Store:
    """The root there; where a variable or a file named it, an error says which."""
    from mlipcluster.store.store import Store

    try:
        return Store(place)
    except InputError as error:
        if said:
            raise
        origin = settings()["root"].origin
        raise InputError(f"{error} ({origin} names it: correct that, or take it away to do without a root)") from error


def _stored(model: str, store: Store, cluster: str | None) -> CalculatorSpec | None:
    from mlipcluster.calculators.stored import find

    found = find(model, store, cluster)
    return None if found is None else found.spec


def _unknown(calculator: str, root: Path | None) -> str:
    known = names()
    close = difflib.get_close_matches(calculator, known, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    said = f"no calculator is called {calculator!r}; known: {', '.join(sorted(known))}, or give 'module:callable'"
    if root is None:
        return f"{said}, or the root= (--root) whose environments serve it.{meant}"
    from mlipcluster.calculators.model_strings import unknown
    from mlipcluster.calculators.stored import serving
    from mlipcluster.store.store import Store

    return f"{said}.{meant} In root {str(root)!r} {unknown(calculator, serving(Store(root)))}."
