"""Which versions of Python a source allows."""

from __future__ import annotations

import re

from mlipcluster.errors import InputError

_CLAUSE = re.compile(r"\s*(===|==|!=|~=|>=|<=|>|<)\s*(\d+(?:\.\d+)*)(?:rc\d+|[ab]\d+)?(\.\*)?\s*")


def allows(specifier: str, version: tuple[int, ...]) -> bool:
    """Whether a version of Python is within a specifier, such as ``">=3.10,<3.13"``.

    Format: https://packaging.python.org/en/latest/specifications/version-specifiers/, for releases.

    Raises
    ------
    InputError
        It is none.
    """
    clauses = [clause for clause in specifier.split(",") if clause.strip()]
    return all([_clause(clause, version, specifier) for clause in clauses])  # noqa: C419 - each is read


def _clause(clause: str, version: tuple[int, ...], specifier: str) -> bool:
    match = _CLAUSE.fullmatch(clause)
    if not match or (match.group(3) and match.group(1) not in ("==", "!=")):
        raise InputError(f'requires-python = {specifier!r:.120} cannot be read; write it as in ">=3.10,<3.13"')
    operator, given = match.group(1), tuple(int(number) for number in match.group(2).split("."))
    if match.group(3):
        return (version[: len(given)] == given) == (operator == "==")
    if operator == "~=":
        return version >= given and version[: len(given) - 1] == given[:-1]
    width = max(len(given), len(version))
    one, other = (numbers + (0,) * (width - len(numbers)) for numbers in (version, given))
    return {
        "==": one == other,
        "===": one == other,
        "!=": one != other,
        ">=": one >= other,
        "<=": one <= other,
        ">": one > other,
        "<": one < other,
    }[operator]
