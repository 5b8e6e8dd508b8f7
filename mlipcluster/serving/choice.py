"""Served or not: the same calculator from a server, or in a process of one's own."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlipcluster.calculators.registry import resolve
from mlipcluster.calculators.socket_calculator import SocketCalculator
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.calculators.wire_calculator import WireCalculator
from mlipcluster.errors import CallTimeoutError, InputError, ServerGoneError
from mlipcluster.serving.remote_calculator import RemoteCalculator
from mlipcluster.settings.values import setting

if TYPE_CHECKING:
    from distributed.security import Security

#: What makes a calculator another one under the same name.
ITS_OWN = ("factory", "args", "kwargs")
ENDING = "give use_serve=False, or MLIPCLUSTER_USE_SERVE=false, to have it here without this word"


def get_calculator(
    calculator: str | Mapping[str, Any] | CalculatorSpec,
    use_serve: bool | None = None,
    *,
    address: str | None = None,
    security: str | Path | Security | None = None,
    **overrides: Any,
) -> WireCalculator:
    """A calculator for ``atoms.calc``: served where a server has it, in a process of its own otherwise.

    Parameters
    ----------
    calculator : str, mapping or CalculatorSpec
        Its name, or what else `SocketCalculator` takes.
    use_serve : bool, optional
        True: served, or an error. False: in a process of its own. Default: what ``MLIPCLUSTER_USE_SERVE``, or
        ``use_serve`` of the settings, says (true, false); where neither does, served if a server has it, otherwise
        here, with a warning.
    address, security : optional
        Of the server, and credentials for it; see `RemoteCalculator`.
    **overrides
        For a process of its own, as `SocketCalculator` takes them; ``tables=`` is ``serve.calculators`` of the settings
        where nothing is said. A server has its own ideas of the rest, but for `ITS_OWN`: with these it is not asked.

    Raises
    ------
    InputError
        It is to be served, and the server does not have it, or arguments are told; or nobody knows the name.
    ServerGoneError
        It is to be served, and no server answers.
    CallTimeoutError
        It is to be served, and the server does not answer in time.
    """
    wanted = setting("use_serve", use_serve).value
    overrides = {"tables": setting("serve.calculators").value, **overrides}
    if wanted is False:
        return SocketCalculator(calculator, **overrides)
    name = _name(calculator, overrides["tables"])
    served = RemoteCalculator(name, address, security=security)
    try:
        _check_its_own(name, calculator, overrides)
        served.meet()
    except (ServerGoneError, CallTimeoutError, InputError) as error:
        if wanted:
            raise
        local = SocketCalculator(calculator, **overrides)
        warnings.warn(f"calculator {name!r} is not served ({error}), so it runs here; {ENDING}", stacklevel=2)
        return local
    return served


def _name(calculator: str | Mapping[str, Any] | CalculatorSpec, tables: Sequence[str]) -> str:
    if isinstance(calculator, str):
        return calculator
    spec = resolve(calculator, tables=tables)
    return spec.name or spec.factory


def _check_its_own(
    name: str, calculator: str | Mapping[str, Any] | CalculatorSpec, overrides: Mapping[str, Any]
) -> None:
    """See that a server's calculator of that name can be the one that is meant: it takes no arguments from here.

    Raises
    ------
    InputError
        It is another one than what the name means here.
    """
    told = [field for field in ITS_OWN if field in overrides]
    if not told and not isinstance(calculator, str):
        where = {key: overrides[key] for key in ("root", "cluster", "tables") if key in overrides}
        with contextlib.suppress(InputError):  # the server alone knows that name
            meant, usual = resolve(calculator, **where), resolve(name, **where)
            told = [field for field in ITS_OWN if getattr(meant, field) != getattr(usual, field)]
    if told:
        raise InputError(
            f"its {' and '.join(told)} are told here, and a server has its own for that name; have it served under"
            " another: `mlipcluster serve --calculators FILE.py:NAME`"
        )
