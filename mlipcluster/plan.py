"""The protocols of a run, checked and made ready to travel before anything is started."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import inspect
import numbers
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import cloudpickle
from ase import Atoms

from mlipcluster.errors import InputError, ProtocolError
from mlipcluster.execute import HANDED, Wishes
from mlipcluster.records.identity import digest
from mlipcluster.records.source import ProtocolSource, describe, user_modules
from mlipcluster.schedule import Step
from mlipcluster.transit import dumps

LARGE_PROTOCOL = 10_000_000
"""Bytes from which on a pickled protocol is remarked upon: it travels with every chunk."""


@dataclass(frozen=True)
class PlannedProtocol:
    """One protocol of the sequence.

    Attributes
    ----------
    function : callable
    source : ProtocolSource
        Its text and digest.
    pickled : bytes
        The function alone, cloudpickled, as it goes into records.
    blob : bytes
        Function and filter, cloudpickled, as they go to the workers.
    blob_digest : str
    step : Step
        How its calls are submitted.
    wishes : Wishes
        What its signature asks for.
    modules : tuple of module
        The user's own, which travel by value.
    keep : str
        Digest of the filter of its outputs, where there is one.
    """

    function: Callable[..., Any]
    source: ProtocolSource
    pickled: bytes
    blob: bytes
    blob_digest: str
    step: Step
    wishes: Wishes
    modules: tuple[ModuleType, ...] = ()
    keep: str = ""

    @property
    def digest(self) -> str:
        """What decides its outputs: its source and their filter."""
        return digest([self.source.digest, self.keep]) if self.keep else self.source.digest

    @property
    def wanted(self) -> frozenset[str]:
        """What it asks for beside its task's keyword arguments."""
        return self.wishes.handed

    @property
    def name(self) -> str:
        """``"module:function"``."""
        return f"{self.source.module}:{self.source.name}"

    @property
    def short_name(self) -> str:
        """The function's own name."""
        return self.source.name.rpartition(".")[2]


@dataclass(frozen=True)
class ProtocolOptions:
    """Options of `distribute`, one value for all protocols or a list with one for each.

    Attributes
    ----------
    retries : int or list of int
        How often a call that failed is tried again.
    resources : mapping or list of mapping
        What a call needs of a worker, as Dask knows it: ``{"GPU": 1}``.
    priorities : int or list of int
        As Dask knows them: higher goes first. Default: later protocols first.
    clients_indices : int or list of int
        Which of the ``clients`` a protocol is sent to.
    """

    retries: int | Sequence[int] = 0
    resources: Mapping[str, float] | Sequence[Mapping[str, float] | None] | None = None
    priorities: int | Sequence[int | None] | None = None
    clients_indices: int | Sequence[int] = 0


def plan_protocols(
    protocols: Iterable[Any], options: ProtocolOptions, keep: Callable[[Atoms], bool] | None, clients: int
) -> tuple[PlannedProtocol, ...]:
    """Check protocols and make them ready to travel.

    Raises
    ------
    ProtocolError
        One cannot be called or pickled.
    InputError
        An option has another type than it should, its list is not as long as the list of protocols, or it names a
        client that is not there.
    """
    functions = list(_flattened(protocols))
    if not functions:
        raise ProtocolError("no protocol was given; give a function such as mlipcluster.protocols.relax.")
    retries = _each("retries", options.retries, len(functions))
    resources = _each("resources", options.resources, len(functions))
    priorities = _each("priorities", options.priorities, len(functions))
    indices = _each("clients_indices", options.clients_indices, len(functions))
    planned = []
    for number, function in enumerate(functions):
        tries = _whole("retries", retries[number])
        if tries < 0:
            raise InputError(f"retries={tries}: give a whole number, 0 or more.")
        client = _whole("clients_indices", indices[number])
        if client not in range(clients):
            raise InputError(f"clients_indices={client}, but there are {clients} clients, counted from 0.")
        priority = None if priorities[number] is None else _whole("priorities", priorities[number])
        step = Step(tries, _resources(resources[number]), priority, client)
        planned.append(_plan(function, step, keep))
    return tuple(planned)


