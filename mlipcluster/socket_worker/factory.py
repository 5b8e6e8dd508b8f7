"""What factories are called: ``module:callable``, ``module:Class.method``, or a table's item, ``module:TABLE[key]``."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from typing import Any

_FORM = re.compile(r"(?s)(?P<module>[^:\[\]]+):(?P<names>[^:\[\]]+)(?:\[(?P<key>.+)\])?")
#: How an object that is no factory itself gives its calculator.
METHOD = "get_calculator"


def parts(factory: Any) -> tuple[str, str, str | None]:
    """Module, names in it with dots, and the key in the table that they lead to, or None.

    Raises
    ------
    ValueError
        It has none of these forms.
    """
    found = _FORM.fullmatch(factory) if isinstance(factory, str) else None
    if found is None or not all(
        part.isidentifier() for part in (*found["module"].split("."), *found["names"].split("."))
    ):
        raise ValueError("not of the form 'module:callable'")
    return found["module"], found["names"], found["key"]


def find(factory: str) -> Callable[..., Any]:
    """Import what *factory* names."""
    module, names, key = parts(factory)
    found: Any = importlib.import_module(module)
    for name in names.split("."):
        found = getattr(found, name)
    return found if key is None else callable_of(table_of(found)[key])  # type: ignore[no-any-return]


def table_of(found: Any) -> Mapping[str, Any]:
    """A table, given itself or a function that makes it.

    Raises
    ------
    TypeError
        It is neither.
    """
    if not isinstance(found, Mapping) and callable(found):
        found = found()
    if not isinstance(found, Mapping):
        raise TypeError(f"{type(found).__name__} is no table; write {{name: factory}}")
    return found


def callable_of(item: Any) -> Any:
    """What is called for the calculator of a table's item: itself, or its method of that name."""
    return item if callable(item) else getattr(item, METHOD, item)
