"""An exception, as the other side gets to know it."""

from __future__ import annotations

import traceback
from typing import Any

MAX_TEXT = 1 << 16


def describe_error(error: BaseException) -> dict[str, Any]:
    """The ``error`` answer: qualified names of its class and bases, its message and traceback."""
    try:
        # str(KeyError("x")) is the repr of its key; the key itself reads better in a message.
        message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    except Exception:  # noqa: BLE001 - a message that cannot be made must not hide the error
        message = "(its message could not be had)"
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    return {
        "kind": "error",
        "types": [f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__ if cls is not object],
        "message": message[:MAX_TEXT],
        "traceback": "".join(lines)[-MAX_TEXT:],
    }
