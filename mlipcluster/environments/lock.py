"""The text of a lock file, and that of the project file beside it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Lock:
    """A lock file as text.

    Attributes
    ----------
    text, name : str
        Its text, free of credentials, and the file name its manager expects.
    toml, toml_format : str
        Text and file name of the project file that belongs to it, or empty.
    drift : tuple of str
        One line for each way the installed packages differ from it.
    """

    text: str
    name: str
    toml: str = ""
    toml_format: str = ""
    drift: tuple[str, ...] = ()
