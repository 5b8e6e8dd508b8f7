"""The text of a lock file, and those of the files beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LOCK_FILES = (
    "uv.lock",
    "requirements.txt",
    "environment.yml",
    "explicit.txt",
    "pixi.lock",
    "pixi.toml",
    "pyproject.toml",
)
"""Every file name that an environment is recorded under; a record that names another one is not read."""


@dataclass(frozen=True)
class Lock:
    """A lock file as text.

    Attributes
    ----------
    text, name : str
        Its text, free of credentials, and the file name its manager expects: one of :data:`LOCK_FILES`.
    toml, toml_format : str
        Text and file name of the project file that belongs to it, or empty.
    more_files : mapping of str to str
        Further files, name to text: what the lock file itself cannot say.
    drift : tuple of str
        One line for each way the installed packages differ from it.
    """

    text: str
    name: str
    toml: str = ""
    toml_format: str = ""
    more_files: Mapping[str, str] = field(default_factory=dict)
    drift: tuple[str, ...] = ()
