"""What a calculator is: a factory, its arguments, and the Python that it runs in."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mlipcluster.calculators.places import PLACES
from mlipcluster.environments.measure_script import without_credentials
from mlipcluster.errors import InputError
from mlipcluster.socket_worker.factory import parts
from mlipcluster.store.layout import Layout

FRESH = "fresh"
#: Stands in a record for the value of a variable whose name says that it is secret.
HIDDEN = "<hidden>"
SECRET = re.compile("token|secret|passw|key|auth|credential", re.IGNORECASE)
_BUILD = re.compile(r"(?s)(?P<root>.+)/builds/(?P<digest>[0-9a-f]{64})/?")
#: Seconds; the milliseconds of a longer wait do not fit into what the system takes.
LONGEST_TIMEOUT = 2_000_000


@dataclass(frozen=True, eq=False, repr=False)
class CalculatorSpec:
    """A calculator, described well enough to build it in another process. Hashable; survives a round trip through JSON.

    Frozen to the bottom: a list among the arguments becomes a tuple, a dict one that cannot be changed. Variables whose
    names contain ``token``, ``secret``, ``passw``, ``key``, ``auth`` or ``credential``, and credentials in addresses,
    reach the calculator's process, and no record.

    Parameters
    ----------
    factory : str
        ``"module:callable"``; calling it gives the calculator. The callable may be nested, ``"module:Class.method"``,
        or an item of a table, ``"module:TABLE[key]"``.
    args, kwargs : tuple, mapping
        Arguments of the factory: anything that JSON can hold.
    python : str, optional
        Interpreter, or folder of an environment, to run it in; by default the interpreter that asks for it.
    paths : tuple of str
        Folders from which it may import besides that environment.
    device : str, optional
        Handed to the factory as ``device=`` (or ``use_device=``, where the factory calls it so). ``"auto"`` is the GPU
        that PyTorch sees there, else ``"cpu"``, and is handed only to a factory that takes a device.
    threads : int
        Threads that OpenMP, MKL, OpenBLAS and torch may use. The order of sums, and so the last bits, depend on it.
    startup_timeout, call_timeout : float
        Seconds until a start, or a single calculation, is given up; ``call_timeout=None`` waits for ever.
    state : str
        How it is brought to a defined state before each protocol call: ``"fresh"`` calls the factory again; anything
        else names a method of the calculator, ``"reset"`` for example.
    info_keys : tuple of str
        Entries of ``atoms.info`` that it reads.
    environment : tuple of (str, str)
        Environment variables of its process.
    name : str
        A short name, for people.

    Raises
    ------
    InputError
        A field cannot be used; the message names it.
    """

    factory: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    python: str | None = None
    paths: tuple[str, ...] = ()
    device: str | None = None
    threads: int = 1
    startup_timeout: float = 600.0
    call_timeout: float | None = None
    state: str = FRESH
    info_keys: tuple[str, ...] = ("charge", "spin")
    environment: tuple[tuple[str, str], ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        for name, value in (
            ("args", _frozen(_plain("args", self.args))),
            ("kwargs", _frozen(_plain("kwargs", dict(self.kwargs)))),
            ("python", os.fspath(self.python) if self.python is not None else None),
            ("paths", tuple(os.fspath(path) for path in _listed("paths", self.paths))),
            ("info_keys", tuple(_listed("info_keys", self.info_keys))),
            ("environment", _environment(self.environment)),
        ):
            object.__setattr__(self, name, value)
        self._check()
        text = json.dumps(self.to_json(), sort_keys=True)
        object.__setattr__(self, "_text", text)

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, CalculatorSpec) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return f"CalculatorSpec({', '.join(f'{name}={value!r}' for name, value in self.recorded().items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return CalculatorSpec.from_json, (self.to_json(),)

    _text: str = field(init=False, default="")

    @property
    def label(self) -> str:
        """Its name, or what follows the colon of its factory."""
        return self.name or self.factory.partition(":")[2]

    @property
    def interpreter(self) -> Path:
        """The Python that runs it. Symbolic links stay: they are how a virtual environment knows itself."""
        if self.python is None:
            return Path(sys.executable)
        path = Path(self.python).expanduser().absolute()
        return path / "bin" / "python" if path.is_dir() else path

    @property
    def build(self) -> tuple[str, str] | None:
        """Root and digest of the build that it runs in, where it is of a root (`mlipcluster.store.store`)."""
        found = next(filter(None, map(_BUILD.fullmatch, self.paths)), None)
        return None if found is None else (found["root"], found["digest"])

    @property
    def remedy(self) -> str:
        """What is to be done when its interpreter or modules are not there."""
        if self.build is None:
            return "give python= an interpreter or the folder of an environment"
        root, module = self.build[0], self.factory.partition(":")[0]
        names = (module, module.removesuffix("_env"))  # Rootstock 1.6's `mace` is imported as `mace_env`
        name = next((one for one in names if (Layout(root).sources / f"{one}.py").exists()), module)
        return (
            "its environment is gone, or its root is not on this machine;"
            f" run `mlipcluster env build {name} --root {shlex.quote(root)}`"
        )

    def to_json(self) -> dict[str, Any]:
        """This spec as a JSON object; fields that have their default value are left out."""
        stated: dict[str, Any] = {"factory": self.factory}
        for item in fields(self):
            if not item.init or item.name == "factory":
                continue
            value = getattr(self, item.name)
            default = {} if item.default is MISSING else item.default
            if value != default:
                stated[item.name] = _plain(item.name, value)
        return stated

    def recorded(self) -> dict[str, Any]:
        """As :meth:`to_json`, without what is secret: :data:`HIDDEN` stands for the values of variables named so."""
        stated: dict[str, Any] = _without_credentials(self.to_json())
        if self.environment:
            pairs = stated["environment"]
            stated["environment"] = [[name, HIDDEN if SECRET.search(name) else text] for name, text in pairs]
        return stated

    def revealed(self, variables: Mapping[str, str]) -> CalculatorSpec:
        """This spec, where it was recorded, with its secret variables as they are in *variables*; or without them."""
        found = ((name, variables.get(name) if text == HIDDEN else text) for name, text in self.environment)
        return self.replace(environment=[pair for pair in found if pair[1] is not None])

    @classmethod
    def from_json(cls, stated: Mapping[str, Any]) -> CalculatorSpec:
        """The spec that :meth:`to_json` described."""
        if not isinstance(stated, Mapping):
            raise InputError(f"a calculator is described by a mapping, found {stated!r}; give its 'factory' at least")
        known = [item.name for item in fields(cls) if item.init]
        if unknown := sorted(set(stated) - set(known)):
            raise InputError(f"a calculator has no field {unknown[0]!r}; its fields are {', '.join(known)}")
        if "factory" not in stated:
            raise InputError("a calculator needs a factory; give factory='module:callable'")
        return cls(**stated)

    def replace(self, **changes: Any) -> CalculatorSpec:
        """This spec with some fields changed."""
        return CalculatorSpec.from_json({**self.to_json(), **changes})

    def identity(self) -> dict[str, Any]:
        """What decides its answers: neither the timeouts, nor the name, nor where its Python and modules lie.

        Nothing secret is in it: another token opens the same model. For one of a root, neither is where its caches lie.
        """
        names = ("factory", "args", "kwargs", "device", "threads", "state", "info_keys")
        stated = {name: _plain(name, getattr(self, name)) for name in names}
        places = PLACES if self.build is not None else ()
        deciding = ((name, text) for name, text in self.environment if name not in places)
        stated["environment"] = [[name, text] for name, text in deciding if not SECRET.search(name)]
        return dict(_without_credentials(stated))

    def _check(self) -> None:
        try:
            parts(self.factory)
        except ValueError as error:
            raise InputError(f"factory {self.factory!r} is {error}; give 'ase.calculators.emt:EMT'") from None
        if not isinstance(self.threads, int) or isinstance(self.threads, bool) or self.threads < 1:
            raise InputError(f"threads is {self.threads!r}; give a whole number from 1 on")
        for name in ("startup_timeout", "call_timeout"):
            seconds = getattr(self, name)
            if seconds is None and name == "call_timeout":
                continue
            if not isinstance(seconds, (int, float)) or not 0 < seconds <= LONGEST_TIMEOUT:
                forever = ", or None to wait for ever" if name == "call_timeout" else ""
                raise InputError(
                    f"{name} is {seconds!r}; give a positive number of seconds, at most {LONGEST_TIMEOUT:,}{forever}"
                )
        if not isinstance(self.state, str) or not self.state.isidentifier():
            raise InputError(f"state is {self.state!r}; give 'fresh' or the name of a method of the calculator")
        for name in ("device", "name"):
            if not isinstance(getattr(self, name), (str, type(None))):
                raise InputError(f"{name} is {getattr(self, name)!r}; give text")
        if not all(isinstance(key, str) for key in self.info_keys):
            raise InputError(f"info_keys is {self.info_keys!r}; give names of entries of atoms.info")


def _plain(name: str, value: Any) -> Any:
    """*value* as JSON gives it back: lists, dicts with text keys, numbers, text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"{name} holds {value!r}, which JSON cannot; give a finite number")
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (list, tuple)):
        return [_plain(name, item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(name, item) for key, item in value.items()}
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return _plain(name, value.item())
    raise InputError(
        f"{name} holds {value!r}, which JSON cannot; build such objects in a factory of your own and name that instead"
    )


def _frozen(value: Any) -> Any:
    """*value* as :func:`_plain` gives it, so that nobody can change it any more."""
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    return MappingProxyType({key: _frozen(item) for key, item in value.items()}) if isinstance(value, dict) else value


def _without_credentials(value: Any) -> Any:
    """*value* without the credentials in addresses in it."""
    if isinstance(value, str):
        return without_credentials(value) if "://" in value else value
    if isinstance(value, list):
        return [_without_credentials(item) for item in value]
    return {key: _without_credentials(item) for key, item in value.items()} if isinstance(value, dict) else value


def _listed(name: str, value: Any) -> list[Any]:
    if isinstance(value, (str, os.PathLike)) or not hasattr(value, "__iter__"):
        raise InputError(f"{name} is {value!r}; give a list")
    return list(value)


def _environment(value: Any) -> tuple[tuple[str, str], ...]:
    pairs = value.items() if isinstance(value, Mapping) else _listed("environment", value)
    try:
        return tuple(sorted((str(key), str(text)) for key, text in pairs))
    except (TypeError, ValueError):
        raise InputError(f"environment is {value!r}; give a mapping of variables to text") from None
