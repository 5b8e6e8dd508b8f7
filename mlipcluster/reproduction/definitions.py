"""Functions in files, looked at without importing the file."""

from __future__ import annotations

import ast
import textwrap
import tokenize
from collections.abc import Iterator
from pathlib import Path

from mlipcluster.records.source_text import normalise

_NAMED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_Named = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(file: Path, name: str) -> list[str]:
    """The source of each function or class of that qualified name in a file; none if it is no Python file."""
    try:
        with tokenize.open(file) as opened:  # in the encoding that it states
            text = opened.read()
        found = [node for qualname, node in _walk(ast.parse(text), "") if qualname == name]
    except (OSError, SyntaxError, ValueError, RecursionError):
        return []
    return [_text(text, node) for node in found]


def is_same(one: str, other: str) -> bool:
    """Whether two pieces of source mean the same: comments, docstrings and formatting do not count."""
    try:
        trees = [ast.parse(textwrap.dedent(text)) for text in (one, other)]
        forms = [normalise(tree) for tree in trees]
    except (SyntaxError, ValueError, RecursionError):
        return False
    return bool(trees[0].body) and forms[0] == forms[1]


def _walk(parent: ast.AST, path: str) -> Iterator[tuple[str, _Named]]:
    for node in ast.iter_child_nodes(parent):
        if not isinstance(node, _NAMED):
            yield from _walk(node, path)
            continue
        yield path + node.name, node
        if isinstance(node, ast.ClassDef):
            yield from _walk(node, f"{path}{node.name}.")


def _text(text: str, node: _Named) -> str:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return textwrap.dedent("".join(text.splitlines(keepends=True)[first - 1 : node.end_lineno]))
