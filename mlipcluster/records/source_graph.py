"""All of the user's code that a protocol stands on, as a graph of forms.

A node is a function, a class, a whole module or a global constant. Its form names what it refers to by reference, so
recursion ends, and a change shows in the one node that changed.
"""

from __future__ import annotations

import builtins
import dataclasses
import functools
import hashlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from mlipcluster.records import source_members, source_text, user_code
from mlipcluster.records.canonical import canonical
from mlipcluster.records.source_names import Import, Lookup, lookups
from mlipcluster.records.source_values import Unhashable, Values

UNHASHABLE = "unhashable"
_MISSING = object()
_MODULE_FACTS = frozenset(
    {"__name__", "__file__", "__doc__", "__spec__", "__loader__", "__package__", "__builtins__", "__path__"}
)


@dataclasses.dataclass
class _Ref:
    index: int


@dataclasses.dataclass
class _Node:
    name: str
    value: Any
    make: Callable[[], Any]
    form: Any = None


class Graph:
    """The user's code reached from one value.

    Parameters
    ----------
    root : object
        A function, or anything that holds some.
    name : str
        What to call it.
    """

    def __init__(self, root: Any, name: str) -> None:
        self.home = _home(root)
        self._walk(root, name)
        while self.imported:  # what was imported on the way may show in modules that were looked at before
            self._walk(root, name)

    def _walk(self, root: Any, name: str) -> None:
        self.nodes: list[_Node] = []
        self.known: dict[Any, int] = {}
        self.names: set[str] = set()
        self.unhashable: dict[str, str] = {}
        self.modules: dict[str, types.ModuleType] = {}
        self.imported = False
        self._add(("root",), "", root, lambda: self._values(root, name))
        for node in self.nodes:  # grows while it is walked: breadth first, so the numbers depend on the code alone
            node.form = node.make()

    def digest(self) -> str:
        """SHA-256 of all nodes; module names and file names play no part."""
        forms = [_render(node.form, lambda ref: ref.index) for node in self.nodes]
        return hashlib.sha256(canonical(forms).encode("ascii")).hexdigest()

    def parts(self) -> dict[str, str]:
        """Name of each node, and 16 digits of its own form; ``"unhashable"`` for values that have none."""
        found = {}
        for node in self.nodes[1:]:
            text = canonical(_render(node.form, lambda ref: self.nodes[ref.index].name.partition("#")[0]))
            found[node.name] = hashlib.sha256(text.encode("ascii")).hexdigest()[:16]
        return dict(sorted((found | dict.fromkeys(self.unhashable, UNHASHABLE)).items()))

    def _add(self, key: Any, name: str, value: Any, make: Callable[[], Any]) -> _Ref:
        if key not in self.known:
            self.known[key] = len(self.nodes)
            self.nodes.append(_Node(self._unique(name), value, make))
        return _Ref(self.known[key])

    def _unique(self, name: str) -> str:
        number, unique = 1, name
        while unique in self.names:
            number += 1
            unique = f"{name}#{number}"
        self.names.add(unique)
        return unique

    def _values(self, value: Any, name: str) -> Any:
        try:
            return Values(self._code).form(value)
        except Unhashable as error:
            self.unhashable[name] = str(error)
            return [UNHASHABLE, str(error), *([] if error.known is None else [error.known])]

    def _code(self, value: Any) -> Any:
        if isinstance(value, types.FunctionType):
            return self._function_reference(value)
        if isinstance(value, type):
            name = f"{value.__module__}.{value.__qualname__}"
            if not (user_code.is_user_class(value) or value.__module__ == self.home):
                return ["library", name]
            self._reached(user_code.module_of(value))
            return self._add(id(value), name, value, lambda: self._class(value, name))
        return self._module_reference(value)

    def _function_reference(self, function: types.FunctionType) -> Any:
        name = f"{function.__module__}.{function.__qualname__}"
        if user_code.is_user_function(function) or function.__globals__.get("__name__") == self.home:
            self._reached(user_code.module_of(function))
            return self._add(id(function), name, function, lambda: self._function(function, name))
        inner = [value for cell in function.__closure__ or () if _holds_code(value := _contents(cell))]
        wrapped = getattr(function, "__wrapped__", None)
        # By its own module: what wraps a user's function says it is from the user's.
        name = f"{function.__globals__.get('__name__', '')}.{function.__code__.co_name}"
        return ["library", name, *(self._values(part, name) for part in (*inner, *([wrapped] if wrapped else ())))]

    def _function(self, function: types.FunctionType, name: str, with_source: bool = True) -> Any:
        code = function.__code__
        form: dict[str, Any] = {}
        if with_source:
            found = source_text.function_source(function)
            form["source"] = source_text.code_form(code) if found is None else found.form
        form["defaults"] = self._values(function.__defaults__, f"{name}.__defaults__")
        form["keyword defaults"] = self._values(function.__kwdefaults__, f"{name}.__kwdefaults__")
        form["closure"] = {
            variable: "empty" if (value := _contents(cell)) is _MISSING else self._values(value, f"{name}.{variable}")
            for variable, cell in zip(code.co_freevars, function.__closure__ or (), strict=False)
        }
        attributes = {key: value for key, value in vars(function).items() if key != "__wrapped__"}
        form["attributes"] = {key: self._values(attributes[key], f"{name}.{key}") for key in sorted(attributes)}
        if "__wrapped__" in vars(function):
            form["wrapped"] = self._values(function.__wrapped__, name)  # type: ignore[attr-defined]
        form["refers to"] = self._references(code, function.__globals__)
        return form

    def _references(self, code: types.CodeType, namespace: dict[str, Any]) -> list[Any]:
        names, imports = lookups(code)
        found = {}
        for lookup in names:
            if lookup.name not in _MODULE_FACTS:
                path, form = self._look_up(lookup, namespace)
                found[path] = form
        for statement in imports:
            found.update(self._import(statement, namespace))
        return [[path, form] for path, form in sorted(found.items()) if form is not None]

    def _look_up(self, lookup: Lookup, namespace: Mapping[str, Any]) -> tuple[str, Any]:
        value = namespace.get(lookup.name, _MISSING)
        if value is _MISSING:
            return lookup.name, None if hasattr(builtins, lookup.name) else "undefined"
        owner, path = str(namespace.get("__name__", "")), lookup.name
        key = lookup.name
        for attribute in lookup.attributes:
            if not (isinstance(value, types.ModuleType) and user_code.is_user_module(value)):
                break
            inner = getattr(value, attribute, _MISSING)
            if inner is _MISSING:
                break  # made while it runs: the whole module it is
            self._reached(value)
            owner, key, value, path = value.__name__, attribute, inner, f"{path}.{attribute}"
        return path, self._global(owner, key, value)

    def _global(self, owner: str, key: str, value: Any) -> Any:
        """Form of a module's global: code by its own name, data as a node called after the variable."""
        name = f"{owner}.{key}"
        if isinstance(value, (types.FunctionType, types.BuiltinFunctionType, type, types.ModuleType)):
            return self._values(value, name)
        beside = _beside(value, sys.modules.get(owner))
        return self._add(("global", owner, key), name, value, lambda: beside or self._values(value, name))

    def _import(self, statement: Import, namespace: Mapping[str, Any]) -> dict[str, Any]:
        name = statement.name
        if statement.level:
            package = str(namespace.get("__package__") or "")
            try:
                name = importlib.util.resolve_name("." * statement.level + name, package)
            except ImportError:
                return {f"import {name}": "undefined"}
        module = self._loaded(name)
        if module is None:
            return {f"import {name}": self._not_imported(name)}
        if not user_code.is_user_module(module):
            return {}
        if not statement.names:
            return {f"import {name}": self._module_reference(module)}
        found = {}
        for part in statement.names:
            value = getattr(module, part, _MISSING)
            if value is _MISSING:
                value = self._loaded(f"{name}.{part}") or _MISSING
            self._reached(module)
            found[f"import {part}"] = (
                self._not_imported(f"{name}.{part}") if value is _MISSING else self._global(name, part, value)
            )
        return found

    def _loaded(self, name: str) -> types.ModuleType | None:
        """A module that a function imports when it runs.

        One of the user's is imported, as the worker will do: what it counts for must not depend on whether somebody
        has imported it already.
        """
        module = sys.modules.get(name)
        if module is not None or not _is_users(find_spec(name)) or _ours(name):
            return module
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit):  # noqa: BLE001 - a user's module may do anything, and may be for workers only
            return None
        self.imported = True
        return module

    def _not_imported(self, name: str) -> Any:
        """A module that cannot be imported here: its source is read, its own imports are not."""
        spec = find_spec(name)
        if spec is None or not spec.origin:
            return "undefined"
        if spec.origin in {"built-in", "frozen"} or not user_code.is_user_file(spec.origin) or _ours(name):
            return None
        origin = spec.origin
        return self._add(("file", name), name, spec, lambda: _form(source_text.module_source(origin)))

    def _module_reference(self, module: types.ModuleType) -> Any:
        if not user_code.is_user_module(module) and module.__name__ != self.home:
            return ["library", module.__name__]
        self._reached(module)
        return self._add(id(module), module.__name__, module, lambda: self._module(module))

    def _module(self, module: types.ModuleType) -> Any:
        """A module used as a whole: its source, and what it has from other modules of the user's."""
        file = getattr(module, "__file__", None)
        found = source_text.module_source(file, vars(module)) if isinstance(file, str) else None
        members = []
        for key, value in sorted(vars(module).items()):
            own = _owner(value) in {module.__name__, None}
            if key in _MODULE_FACTS or (key.startswith("__") and key.endswith("__")) or (found and own):
                continue
            form = self._global(module.__name__, key, value) if found is None else self._values(value, key)
            members.append([key, form])
        return [_form(found), members]

    def _class(self, cls: type, name: str) -> Any:
        found = source_text.class_source(cls)
        written = source_members.written(cls)
        members = {key: self._member(value, f"{name}.{key}", found is not None) for key, value in written}
        bases = [self._values(base, name) for base in cls.__bases__]
        return [_form(found), bases, self._values(type(cls), name), members, self._fields(cls, name, found is not None)]

    def _member(self, value: Any, name: str, in_source: bool) -> Any:
        """A class's attribute; of methods that the class's source shows, only what they refer to."""
        function = source_members.unwrapped(value)
        if function is None:
            return self._values(value, name)
        if in_source and source_text.is_generated(_innermost(function)):
            return "generated"  # by a decorator such as dataclass, of what the source shows
        if not (user_code.is_user_function(function) or function.__globals__.get("__name__") == self.home):
            return self._values(value, name)
        shown = in_source and source_text.function_source(function) is not None
        return [type(value).__name__, self._function(function, name, with_source=not shown)]

    def _fields(self, cls: type, name: str, in_source: bool) -> Any:
        """Fields of a dataclass; where its source is found, only what makes their defaults: no attribute holds that."""
        form = []
        for key, field in getattr(cls, "__dataclass_fields__", {}).items():
            made = not isinstance(field.default_factory, type(dataclasses.MISSING))  # of which pickles make another
            makes = self._values(field.default_factory, f"{name}.{key}") if made else None
            if not in_source:
                form.append([key, str(field.type), self._values(field.default, f"{name}.{key}"), makes])
            elif made:
                form.append([key, makes])
        return form

    def _reached(self, module: types.ModuleType | None) -> None:
        if module is not None and module.__name__ != "__main__" and user_code.is_user_module(module):
            self.modules[module.__name__] = module