def check_keywords(protocols: Sequence[PlannedProtocol], kwargs: Mapping[str, Any]) -> None:
    """Hold a task's keyword arguments against what the protocols take.

    Raises
    ------
    ProtocolError
        No protocol takes one of them, or the first protocol lacks one that it needs.
    """
    if kwargs and not any(protocol.wishes.anything for protocol in protocols):
        known = frozenset[str]().union(*(protocol.wishes.names for protocol in protocols))
        for name in sorted(set(kwargs) - known):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"they take {', '.join(sorted(known))}."
            raise ProtocolError(f"no protocol takes the keyword argument {name!r}; {hint}")
    first = protocols[0]
    missing = first.wishes.required - set(kwargs) - set(HANDED)
    if first.wishes.takes_atoms(kwargs):
        missing -= {first.wishes.first}
    if missing:
        raise ProtocolError(
            f"protocol {first.short_name!r} needs {', '.join(map(repr, sorted(missing)))}; its task does not bring it. "
            'Give it as a keyword argument of the task: {"atoms": …, "' + min(missing) + '": …}.'
        )


@contextlib.contextmanager
def by_value(modules: Iterable[Any]) -> Iterator[None]:
    """Let cloudpickle take these modules' functions whole: workers need not be able to import them."""
    known = cloudpickle.list_registry_pickle_by_value()
    fresh = list({module.__name__: module for module in modules if module.__name__ not in known}.values())
    for module in fresh:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in fresh:
            cloudpickle.unregister_pickle_by_value(module)


def _flattened(protocols: Iterable[Any]) -> Iterator[Any]:
    for protocol in protocols:
        if isinstance(protocol, (list, tuple)):
            yield from protocol
        else:
            yield protocol


def _each(name: str, value: Any, count: int) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        return [value] * count
    if len(value) != count:
        raise InputError(f"{name} has {len(value)} entries for {count} protocols; give one for each, or one for all.")
    return list(value)


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise InputError(f"{name}={value!r}: give a whole number for each protocol, or one for all.")
    return int(value)


def _resources(given: Any) -> dict[str, float]:
    is_mapping = isinstance(given, Mapping) and all(isinstance(name, str) for name in given)
    if given is not None and not (is_mapping and all(isinstance(v, numbers.Real) for v in given.values())):
        raise InputError(f"resources={given!r}: give names and amounts, such as {{'GPU': 1}}, or None.")
    return dict(given or {})


def _plan(function: Any, step: Step, keep: Callable[[Atoms], bool] | None) -> PlannedProtocol:
    name = getattr(function, "__name__", repr(function))
    if not callable(function) or inspect.isclass(function):
        raise ProtocolError(f"{name} is not a protocol; give a function: def protocol(atoms, **kwargs).")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ProtocolError(f"protocol {name!r} is asynchronous; give a plain function.")
    source = describe(function)
    modules = [*user_modules(function), *(user_modules(keep) if keep else [])]
    try:
        with by_value(modules):
            pickled = dumps(function)
            blob = dumps((function, keep))
    except Exception as error:
        raise ProtocolError(
            f"protocol {name!r} cannot be pickled: {type(error).__name__}: {error}. Make what it needs (files, locks, "
            "connections, calculators) inside it, or give it as a keyword argument of its tasks."
        ) from error
    if len(blob) > LARGE_PROTOCOL:
        warnings.warn(
            f"protocol {name!r} is {len(blob) / 1e6:.0f} MB pickled, which travels with every chunk of tasks; "
            "let it read what is large from a file.",
            stacklevel=2,
        )
    return PlannedProtocol(
        function=function,
        source=source,
        pickled=pickled,
        blob=blob,
        blob_digest=hashlib.sha256(blob).hexdigest(),
        step=step,
        wishes=Wishes.of(function),
        modules=tuple(modules),
        keep=describe(keep).digest if keep else "",
    )
