"""What is known of where packages came from without asking the network: their hashes, and the indexes besides PyPI.

An environment does not keep the hashes of what came from an index. Files that it was made from do:

- ``mlipcluster-requirements.txt`` in the environment, which our own builds leave there;
- ``uv.lock``, ``requirements*.txt`` and ``pylock*.toml`` (PEP 751) in the folder that holds the environment;
- the wheels that Python's ``ensurepip`` brings.

Where uv is, its cache is asked as well: :mod:`mlipcluster.environments.uv_cache`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlipcluster.environments.measure_script import without_credentials
from mlipcluster.errors import MeasureError

OWN = "mlipcluster-requirements.txt"
Hashes = Mapping[tuple[str, str], frozenset[str]]
"""Of a normalised name and version, ``"sha256:…"`` of its archives."""
_MOST = 32 << 20  # bytes; larger files are no lock files
_VARIABLE = re.compile(  # in a project file's tables of environment variables, as pixi has them, or of indexes, as PDM
    r"""(?<![\w.-])(["']?(?:[A-Z0-9_]*(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|(?:ACCESS|PRIVATE|SECRET)_KEY)|password)"""
    r"""["']?\s*=\s*)("{3}.*?"{3}|'{3}.*?'{3}|"(?![$"])(?:\\.|[^"\\\n])*"|'(?![$'])[^'\n]*')""",
    re.DOTALL,
)
_PYPI = re.compile(r"https?://pypi\.(?:org|python\.org)/simple/?")


@dataclass(frozen=True)
class Origins:
    """Of each package version its archives' hashes; and addresses of indexes.

    Attributes
    ----------
    hashes : mapping of (str, str) to frozenset of str
        Normalised name and version to ``"sha256:…"``, of all archives of that version.
    indexes : mapping of (str, str) to str
        Name and version to the index that a ``uv.lock`` says, where that is not PyPI.
    more : tuple of str
        Indexes that were given for all.
    """

    hashes: Hashes
    indexes: Mapping[tuple[str, str], str]
    more: tuple[str, ...] = ()

    def have(self, name: str, version: str) -> bool:
        """Whether hashes of that version are known."""
        return bool(self.hashes.get((name, version)))


def read_origins(measured: Mapping[str, Any]) -> Origins:
    """Gather what the files in and beside a measured environment say. What cannot be read says nothing."""
    prefix = Path(measured["prefix"])
    hashes: dict[tuple[str, str], set[str]] = {}
    indexes: dict[tuple[str, str], str] = {}
    own = read_text(prefix / OWN)
    uv_lock = read_text(prefix.parent / "uv.lock")
    texts = [own, *(read_text(path) for path in _beside(prefix, "requirements*.txt"))]
    found = [entry for text in texts for entry in _of_requirements(text)]
    tables = [uv_lock, *(read_text(path) for path in _beside(prefix, "pylock*.toml"))]
    found += [entry for text in tables for entry in of_tables(text)]
    found += _of_ensurepip(Path(measured["base_prefix"]), measured["python"])
    for key, values in found:
        hashes.setdefault(key, set()).update(values)
    for name, version, block in blocks(uv_lock):
        registry = re.search(r'(?m)^source = \{ registry = "(https?://[^"]+)" \}', block)
        if registry and not _PYPI.fullmatch(registry.group(1)):
            indexes[name, version] = without_credentials(registry.group(1))
    more = tuple(dict.fromkeys(re.findall(r"(?m)^--extra-index-url[ =](\S+)", without_credentials(own))))
    return Origins({key: frozenset(values) for key, values in hashes.items()}, indexes, more)


def read_text(path: Path) -> str:
    """A text file; empty where it cannot be read or is no lock file by its size."""
    try:
        return path.read_text(encoding="utf-8-sig") if path.stat().st_size <= _MOST else ""
    except (OSError, UnicodeDecodeError):
        return ""


def clean_text(path: Path) -> str:
    """A lock or project file without credentials: neither in addresses, nor as the value of a variable named like one.

    Raises
    ------
    MeasureError
        It cannot be read.
    """
    try:
        text = without_credentials(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise MeasureError(f"{str(path)!r} cannot be read ({error}); make it a readable text in UTF-8") from error
    return _VARIABLE.sub(r'\1""', text) if path.suffix == ".toml" else text


def normal(name: str) -> str:
    """A package's name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, str]:
    """Versions that a ``requirements.txt`` pins, by normalised name."""
    return {name: version for name, version, _ in _pinned(text)}


def blocks(text: str) -> Iterator[tuple[str, str, str]]:
    """Name, version (or empty) and text of each package of a ``uv.lock`` or ``pylock.toml``.

    Read by line: Python 3.10 has no TOML reader, and both are written with these two keys alone on their lines.
    """
    for block in re.split(r"(?m)^\[\[packages?\]\]\s*$", text)[1:]:
        name = re.search(r'(?m)^name = "([^"]+)"', block)
        version = re.search(r'(?m)^version = "([^"]+)"', block)
        if name:
            yield normal(name.group(1)), version.group(1) if version else "", block


def _beside(prefix: Path, pattern: str) -> list[Path]:
    try:
        return sorted(prefix.parent.glob(pattern))
    except OSError:
        return []


def _pinned(text: str) -> Iterator[tuple[str, str, str]]:
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        match = re.match(r"([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?\s*===?\s*([^\s;]+)(.*)", line)
        if match:
            yield normal(match.group(1)), match.group(2), match.group(3)


def _of_requirements(text: str) -> Iterator[tuple[tuple[str, str], set[str]]]:
    for name, version, rest in _pinned(text):
        yield (name, version), set(re.findall(r"--hash[= ](sha256:[0-9a-f]{64})(?![0-9a-f])", rest))


def of_tables(text: str) -> Iterator[tuple[tuple[str, str], set[str]]]:
    """Name and version, and hashes, of each package of a ``uv.lock`` or ``pylock.toml``."""
    for name, version, block in blocks(text):
        found = re.findall(r'\bhash = "(sha256:[0-9a-f]{64})"|\bsha256 = "([0-9a-f]{64})"', block)
        yield (name, version), {whole or f"sha256:{digits}" for whole, digits in found}


def _of_ensurepip(base: Path, python: str) -> Iterator[tuple[tuple[str, str], set[str]]]:
    """pip, and setuptools where Python brings it: the wheels are those of PyPI."""
    folder = base / "lib" / f"python{'.'.join(python.split('.')[:2])}" / "ensurepip" / "_bundled"
    for wheel in sorted(folder.glob("*.whl")) if folder.is_dir() else ():
        name, version = wheel.name.split("-")[:2]
        yield (normal(name), version), {f"sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"}