def _home(root: Any) -> str:
    """The module of the function itself: what lies in it counts as the user's, also where it is installed."""
    while isinstance(root, functools.partial):
        root = root.func
    root = getattr(root, "__func__", root)
    if isinstance(root, types.FunctionType):
        return str(root.__globals__.get("__name__", ""))
    return (
        "" if isinstance(root, types.ModuleType) else str((root if isinstance(root, type) else type(root)).__module__)
    )


def _render(form: Any, name: Callable[[_Ref], Any]) -> Any:
    if isinstance(form, _Ref):
        return {"ref": name(form)}
    if isinstance(form, dict):
        return {key: _render(value, name) for key, value in form.items()}
    if isinstance(form, (list, tuple)):
        return [_render(value, name) for value in form]
    return form


def _form(found: source_text.Found | None) -> Any:
    return "no source" if found is None else found.form


def _contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _MISSING


def _is_code(value: Any) -> bool:
    return isinstance(value, (types.FunctionType, type, types.MethodType, functools.partial))


def _holds_code(value: Any) -> bool:
    """Whether it is code, or a table of code such as `functools.singledispatch` keeps."""
    if isinstance(value, Mapping):
        return any(_is_code(item) for item in value.values())
    return _is_code(value) or (isinstance(value, (list, tuple)) and any(_is_code(item) for item in value))


