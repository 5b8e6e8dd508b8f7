"""A calculator whose worker a command starts: ``uvx --with mace-torch mlipcluster worker …``."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from mlipcluster.errors import InputError

TEMPLATES = ("name", "broker", "idle_timeout")
#: A name in braces; neither JSON nor a shell's ``${VARIABLE}``.
_TEMPLATE = re.compile(r"(?<!\$)\{([A-Za-z_]\w*)\}")
_OTHER_PROTOCOL = re.compile(r"(?:^|[\s/'\"])aserpc(?:[@=~<>]\S*)?\s+worker(?:[\s'\"]|$)")


@dataclass(frozen=True)
class SpawnConfig:
    """A command that starts a worker of a calculator; the worker joins the server by itself.

    Parameters
    ----------
    name : str
        The calculator, under which its worker joins.
    command : sequence of str
        What is run. Of words in braces these are replaced: ``{name}``, ``{broker}`` (the server's address) and
        ``{idle_timeout}`` (s).
    env : mapping of str to str
        Environment variables beside the server's own.
    cwd : path, optional
        The folder that it runs in; default: the server's.
    idle_timeout : float, optional
        Seconds without work after which the worker ends; default: what the server says.

    Raises
    ------
    InputError
        A field cannot be used; the message names calculator and field.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    idle_timeout: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InputError(f"a spawn configuration has the name {self.name!r:.80}; give the calculator's")
        object.__setattr__(self, "command", self._checked_command())
        object.__setattr__(self, "env", self._checked_env())
        object.__setattr__(self, "cwd", self._checked_cwd())
        seconds = self.idle_timeout
        if seconds is not None and (
            not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 < seconds < math.inf
        ):
            raise self._error("idle_timeout", seconds, "give a positive number of seconds, or None for the server's")

    def __reduce__(self) -> tuple[Any, ...]:
        return SpawnConfig, (self.name, self.command, dict(self.env), self.cwd, self.idle_timeout)

    @classmethod
    def described(cls, name: str, told: Mapping[str, Any]) -> SpawnConfig:
        """The configuration that a mapping of its fields describes; *name* unless it says another.

        Raises
        ------
        InputError
            It has an unknown field, or one that cannot be used.
        """
        known = tuple(cls.__dataclass_fields__)
        if unknown := sorted(set(map(str, told)) - set(known)):
            raise InputError(
                f"calculator {name!r}: a spawn configuration has no {unknown[0]!r}; it has {', '.join(known)}"
            )
        return cls(**{"name": name, **told})

    def filled(self, *, broker: str, idle_timeout: float) -> list[str]:
        """The command with its templates filled.

        Parameters
        ----------
        broker : str
            Address of the server.
        idle_timeout : float
            The server's, in seconds; its own comes first.
        """
        seconds = self.idle_timeout if self.idle_timeout is not None else idle_timeout
        values = {"name": self.name, "broker": broker, "idle_timeout": f"{seconds:.15g}"}
        return [_TEMPLATE.sub(lambda found: values[found[1]], word) for word in self.command]

    def _checked_command(self) -> tuple[str, ...]:
        command = self.command
        is_list = isinstance(command, Sequence) and not isinstance(command, (str, bytes))
        if not is_list or not command or not all(isinstance(word, str) for word in command) or not command[0]:
            raise self._error("command", command, "give a list of words: the program and its arguments")
        for word in (found for text in command for found in _TEMPLATE.findall(text)):
            if word not in TEMPLATES:
                raise self._error("command", f"{{{word}}}", f"known: {', '.join(f'{{{one}}}' for one in TEMPLATES)}")
        if _OTHER_PROTOCOL.search(" ".join(command)):
            raise self._error(
                "command", " ".join(command), "aserpc's workers speak another protocol; write `mlipcluster worker`"
            )
        return tuple(command)

    def _checked_env(self) -> Mapping[str, str]:
        env = {} if self.env is None else self.env
        if not isinstance(env, Mapping) or not all(isinstance(text, str) for pair in env.items() for text in pair):
            raise self._error("env", env, "give a mapping of variables to text")
        return MappingProxyType(dict(env))

    def _checked_cwd(self) -> str | None:
        if self.cwd is None:
            return None
        if not isinstance(self.cwd, (str, os.PathLike)):
            raise self._error("cwd", self.cwd, "give the path of a folder")
        return os.path.expanduser(os.fspath(self.cwd))

    def _error(self, name: str, found: object, remedy: str) -> InputError:
        return InputError(f"calculator {self.name!r}: {name} of its spawn configuration is {found!r:.200}; {remedy}")
