"""The source of functions, classes and modules, found and brought to a form that only meaning changes.

Formatting, comments, docstrings, statements that do nothing, line numbers and file names are left out; so are type
hints, except in class bodies and on decorated functions, where code may read them.
"""

from __future__ import annotations
import __future__

import ast
import hashlib
import linecache
import textwrap
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from mlipcluster.errors import InputError
from mlipcluster.records.canonical import canonical

_FUTURE = 0
for _name in __future__.all_feature_names:
    _FUTURE |= getattr(__future__, _name).compiler_flag
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_SKIPPED = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
_DROPPED = object()


@dataclass
class _File:
    """A parsed source file."""

    lines: list[str]
    tree: ast.Module
    functions: dict[tuple[str, int], list[_Function]] = field(default_factory=dict)
    classes: dict[str, list[ast.ClassDef]] = field(default_factory=dict)
    codes: dict[tuple[str, int], list[types.CodeType]] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """A piece of source: its text, and the SHA-256 of its normalised form."""

    text: str
    form: str


def function_source(function: types.FunctionType) -> Found | None:
    """The source of a function; None if there is none, or it is not what the function was compiled from.

    A file that was edited after it was imported is noticed: it is compiled again and compared.
    """
    code = function.__code__
    file = _file(code.co_filename, function.__globals__, code.co_flags & _FUTURE)
    if file is None or not any(same_code(code, other) for other in file.codes.get(_key(code), ())):
        return None
    node = _pick(code, file.functions.get(_key(code), []))
    return None if node is None else _found(_text(file, node), node)


def class_source(cls: type) -> Found | None:
    """The source of a class; None if there is none."""
    own = [
        member
        for member in vars(cls).values()
        if isinstance(member, types.FunctionType)
        and member.__qualname__ == f"{cls.__qualname__}.{member.__code__.co_name}"
        and not is_generated(member)
    ]
    for name, namespace in _class_files(cls, own):
        file = _file(name, namespace, 0)
        nodes = file.classes.get(cls.__qualname__, []) if file else []
        lines = [f.__code__.co_firstlineno for f in own if f.__code__.co_filename == name]
        nodes = [node for node in nodes if all(node.lineno <= line <= (node.end_lineno or line) for line in lines)]
        if file and nodes:
            return _found(_text(file, nodes[-1]), nodes[-1])
    return None


def module_source(file_name: str, namespace: dict[str, Any] | None = None) -> Found | None:
    """The source of a whole module."""
    file = _file(file_name, namespace or {}, 0)
    return None if file is None else _found("".join(file.lines), file.tree)


def is_generated(function: types.FunctionType) -> bool:
    """Whether a function was made of text that no file or notebook's cell holds."""
    # Python 3.13 keeps the text of `python -c` under the name that generated functions bear, too.
    return function.__code__.co_filename.startswith("<") and function_source(function) is None


def code_form(code: types.CodeType) -> Any:
    """The normalised form of a code object, for functions without source; other Pythons compile other bytecode."""
    return [
        "code",
        code.co_code.hex(),
        list(code.co_names),
        list(code.co_varnames),
        list(code.co_freevars),
        [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & 0xFF],
        [_constant(value) for value in code.co_consts],
    ]


def same_code(a: types.CodeType, b: types.CodeType) -> bool:
    """Whether two code objects do the same, wherever they stand."""
    if a.co_code != b.co_code or a.co_names != b.co_names or a.co_varnames != b.co_varnames:
        return False
    if a.co_freevars != b.co_freevars or len(a.co_consts) != len(b.co_consts):
        return False
    return all(_same_constant(x, y) for x, y in zip(a.co_consts, b.co_consts, strict=True))


def normalise(node: Any, in_class: bool = False) -> Any:
    """A syntax tree as lists of text, the same in every version of Python and however it was formatted."""
    if isinstance(node, list):
        items = (normalise(item, in_class) for item in node)
        return [item for item in items if item is not _DROPPED]
    if not isinstance(node, ast.AST):
        return _constant(node)
    if isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
        return _DROPPED  # docstrings among them
    if isinstance(node, ast.AnnAssign) and not in_class:
        return _without_hint(node)
    hints_out = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.decorator_list
    form: list[Any] = [type(node).__name__]
    for name, value in ast.iter_fields(node):
        if name in _SKIPPED or value is None or value == [] or (hints_out and name == "returns"):
            continue
        if hints_out and name == "args":
            form.append([name, _arguments(value)])
        else:
            form.append([name, normalise(value, isinstance(node, ast.ClassDef) and name == "body")])
    return form


def _found(text: str, node: ast.AST) -> Found | None:
    try:
        return Found(text, hashlib.sha256(canonical(normalise(node)).encode("ascii")).hexdigest())
    except (RecursionError, InputError):
        return None  # a sum of a thousand terms; its bytecode is flat


