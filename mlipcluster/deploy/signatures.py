"""What an installed library's class takes, read off its source: nothing is imported, nor has to be importable.

Dask's cloud libraries import the provider's own packages, take seconds, and fail where one of those is missing.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from distributed import SpecCluster
from distributed.deploy.cluster import Cluster

NEVER = frozenset({"self", "args", "kwargs", "asynchronous", "loop", "scheduler", "worker", "workers", "security"})
"""What is not the user's to say there."""
BASES: dict[str, type[Cluster]] = {"SpecCluster": SpecCluster, "Cluster": Cluster}
"""Dask's own, at the end of the libraries' classes."""


def accepted(package: str, classes: Sequence[str]) -> frozenset[str] | None:
    """Keyword arguments of a class of a library; None where the library is not installed.

    Parameters
    ----------
    package : str
        The library.
    classes : sequence of str
        ``"aws/ec2.py:EC2Cluster"``, and those within the library that it hands further arguments on to.
    """
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)))
    return _names(folder, tuple(classes)) - NEVER


@lru_cache
def _names(folder: Path, classes: tuple[str, ...]) -> frozenset[str]:
    found: set[str] = set()
    for one in classes:
        file, _, name = one.partition(":")
        arguments, above = _constructor(folder / file, name)
        found |= {argument.arg for argument in (*arguments.args, *arguments.kwonlyargs)}
        if arguments.kwarg is None:
            return frozenset(found)
    return frozenset(
        found.union(*(inspect.signature(base).parameters for name, base in BASES.items() if name in above))
    )


def _constructor(file: Path, name: str) -> tuple[ast.arguments, set[str]]:
    """Arguments of a class, and the names of what it inherits from."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef) and node.name == name:
            for one in node.body:
                if isinstance(one, ast.FunctionDef) and one.name == "__init__":
                    return one.args, set(map(ast.unparse, node.bases))
    raise LookupError(f"{file} has no class {name} with a constructor")