def _beside(value: Any, module: types.ModuleType | None) -> Any:
    """Form of a path under the folder of the module that names it: another checkout is no other code."""
    file = getattr(module, "__file__", None)
    if not isinstance(value, (str, PurePath)) or not isinstance(file, str):
        return None
    folder = PurePath(file).parent
    path = PurePath(value)
    return ["beside", path.relative_to(folder).as_posix()] if folder in (path, *path.parents) else None


def _innermost(function: types.FunctionType) -> types.FunctionType:
    inner = inspect.unwrap(function)
    return inner if isinstance(inner, types.FunctionType) else function


def _owner(value: Any) -> str | None:
    """Name of the module that a function, class or module is from; None for data."""
    if isinstance(value, types.ModuleType):
        return value.__name__
    return str(value.__module__) if isinstance(value, (types.FunctionType, type)) else None


def _ours(name: str) -> bool:
    return name.partition(".")[0] == "mlipcluster"


def _is_users(spec: importlib.machinery.ModuleSpec | None) -> bool:
    if spec is None or spec.origin in {"built-in", "frozen"}:
        return False
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    return any(user_code.is_user_file(place) for place in places)


def find_spec(name: str) -> importlib.machinery.ModuleSpec | None:
    """Where a module would be imported from, without importing the packages above it."""
    path: Any = None
    spec = None
    parts = name.split(".")
    for index in range(len(parts)):
        try:
            spec = importlib.machinery.PathFinder.find_spec(".".join(parts[: index + 1]), path)
        except (ImportError, ValueError, AttributeError):
            return None
        if spec is None:
            return None
        path = spec.submodule_search_locations
    return spec
