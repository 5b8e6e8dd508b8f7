"""Text of strangers on a terminal: as it is where it can be read, escaped where it would do something."""

from __future__ import annotations


def printable(text: str, limit: int = 2000) -> str:
    """*text* on one line, with control characters, marks that turn its direction, and broken ones as escapes."""
    shown = text if len(text) <= limit else text[:limit] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in shown)


def paragraph(text: str, limit: int = 8000) -> str:
    """The same, with its lines kept."""
    shown = text if len(text) <= limit else text[:limit] + "…"
    return "\n".join(printable(line, limit) for line in shown.split("\n"))
