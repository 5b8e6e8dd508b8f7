"""What the fields of a batch deployment may be, in one table."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mlipcluster.deploy.deployment import Range
from mlipcluster.errors import InputError


def check_fields(one: Any, names: Iterable[str]) -> None:
    """Refuse what cannot be meant by some of the fields in the table.

    Raises
    ------
    InputError
        Names the field, what it is, and what it has to be.
    """
    for name in names:
        value = getattr(one, name)
        test, wanted = FIELDS[name]
        if not test(value):
            raise InputError(f"{name}={value!r:.80} cannot be meant; give {wanted}.")


def check(batch: Any) -> None:
    """The same for all fields of a batch system, and for what goes wrong between them.

    Raises
    ------
    InputError
        As `check_fields`.
    """
    check_fields(batch, FIELDS)
    for test, text in TOGETHER:
        if test(batch):
            raise InputError(f"{type(batch).__name__}: {text.format(batch)}")


def check_lines(batch: Any, names: Sequence[str]) -> None:
    """The same for fields that one system alone has, each a line of text.

    Raises
    ------
    InputError
        As `check_fields`.
    """
    for name in names:
        value = getattr(batch, name)
        if value is not None and not _is_line(value):
            raise InputError(f"{name}={value!r:.80} cannot be meant; give one line of text.")


def plain(path: str | os.PathLike[str]) -> str:
    """A path that may stand between double quotes in a job script.

    Raises
    ------
    InputError
        It holds what batch systems would read as something else.
    """
    text = os.path.abspath(path)
    if found := re.search(r'["\\$`%\x00-\x1f\x7f]', text):
        raise InputError(
            f"the folder {text!r} cannot be named in a job script, because of {found.group()!r}; give another folder."
        )
    return text


def _is_count(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_seconds(least: float) -> Callable[[Any], bool]:
    def test(value: Any) -> bool:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and math.isfinite(value) and value >= least

    return test


def _or_none(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or test(value)


def _is_line(value: Any) -> bool:
    """Text that can neither end its line in a script nor be empty."""
    return isinstance(value, str) and bool(value.strip()) and not re.search(r"[\x00-\x1f\x7f]", value)


def _are_lines(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_is_line, value))


def _is_memory(value: Any) -> bool:
    from dask.utils import parse_bytes

    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return False
    try:
        return parse_bytes(value) > 0
    except ValueError:
        return False


def _is_range(value: Any) -> bool:
    if isinstance(value, Range):
        return all(map(_is_count(0), value)) and value.least <= value.most and value.most > 0
    return _is_count(1)(value)


def _are_variables(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and re.fullmatch(r"[A-Za-z_]\w*", name) and isinstance(text, str) and "\0" not in text
        for name, text in value.items()
    )


_LINE = (_or_none(_is_line), "one line of text")
_SOME = (_or_none(_is_count(1)), "a whole number from 1")
FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "queue": _LINE,
    "cores": _SOME,
    "memory": (_or_none(_is_memory), 'an amount such as "32 GB"'),
    "gpus": (_is_count(0), "a whole number from 0"),
    "processes": _SOME,
    "processes_per_gpu": (_is_count(1), "a whole number from 1"),
    "account": _LINE,
    "workers": (_or_none(_is_range), "a number from 1, or Range(least, most) with least ≤ most"),
    "min_workers": (_or_none(_is_count(0)), "a whole number from 0"),
    "max_workers": _SOME,
    "max_queued": _SOME,
    "directives": (_are_lines, "a list of lines"),
    "prologue": (_are_lines, "a list of lines"),
    "python": _LINE,
    "interface": _LINE,
    "host": _LINE,
    "scratch": _LINE,
    "start_timeout": (_or_none(_is_seconds(1)), "seconds, at least 1"),
    "idle_timeout": (_is_seconds(0), "seconds"),
    "grace": (_is_seconds(0), "seconds"),
    "environment": (_are_variables, "names and texts of variables"),
    "same_versions": (lambda value: isinstance(value, bool), "True or False"),
}
"""For each field: whether a value may be, and what is wanted."""


def _shares(batch: Any) -> bool:
    """Whether GPUs cannot be shared out: neither so many processes a GPU, nor so many GPUs a process."""
    if not batch.gpus or batch.processes is None:
        return False
    whole = batch.gpus % batch.processes == 0 and batch.processes_per_gpu == 1
    return not whole and batch.processes != batch.gpus * batch.processes_per_gpu


TOGETHER: list[tuple[Callable[[Any], bool], str]] = [
    (
        lambda one: one.processes_per_gpu > 1 and not one.gpus,
        "processes_per_gpu={0.processes_per_gpu} without gpus; give gpus=, or processes= instead.",
    ),
    (
        _shares,
        "processes={0.processes} cannot share gpus={0.gpus} by processes_per_gpu={0.processes_per_gpu}; leave it out.",
    ),
    (
        lambda one: one.cores is not None and one.cores < (one.processes or one.gpus * one.processes_per_gpu or 1),
        "cores={0.cores} are fewer than the processes of a job; give at least one a process.",
    ),
    (
        lambda one: one.workers is not None and (one.min_workers, one.max_workers) != (None, None),
        "workers= and min_workers= or max_workers= are both given; give one of them.",
    ),
    (
        lambda one: (one.min_workers or 0) > (one.max_workers or max(1, one.min_workers or 0)),
        "min_workers={0.min_workers} is more than max_workers={0.max_workers}; give least ≤ most.",
    ),
    (
        lambda one: one.interface is not None and one.host is not None,
        "interface={0.interface!r} and host={0.host!r} are both given; give one of them.",
    ),
]
"""What goes wrong between fields, and what is said."""
