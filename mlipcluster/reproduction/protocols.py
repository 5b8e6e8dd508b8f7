"""The protocols of an output: given, imported by module and name, or unpickled where the caller trusts the record."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import mlipcluster.protocols as ready_made
from mlipcluster.errors import InputError, MismatchError, ProtocolError
from mlipcluster.records.git import find_root
from mlipcluster.records.packing import decode
from mlipcluster.records.source import describe
from mlipcluster.records.source_graph import find_spec
from mlipcluster.records.user_code import is_user_file
from mlipcluster.reproduction.definitions import definitions, is_same

Protocol = Callable[..., Any]


@dataclass(frozen=True)
class Located:
    """A protocol, and whether it was unpickled from the record itself: then there is nothing to hold against that."""

    function: Protocol
    from_record: bool = False


def find(
    record: Mapping[str, Any],
    given: Protocol | Sequence[Protocol] | None = None,
    *,
    trust: bool = False,
    strict: bool = True,
) -> tuple[Protocol, ...]:
    """As `locate`, but only the functions."""
    return tuple(one.function for one in locate(record, given, trust=trust, strict=strict))


def locate(
    record: Mapping[str, Any],
    given: Protocol | Sequence[Protocol] | None = None,
    *,
    trust: bool = False,
    strict: bool = True,
) -> tuple[Located, ...]:
    """The protocols that made an output, in order.

    Parameters
    ----------
    record : mapping
        The output's record.
    given : callable or sequence of callables, optional
        The protocols; nothing is searched then.
    trust : bool
        Import them from whatever module the record names, and unpickle those that cannot be imported. Both can run
        any code. Otherwise only ready-made protocols are taken, and functions of the user's own files whose source is
        the recorded one; that is seen before the file is imported.
    strict : bool
        A function that was changed is a mismatch; otherwise it must be given.

    Raises
    ------
    ProtocolError
        Another number was given than the record has, or one cannot be found or may not be run without *trust*.
    MismatchError
        One was changed since, and *strict*.
    """
    recorded: list[dict[str, Any]] = list(record["metadata"]["protocols"])
    if given is not None:
        functions = (given,) if callable(given) else tuple(given)
        if len(functions) != len(recorded):
            names = ", ".join(_name(one) for one in recorded)
            raise ProtocolError(
                f"{len(functions)} protocols were given, the record has {len(recorded)}: {names}. Give these, in order."
            )
        return tuple(map(Located, functions))
    return tuple(_find_one(one, record["metadata"].get("git"), trust, strict) for one in recorded)


def load_file(path: str | os.PathLike[str]) -> ModuleType:
    """Import a Python file as the module of its name, its folder at the end of the search path.

    Raises
    ------
    InputError
        There is no such file, it fails, or another module already has its name.
    """
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise InputError(f"there is no file {os.fspath(path)!r}; give the Python file that holds the protocol.")
    if not file.stem.isidentifier() or file.suffix != ".py":
        raise InputError(f"{file.name!r} cannot be a module's name; rename it to a Python name such as 'protocols.py'.")
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # last: a file called random.py must not replace Python's own
    loaded = sys.modules.get(file.stem)
    spec = loaded.__spec__ if loaded is not None else importlib.util.find_spec(file.stem)
    if spec is None or spec.origin is None or Path(spec.origin).resolve() != file:
        raise InputError(f"{file.name!r} has the name of another module ({file.stem}); rename the file.")
    try:
        return importlib.import_module(file.stem)
    except Exception as error:
        raise InputError(f"{file} cannot be imported: {type(error).__name__}: {error}. Mend the file.") from error


def _find_one(recorded: Mapping[str, Any], git: Mapping[str, Any] | None, trust: bool, strict: bool) -> Located:
    if recorded["module"] == "__main__":
        found, why = _in_main(recorded), "was defined in a script or notebook (__main__)"
    elif trust:
        found, why = _imported(recorded, git)
    else:
        found, why = _known(recorded, git, strict)
    if found is not None:
        return Located(found)
    if trust and recorded.get("pickle"):
        return Located(_unpickled(recorded), from_record=True)
    raise ProtocolError(
        f"protocol {_name(recorded)} {why}. Give it as protocols=[…] (on the command line: --protocol file.py:name), "
        "or, if you trust whoever wrote this file, trust=True (--trust) to load it from the record."
    )


def _in_main(recorded: Mapping[str, Any]) -> Protocol | None:
    """The same function in the script or notebook that runs now, if it is there unchanged."""
    function = _attribute(sys.modules["__main__"], str(recorded["name"]))
    return function if function is not None and describe(function).digest == recorded["digest"] else None


def _known(recorded: Mapping[str, Any], git: Mapping[str, Any] | None, strict: bool) -> tuple[Protocol | None, str]:
    """A protocol that a record may name: ready-made, or a function of the user's own that is the recorded one."""
    module, name = str(recorded["module"]), str(recorded["name"])
    top = module.partition(".")[0]
    if top == "mlipcluster":
        ready = {(f.__module__, f.__qualname__): f for f in (getattr(ready_made, n) for n in ready_made.__all__)}
        return ready.get((module, name)), "is no ready-made protocol of this mlipcluster"
    if top in sys.stdlib_module_names:
        return None, "is from Python's standard library, which holds no protocols"
    loaded = sys.modules.get(module)
    if (file := _file_of(module, loaded)) is not None:
        why = _unlike(recorded, file, strict=strict, imported=loaded is not None)
        return (None, why) if why else _imported(recorded, git)
    if (file := _file_here(recorded, git)) is not None:
        why = _unlike(recorded, file, strict=strict, imported=False)
        # That file and no other: what the module's name may lead to was not looked at.
        return (None, why) if why else (_attribute(load_file(file), name), f"is not in {file}")
    return None, f"cannot be imported: No module named {module!r}"


