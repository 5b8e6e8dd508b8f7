"""What may be set: each key, how its value is read, and what holds where nobody says anything."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable

from mlipcluster.errors import InputError

TYPE = "type"
VARIABLES = "MLIPCLUSTER_"
#: Bytes.
MAX_REQUEST = 1 << 28


@dataclass(frozen=True)
class Key:
    """A key.

    Attributes
    ----------
    read : callable
        From what a file, or an argument, holds to the value; raises ValueError that says what is wanted.
    default : object
        The value where nobody says anything.
    heard : callable
        From the text of a variable to what a file would hold.
    beside : callable, optional
        From a value and the folder of the file that says so to what is meant; default: the value itself.
    """

    read: Callable[[Any], Any]
    default: Any = None
    heard: Callable[[str], Any] = str
    beside: Callable[[Any, str], Any] | None = None


def variable(key: str) -> str:
    """The environment variable of a key: ``MLIPCLUSTER_SERVE_RETRIES`` for ``serve.retries``."""
    return VARIABLES + key.upper().replace(".", "_")


def read(key: str, value: Any, origin: str, folder: str = "") -> Any:
    """The value of a key, as *origin* says it, a file of that folder perhaps.

    Raises
    ------
    InputError
        Nobody reads the key, or the value cannot be meant; origin and key are named.
    """
    known = _find(key, origin)
    try:
        found = known.read(value)
    except ValueError as error:
        raise InputError(f"{origin}: {key} is {value!r:.80}; give {error}") from None
    return known.beside(found, folder) if known.beside and folder else found


def _find(key: str, origin: str) -> Key:
    """What is known of a key that *origin* has. Raises InputError where that is nothing."""
    parts = key.split(".")
    pattern = key
    if len(parts) > 2:  # a name in quotes may hold dots
        pattern = ".".join([parts[0], "*", parts[-1]])
        pattern = pattern if pattern in KEYS else ".".join([parts[0], "*", "*"])
    if pattern not in KEYS:
        raise unread(key, origin)
    return KEYS[pattern]


def unread(key: str, origin: str) -> InputError:
    """The error for a key that nobody reads."""
    known = [one for one in KEYS if not one.endswith(".*")]
    return InputError(
        f"{origin}: nobody reads {key!r:.80}; known: {', '.join(known)}, and with a type its fields."
        f"{_meant(key, known)} Correct its name or remove it"
    )


def check_variables(variables: Mapping[str, str]) -> None:
    """See that every variable that looks like a setting of ``serve`` is one.

    Raises
    ------
    InputError
        One is not; it is named, with the one that was meant.
    """
    known = [variable(key) for key in PLAIN]
    before = variable("serve.")
    for name in sorted(variables):
        if name.startswith(before) and name not in known:
            listed = ", ".join(one for one in known if one.startswith(before))
            raise InputError(
                f"nobody reads the variable {name:.80}; known: {listed}."
                f"{_meant(name, known)} Correct its name or unset it"
            )


def _meant(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f" Did you mean {close[0]!r}?" if close else ""


def absolute(path: Any) -> str:
    """*path* from the root folder on; ``~`` is the home folder."""
    return str(os.path.abspath(os.path.expanduser(os.fspath(path))))


# How values are read


def _root(value: Any) -> str:
    """A root as a file gives it: text, and a full path, because nobody knows where a relative one begins."""
    if not isinstance(value, str) or not os.path.isabs(os.path.expanduser(value)):
        raise ValueError("the full path of a folder")
    return os.path.expanduser(value)


def _type(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError('the kind of a cluster, such as "slurm"')
    return value


def _field(value: Any) -> Any:
    """A field of a kind of cluster; whether it may be is known to that alone."""
    if isinstance(value, (str, int, float, list, Mapping)):
        return value
    raise ValueError("text, a number, true or false, a list, or a table")


def _switch(value: Any) -> bool:
    if value is not True and value is not False:
        raise ValueError("true or false")
    return value


def _address(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("the path of a Unix socket, or tls://HOST:PORT")
    return value


def _folder(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("the path of a folder")
    return value


def _tables(value: Any) -> list[str]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) and ":" in one for one in value):
        raise ValueError("a list of tables of calculators, FILE.py:NAME or package.module:NAME")
    return list(value)


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError("a positive number of seconds")
    return float(value)


def _whole(least: int, what: str) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"a whole number{what}, {least} or more")
        return value

    return read


# How the text of a variable is heard; what is not meant stays text, which is then refused.


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _truth(text: str) -> Any:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    return words.get(text.strip().lower(), text)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _socket_beside(address: str, folder: str) -> str:
    """The path of a socket, found from the folder of the file that names it; another address as it is."""
    path = address.removeprefix("unix://").removeprefix("unix:")
    return address if "://" in path else _path_beside(path, folder)


def _beside(tables: list[str], folder: str) -> list[str]:
    """Tables of files, found from the folder of the file that names them."""
    return [_table_beside(table, folder) for table in tables]


def _table_beside(table: str, folder: str) -> str:
    path, _, name = table.rpartition(":")
    if not path.endswith(".py"):
        return table
    return f"{_path_beside(path, folder)}:{name}"


def _path_beside(path: str, folder: str) -> str:
    return os.path.normpath(os.path.join(folder, os.path.expanduser(path)))


#: ``*`` stands for a name that the writer chooses, and at the end for a field of the cluster's type.
KEYS: dict[str, Key] = {
    "root": Key(_root, heard=absolute),
    "clusters.*.root": Key(_root),
    f"clusters.*.{TYPE}": Key(_type),
    "clusters.*.*": Key(_field),
    "use_serve": Key(_switch, heard=_truth),
    "serve.address": Key(_address, beside=_socket_beside),
    "serve.tls": Key(_folder, beside=_path_beside),
    "serve.calculators": Key(_tables, (), heard=_list, beside=_beside),
    "serve.max_workers": Key(_whole(1, ""), 2, heard=_number),
    "serve.idle_timeout": Key(_seconds, 300.0, heard=_number),
    "serve.start_timeout": Key(_seconds, 60.0, heard=_number),
    "serve.retries": Key(_whole(0, ""), 2, heard=_number),
    "serve.timeout": Key(_seconds, heard=_number),
    "serve.max_request": Key(_whole(1, " of bytes"), MAX_REQUEST, heard=_number),
}
#: Those that everybody has, each with a variable.
PLAIN = tuple(key for key in KEYS if "*" not in key)
