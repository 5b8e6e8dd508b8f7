"""What a record may start without the caller's word: what is known here, and nothing that only the record names."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mlipcluster.calculators.registry import names
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.errors import InputError

# Where and how fast a calculator runs, and what it reads of `atoms.info`; no value of these can name code or a file.
_HARMLESS = ("device", "threads", "info_keys")
_PYTHON = re.compile(r"(python|pypy)[\d.]*t?")


def check_calculator(name: str, spec: CalculatorSpec) -> None:
    """See that a recorded calculator may be started.

    Its factory, arguments and state must be those of a known short name (`mlipcluster.calculators.registry`), without
    import paths and environment variables of its own; its interpreter must be an existing Python of the user or root.

    Raises
    ------
    InputError
        It is another one; the message names what the record asks for, and how to allow it.
    """
    check_factory(name, spec)
    if spec.python is not None and (reason := _refused(spec)):
        raise _error(name, spec, f"runs in {spec.interpreter}, which {reason}", ", or --python on the command line")


def check_factory(name: str, spec: CalculatorSpec) -> None:
    """The same without a look at the interpreter, for those that the caller puts in another one.

    Raises
    ------
    InputError
        As `check_calculator`.
    """
    if spec.environment:
        variables = ", ".join(variable for variable, _ in spec.environment)
        raise _error(name, spec, f"sets environment variables ({variables})")
    if spec.paths:
        raise _error(name, spec, f"imports from {', '.join(spec.paths)}")
    if _what(spec) not in [_what(known) for known in names().values()]:
        given = ", ".join([*map(repr, spec.args), *(f"{key}={value!r}" for key, value in spec.kwargs.items())])
        raise _error(name, spec, f"calls {spec.factory}({given:.200})")


def is_fixed(path: str) -> bool:
    """Whether a path means the same wherever this process works.

    Any other could lead to what came along with the record: a relative one, and one by way of ``/proc/self/cwd``.
    """
    parts = Path(path).parts
    return os.path.isabs(path) and ".." not in parts and parts[1:2] not in (("proc",), ("dev",))


def _what(spec: CalculatorSpec) -> dict[str, Any]:
    return {key: value for key, value in spec.identity().items() if key not in _HARMLESS}


def _refused(spec: CalculatorSpec) -> str:
    """Why an interpreter is not started; empty if it may be."""
    path = spec.interpreter
    if not is_fixed(os.path.expanduser(str(spec.python))) or not _PYTHON.fullmatch(path.name):
        return "is not the full path of a Python"
    try:
        owner = path.stat().st_uid
    except OSError:
        return "is not here"
    return "" if owner in (0, os.getuid()) else "belongs to another user"


def _error(name: str, spec: CalculatorSpec, what: str, also: str = "") -> InputError:
    key = f"'calculators': {{{name!r}: …}}" if name else "'calculator': …"
    return InputError(
        f"calculator {name or spec.label!r} of the record {what}; a record starts only the calculators that are known "
        f"by a short name ({', '.join(sorted(names()))}). Give it yourself, instance_kwargs={{{key}}} (--calculator on "
        f"the command line{also}), or, if you trust whoever wrote this file, trust=True (--trust)."
    )
