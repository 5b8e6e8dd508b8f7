"""Served or not: the same calculator from a server, or in a process of one's own."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from mlipcluster.calculators.registry import resolve
from mlipcluster.calculators.socket_calculator import SocketCalculator
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.calculators.wire_calculator import WireCalculator
from mlipcluster.errors import CallTimeoutError, InputError, ServerGoneError
from mlipcluster.serving.remote_calculator import RemoteCalculator
from mlipcluster.settings.values import setting

ENDING = "give use_serve=False, or MLIPCLUSTER_USE_SERVE=false, to have it here without this word"


def get_calculator(
    calculator: str | Mapping[str, Any] | CalculatorSpec,
    use_serve: bool | None = None,
    *,
    address: str | None = None,
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
    address : str, optional
        Of the server; see `RemoteCalculator`.
    **overrides
        For a process of its own, as `SocketCalculator` takes them; a server has its own ideas.

    Raises
    ------
    InputError
        It is to be served, and the server does not have it; or nobody knows the name.
    ServerGoneError
        It is to be served, and no server answers.
    CallTimeoutError
        It is to be served, and the server does not answer in time.
    """
    wanted = setting("use_serve", use_serve).value
    if wanted is False:
        return SocketCalculator(calculator, **overrides)
    name = _name(calculator)
    served = RemoteCalculator(name, address)
    try:
        served.meet()
    except (ServerGoneError, CallTimeoutError, InputError) as error:
        if wanted:
            raise
        local = SocketCalculator(resolve(calculator, **overrides))
        warnings.warn(f"calculator {name!r} is not served ({error}), so it runs here; {ENDING}", stacklevel=2)
        return local
    return served


def _name(calculator: str | Mapping[str, Any] | CalculatorSpec) -> str:
    if isinstance(calculator, str):
        return calculator
    spec = resolve(calculator)
    return spec.name or spec.factory
