"""Short names of calculators, from a table of sources."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.errors import InputError


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


def resolve(calculator: str | Mapping[str, Any] | CalculatorSpec, **overrides: Any) -> CalculatorSpec:
    """The spec of a calculator.

    Parameters
    ----------
    calculator : str, mapping or CalculatorSpec
        A short name (``"emt"``), ``"module:callable"``, the fields of a spec, or a spec. A mapping may give
        ``"calculator"``, a name, in place of ``"factory"``.
    **overrides
        Fields of the spec to change.

    Raises
    ------
    InputError
        The name is not known, or a field cannot be used.
    """
    if isinstance(calculator, CalculatorSpec):
        return calculator.replace(**overrides) if overrides else calculator
    if isinstance(calculator, Mapping):
        stated = {**calculator, **overrides}
        if "calculator" in stated and "factory" not in stated:
            return resolve(stated.pop("calculator"), **stated)
        return CalculatorSpec.from_json(stated)
    if not isinstance(calculator, str):
        raise InputError(
            f"{type(calculator).__name__} is not a calculator that can be started elsewhere; give a name"
            f" ({', '.join(sorted(names()))}), 'module:callable' or a CalculatorSpec"
        )
    if ":" in calculator:
        return CalculatorSpec.from_json({"factory": calculator, **overrides})
    known = names()
    if calculator not in known:
        close = difflib.get_close_matches(calculator, known, n=1)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        raise InputError(
            f"no calculator is called {calculator!r}; known: {', '.join(sorted(known))}, or give 'module:callable'."
            f"{meant}"
        )
    return resolve(known[calculator], **overrides)