def _unlike(recorded: Mapping[str, Any], file: Path, *, strict: bool, imported: bool) -> str:
    """Why a file's function of that name may not be run as the recorded one; empty if it may."""
    name = str(recorded["name"])
    if not is_user_file(str(file)):
        return f"is from an installed package ({file}), not from a file of yours"
    sources = definitions(file, name)
    if not sources:
        return f"is not in {file}, which has no function {name!r} at its top level"
    if any(is_same(source, recorded["text"]) for source in sources):
        return ""
    if not strict:
        return f"is another function in {file} than recorded"
    if not imported:
        raise _changed(recorded, sources[-1])
    return ""  # nothing new is run to look at it, and the check of all its source tells more


def _file_of(name: str, loaded: ModuleType | None) -> Path | None:
    """The source file of a module, without importing it."""
    spec = find_spec(name)
    file = getattr(loaded, "__file__", None) if loaded is not None else spec.origin if spec else None
    return Path(file) if file and Path(file).is_file() else None


def _changed(recorded: Mapping[str, Any], here: str) -> MismatchError:
    lines = difflib.unified_diff(recorded["text"].splitlines(), here.splitlines(), "recorded", "here", lineterm="", n=1)
    difference = "\n    ".join([f"code: protocol {_name(recorded)} changed", *lines])
    return MismatchError(
        f"1 thing is not as recorded:\n  {difference}\nPut it back as the record says; or give the protocol, "
        "protocols=[…] (--protocol file.py:name), with strict=False (--lenient).",
        (difference,),
    )


def _imported(recorded: Mapping[str, Any], git: Mapping[str, Any] | None) -> tuple[Protocol | None, str]:
    try:
        module = importlib.import_module(recorded["module"])
    except ModuleNotFoundError as error:
        file = _file_here(recorded, git)
        if file is None:
            return None, f"cannot be imported: {error}"
        module = load_file(file)
    except Exception as error:  # noqa: BLE001 - a user's module may do anything
        return None, f"cannot be imported: {type(error).__name__}: {error}"
    function = _attribute(module, str(recorded["name"]))
    where = getattr(module, "__file__", None) or recorded["module"]
    return function, f"is not in {where}, which has no function {recorded['name']!r} at its top level"


def _file_here(recorded: Mapping[str, Any], git: Mapping[str, Any] | None) -> Path | None:
    """The protocol's file in the repository around the working directory, or where it was; if it is ours to run.

    A record names files; a file that another user left there is not run.
    """
    if not (name := recorded.get("file")):
        return None
    candidates = [Path(name)]
    here = find_root(Path.cwd())
    if git and here is not None and Path(name).is_relative_to(git["root"]):
        candidates.insert(0, here / Path(name).relative_to(git["root"]))
    return next((c for c in candidates if c.is_file() and c.stat().st_uid in (os.getuid(), 0)), None)


def _attribute(module: ModuleType, qualname: str) -> Protocol | None:
    value: Any = module
    for part in qualname.split("."):
        value = getattr(value, part, None)
    return value if callable(value) else None


def _unpickled(recorded: Mapping[str, Any]) -> Protocol:
    import cloudpickle

    packed = decode(recorded["pickle"], trust=True)
    function: Protocol = cloudpickle.loads(packed) if isinstance(packed, bytes) else packed
    if not callable(function):
        raise ProtocolError(f"what the record holds as {_name(recorded)} is no function; give protocols=[…].")
    return function


def _name(recorded: Mapping[str, Any]) -> str:
    return f"{recorded['module']}:{recorded['name']}"
