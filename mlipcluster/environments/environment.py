"""An environment as it was measured: what is installed, its lock file, and one digest of it all."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from mlipcluster.environments.lock import LOCK_FILES
from mlipcluster.errors import RecordError


@dataclass(frozen=True, order=True)
class Package:
    """One installed package.

    Attributes
    ----------
    name, version : str
        Normalised name (PEP 503) and version.
    source : str
        Where it came from: ``"index"``; ``"conda"``; ``"git+<url>@<sha1>"``; ``"file:<name>[#sha256=…]"`` for a
        local file or folder, ``"file:<name>@<sha1>"`` for a local repository; ``"<url>[#sha256=…]"`` or
        ``"<url>#record=…"`` for an archive's address; ``"editable:<name>[@<sha1>[+dirty]]"``. No paths of this machine
        and no credentials.
    build, channel : str
        Of a conda package.
    """

    name: str
    version: str
    source: str = "index"
    build: str = ""
    channel: str = ""

    def __str__(self) -> str:
        extra = " ".join(part for part in (self.build, "" if self.source == "index" else self.source) if part)
        return f"{self.name} {self.version}" + (f" ({extra})" if extra else "")


@dataclass(frozen=True)
class Environment:
    """What is installed in one Python environment, and the text to build it again.

    Attributes
    ----------
    manager : str
        Name of the manager that owns it: a row of :data:`mlipcluster.environments.managers.MANAGERS`.
    prefix : str
        Its ``sys.prefix`` on the machine where it was measured. Not part of the digest.
    python, platform : str
        Version of Python (with the implementation's name if it is not CPython, and ``t`` at its end if it is built
        without the global lock), and platform tag.
    packages : tuple of Package
        Sorted by name.
    lock, lock_name : str
        Text and file name of the lock file.
    toml, toml_format : str
        Text and file name of the project file beside the lock file, or empty.
    drift : tuple of str
        One line for each way the installed packages differ from the lock file.
    more_files : tuple of (str, str)
        Names and texts of further files, sorted by name: what the lock file itself cannot say. Not part of the digest.
    """

    manager: str
    prefix: str
    python: str
    platform: str
    packages: tuple[Package, ...]
    lock: str = ""
    lock_name: str = "requirements.txt"
    toml: str = ""
    toml_format: str = ""
    drift: tuple[str, ...] = ()
    more_files: tuple[tuple[str, str], ...] = ()

    def files(self) -> dict[str, str]:
        """Every file to build it again with, name to text.

        Raises
        ------
        RecordError
            One has a name that no manager knows (:data:`mlipcluster.environments.lock.LOCK_FILES`).
        """
        named = [(self.lock_name, self.lock), (self.toml_format, self.toml), *self.more_files]
        found = {name: text for name, text in reversed(named) if text}
        for name in found:
            if name not in LOCK_FILES:
                raise RecordError(f"{name!r:.80} is no file of an environment; known: {', '.join(LOCK_FILES)}")
        return found

    @cached_property
    def digest(self) -> str:
        """SHA-256 of Python, platform and packages, as 64 hexadecimal digits.

        The same wherever the environment lies, whoever built it, and whichever manager did.
        """
        packages = sorted([p.name, p.version, p.source, p.build, p.channel] for p in self.packages)
        text = json.dumps([self.python, self.platform, packages], separators=(",", ":"))
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, with ``digest``; builds and channels only of packages that have them."""
        packed = asdict(self)
        packed["packages"] = [_package_json(package) for package in self.packages]
        packed["drift"] = list(self.drift)
        del packed["more_files"]
        if self.more_files:
            packed["more_files"] = dict(self.more_files)
        packed["digest"] = self.digest
        return packed

    @classmethod
    def from_json(cls, packed: Mapping[str, Any]) -> Environment:
        """Turn the JSON object back; fields that are missing are empty.

        Raises
        ------
        RecordError
            It is not an environment.
        """
        try:
            texts = {name: str(packed.get(name, "")) for name in _TEXTS}
            packages = tuple(
                Package(**{str(key): str(value) for key, value in package.items() if key in _PACKAGE})
                for package in packed["packages"]
            )
            drift = tuple(str(line) for line in packed.get("drift", ()))
            more_files = tuple(sorted((str(name), str(text)) for name, text in packed.get("more_files", {}).items()))
            return cls(**texts, packages=packages, drift=drift, more_files=more_files)
        except (KeyError, TypeError, AttributeError) as error:
            raise RecordError(f"not an environment ({type(error).__name__}: {error}); restore the file") from error


_TEXTS = tuple(field.name for field in fields(Environment) if field.name not in {"packages", "drift", "more_files"})
_PACKAGE = frozenset(field.name for field in fields(Package))


def _package_json(package: Package) -> dict[str, str]:
    return {key: value for key, value in asdict(package).items() if value or key not in {"build", "channel"}}


def difference(recorded: Environment, here: Environment) -> list[str]:
    """What differs between two environments, one readable line each; empty where their digests agree.

    ::

        python 3.11.7 -> 3.11.9
        numpy 2.4.6 -> 2.4.5
        only recorded: torch 2.4.0
        only here: blosc 1.11.4
    """
    lines = [
        f"{name} {there} -> {now}"
        for name, there, now in (
            ("python", recorded.python, here.python),
            ("platform", recorded.platform, here.platform),
        )
        if there != now
    ]
    before, after = _by_name(recorded), _by_name(here)
    for name in sorted(before.keys() | after.keys()):
        lines.extend(_package_lines(name, before.get(name, ()), after.get(name, ())))
    return lines


def _by_name(environment: Environment) -> dict[str, tuple[Package, ...]]:
    found: dict[str, tuple[Package, ...]] = {}
    for package in sorted(environment.packages):
        found[package.name] = (*found.get(package.name, ()), package)
    return found


def _package_lines(name: str, before: tuple[Package, ...], after: tuple[Package, ...]) -> list[str]:
    if before == after:
        return []
    if len(before) != 1 or len(after) != 1:
        gone, come = Counter(before) - Counter(after), Counter(after) - Counter(before)
        lines = [f"only recorded: {package}" for package in gone.elements()]
        return lines + [f"only here: {package}" for package in come.elements()]
    there, now = before[0], after[0]
    if there.version != now.version:
        return [f"{name} {there.version} -> {now.version}"]
    changes = [f"{old or 'none'} -> {new or 'none'}" for old, new in _details(there, now) if old != new]
    return [f"{name} {now.version}: {', '.join(changes)}"]


def _details(there: Package, now: Package) -> tuple[tuple[str, str], ...]:
    return (there.source, now.source), (there.build, now.build), (there.channel, now.channel)
