"""Which names a piece of bytecode looks up outside itself: globals, attributes of modules, imports."""

from __future__ import annotations

import dis
import types
from collections.abc import Iterator
from dataclasses import dataclass

_GLOBAL = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_ATTRIBUTE = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_PREFIX = "EXTENDED_ARG"  # stands between the others, before a name whose number is above 255


@dataclass(frozen=True, order=True)
class Lookup:
    """A global name, and the attributes taken from it at once: ``("helpers", ("tables", "width"))``."""

    name: str
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True, order=True)
class Import:
    """An import statement inside a function: ``from ..a import b`` is ``("a", 2, ("b",))``."""

    name: str
    level: int = 0
    names: tuple[str, ...] = ()


def lookups(code: types.CodeType) -> tuple[list[Lookup], list[Import]]:
    """What *code*, and all code inside it (nested functions, comprehensions, classes), looks up; sorted."""
    globals_: set[Lookup] = set()
    imports: set[Import] = set()
    for inner in _all_code(code):
        instructions = [found for found in dis.get_instructions(inner) if found.opname != _PREFIX]
        for index, instruction in enumerate(instructions):
            if instruction.opname in _GLOBAL:
                globals_.add(Lookup(instruction.argval, _attributes(instructions, index + 1)))
            elif instruction.opname == "IMPORT_NAME":
                level, names = (previous.argval for previous in instructions[max(index - 2, 0) : index])
                imports.add(Import(instruction.argval, int(level or 0), tuple(names or ())))
    return sorted(globals_), sorted(imports)


def _all_code(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _all_code(constant)


def _attributes(instructions: list[dis.Instruction], index: int) -> tuple[str, ...]:
    found = []
    while index < len(instructions) and instructions[index].opname in _ATTRIBUTE:
        found.append(str(instructions[index].argval))
        index += 1
    return tuple(found)