def _without_hint(node: ast.AnnAssign) -> Any:
    target = normalise(node.target)
    if node.value is None:
        return ["AnnAssign", target]  # still makes the name a local one
    return ["Assign", ["targets", [target]], ["value", normalise(node.value)]]


def _arguments(node: ast.arguments) -> Any:
    form: list[Any] = ["arguments"]
    for name, value in ast.iter_fields(node):
        if value is None or value == []:
            continue
        if isinstance(value, ast.arg):
            form.append([name, ["arg", ["arg", value.arg]]])
        elif value and all(isinstance(item, ast.arg) for item in value):
            form.append([name, [["arg", ["arg", item.arg]] for item in value]])
        else:
            form.append([name, normalise(value)])
    return form


def _constant(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return code_form(value)
    if isinstance(value, (tuple, frozenset)):
        items = [_constant(item) for item in value]
        return [type(value).__name__, sorted(items, key=repr) if isinstance(value, frozenset) else items]
    return f"{type(value).__name__} {value!r}"  # only what a literal can be: repr is exact for all of these


def _same_constant(a: Any, b: Any) -> bool:
    if isinstance(a, types.CodeType) and isinstance(b, types.CodeType):
        return same_code(a, b)
    return type(a) is type(b) and (a == b or repr(a) == repr(b)) and (isinstance(a, frozenset) or repr(a) == repr(b))


def _class_files(cls: type, own: list[types.FunctionType]) -> Iterator[tuple[str, dict[str, Any]]]:
    import sys

    seen: dict[str, dict[str, Any]] = {}
    for function in own:
        seen.setdefault(function.__code__.co_filename, function.__globals__)
    module = sys.modules.get(cls.__module__)
    if not seen and isinstance(getattr(module, "__file__", None), str):
        seen[str(module.__file__)] = vars(module)  # type: ignore[union-attr]
    yield from seen.items()


def _file(name: str, namespace: dict[str, Any], flags: int) -> _File | None:
    if name.startswith("<") and name not in linecache.cache:
        return None  # typed at a prompt, or generated
    linecache.checkcache(name)
    return _parsed(name, "".join(linecache.getlines(name, namespace)), flags)


@lru_cache(maxsize=128)
def _parsed(name: str, text: str, flags: int) -> _File | None:
    if not text.strip():
        return None
    options = flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT  # what IPython's cells may hold
    try:
        tree = compile(text, name, "exec", options | ast.PyCF_ONLY_AST, dont_inherit=True)
        code = compile(text, name, "exec", options, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    file = _File(text.splitlines(keepends=True), tree)
    _index(file, tree, "")
    stack = [code]
    while stack:
        inner = stack.pop()
        file.codes.setdefault(_key(inner), []).append(inner)
        stack.extend(value for value in inner.co_consts if isinstance(value, types.CodeType))
    return file


def _index(file: _File, parent: ast.AST, path: str) -> None:
    for node in ast.iter_child_nodes(parent):
        inner = path
        if isinstance(node, _FUNCTION):
            name = "<lambda>" if isinstance(node, ast.Lambda) else node.name
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
            file.functions.setdefault((name, first), []).append(node)
            inner = f"{path}{name}.<locals>."
        elif isinstance(node, ast.ClassDef):
            file.classes.setdefault(path + node.name, []).append(node)
            inner = f"{path}{node.name}."
        _index(file, node, inner)


def _key(code: types.CodeType) -> tuple[str, int]:
    return code.co_name, code.co_firstlineno


def _pick(code: types.CodeType, nodes: list[_Function]) -> _Function | None:
    """The node that *code* was compiled from, of those that begin on its line under its name."""
    if len(nodes) <= 1:
        return nodes[0] if nodes else None
    forms = [normalise(node) for node in nodes]
    if all(form == forms[0] for form in forms):
        return nodes[0]
    if not hasattr(code, "co_positions"):
        return None  # Python 3.10 keeps no columns: which lambda of the line it is cannot be told
    spans = [
        (line, column, end_line, end_column)
        for line, end_line, column, end_column in code.co_positions()
        if None not in (line, end_line, column, end_column) and (line, column) != (end_line, end_column)
    ]
    around = [node for node in nodes if spans and all(_contains(node, span) for span in spans)]
    return min(around, key=_extent, default=None)


def _contains(node: _Function, span: tuple[Any, ...]) -> bool:
    body = node.body if isinstance(node, ast.Lambda) else node
    start, end = (body.lineno, body.col_offset), (body.end_lineno, body.end_col_offset)
    return start <= span[:2] and span[2:] <= end


def _extent(node: _Function) -> tuple[int, int]:
    return ((node.end_lineno or node.lineno) - node.lineno, (node.end_col_offset or 0) - node.col_offset)


def _text(file: _File, node: Any) -> str:
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
    return textwrap.dedent("".join(file.lines[first - 1 : node.end_lineno]))
