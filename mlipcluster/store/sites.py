"""Where a group's root of environments is: named clusters, and what sites and users write in TOML.

A file looks like this; both parts may be left out::

    root = "/shared/mlips"  # taken where neither a root nor a cluster is asked for

    [clusters.della]
    root = "/scratch/gpfs/SHARED/rootstock"

    [clusters.gpu]  # where workers run: a kind of deployment, and any of its fields
    type = "slurm"
    queue = "gpu"
    gpus = 1

Key by key, a later one overrides an earlier: what is built in, the site's file (:data:`SITE_FILE`), the user's
(``$XDG_CONFIG_HOME/mlipcluster/config.toml``, else ``~/.config/mlipcluster/config.toml``), ``MLIPCLUSTER_ROOT`` for
``root``, and what is handed in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Union

from mlipcluster.errors import InputError

SITE_FILE = "/etc/mlipcluster/config.toml"
#: Names another site's file; then it has to be there.
SITE_VARIABLE = "MLIPCLUSTER_SITE_CONFIG"
ROOT_VARIABLE = "MLIPCLUSTER_ROOT"
BUILT_IN = "built in"
EXAMPLES = {
    "clusters": {
        "modal": {"root": "/vol/rootstock"},
        "della": {"root": "/scratch/gpfs/SHARED/rootstock"},
    }
}

PathLike = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True)
class Setting:
    """A value, and who says so.

    Attributes
    ----------
    value : object
        As :data:`KEYS` reads it: a full path for ``root``.
    origin : str
        ``"built in"``, the path of a file, or the name of a variable.
    """

    value: Any
    origin: str


def find_root(root: PathLike | None = None, cluster: str | None = None) -> Path:
    """The root that is asked for, else the one that variable and files name; it need not exist.

    Parameters
    ----------
    root : path, optional
        Itself; ``~`` is the home folder.
    cluster : str, optional
        Name of a cluster instead.

    Raises
    ------
    InputError
        Both are given or nothing names a root; the cluster is unknown; a file cannot be used.
    """
    found = known_root(root, cluster)
    if found is None:
        raise InputError(
            f"no root of environments is named; give root= (--root) or cluster= (--cluster), set {ROOT_VARIABLE}, or"
            f' write root = "…" into {user_file()}'
        )
    return found


def known_root(root: PathLike | None = None, cluster: str | None = None) -> Path | None:
    """As :func:`find_root`, but None where nothing names a root."""
    if root is not None and cluster is not None:
        raise InputError(f"root={os.fspath(root)!r} and cluster={cluster!r} are both given; give one of them")
    if root is not None:
        if not os.fspath(root):
            raise InputError("root is empty; give the path of a folder, or leave it out")
        return _absolute(root)
    if cluster is None and os.environ.get(ROOT_VARIABLE):
        return _absolute(os.environ[ROOT_VARIABLE])  # whatever the files say: they are not read
    known = settings()
    if cluster is None:
        return Path(known["root"].value) if "root" in known else None
    if (setting := known.get(f"clusters.{cluster}.root")) is None:
        if said := known.get(f"clusters.{cluster}.{TYPE}"):
            raise InputError(
                f"cluster {cluster!r} says where workers run ({said.origin}), but has no root of environments. Add"
                f' root = "…" to it, or give root= instead'
            )
        clusters = [f"{name} ({one.value}, {one.origin})" for name, one in cluster_roots(known).items()]
        raise InputError(
            f"there is no cluster {cluster!r:.80}; known: {', '.join(clusters)}. Add it to {user_file()}:"
            f' [clusters.NAME] root = "…", or give root='
        )
    return Path(setting.value)


def cluster_roots(known: Mapping[str, Setting] | None = None) -> dict[str, Setting]:
    """The root of every named cluster, by name."""
    known = settings() if known is None else known
    parts = ((key.split(".", 1)[1].rpartition("."), one) for key, one in known.items() if key.startswith("clusters."))
    return {name: one for (name, _, what), one in parts if what == "root"}


def cluster_fields(name: str, known: Mapping[str, Setting] | None = None) -> dict[str, Setting]:
    """What is set for where workers of a named cluster run: ``type`` and fields of that kind; empty if nothing is."""
    known = settings() if known is None else known
    before = f"clusters.{name}."
    found = {key[len(before) :]: one for key, one in known.items() if key.startswith(before)}
    return {key: one for key, one in found.items() if key != "root" and "." not in key}


def cluster_names(known: Mapping[str, Setting] | None = None) -> list[str]:
    """The names of all clusters, whether they have a root, say where workers run, or both."""
    known = settings() if known is None else known
    return sorted({key.split(".", 1)[1].rpartition(".")[0] for key in known if key.startswith("clusters.")})


def settings() -> dict[str, Setting]:
    """Everything that is set, by its full name (``"root"``, ``"clusters.della.root"``), sorted.

    Raises
    ------
    InputError
        A file is no TOML, has a key that nobody reads, or a value that cannot be meant; file and key are named.
    """
    merged = {key: Setting(_read(key, value, BUILT_IN), BUILT_IN) for key, value in _flat(EXAMPLES)}
    for path in config_files():
        merged.update((key, Setting(_read(key, value, str(path)), str(path))) for key, value in _flat(_toml(path)))
    if os.environ.get(ROOT_VARIABLE):
        merged["root"] = Setting(str(_absolute(os.environ[ROOT_VARIABLE])), ROOT_VARIABLE)
    _check_fields(merged)
    return dict(sorted(merged.items()))


def config_files() -> list[Path]:
    """The files that count, in the order in which they are read; the last has the last word.

    Raises
    ------
    InputError
        :data:`SITE_VARIABLE` names a file that is not there.
    """
    named = os.environ.get(SITE_VARIABLE)
    site = Path(named or SITE_FILE)
    if named and not site.is_file():
        raise InputError(f"{SITE_VARIABLE} names {named!r}, which is no file; correct it or unset it")
    return [path for path in (site, user_file()) if path.is_file()]


def user_file() -> Path:
    """Where the user's own settings are, or would be."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    folder = Path(base) if os.path.isabs(base) else Path("~/.config").expanduser()
    return folder / "mlipcluster" / "config.toml"


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


TYPE = "type"
#: What may be set, and how it is read; ``*`` stands for a name that the writer chooses, and at the end for a field of
#: the cluster's type. Reading raises ValueError that says what is wanted.
KEYS: dict[str, Callable[[Any], Any]] = {
    "root": _root,
    "clusters.*.root": _root,
    f"clusters.*.{TYPE}": _type,
    "clusters.*.*": _field,
}


def _read(key: str, value: Any, origin: str) -> Any:
    parts = key.split(".")
    pattern = key
    if len(parts) > 2:  # a name in quotes may hold dots
        pattern = ".".join([parts[0], "*", parts[-1]])
        pattern = pattern if pattern in KEYS else ".".join([parts[0], "*", "*"])
    if pattern not in KEYS:
        raise _unread(key, origin)
    try:
        return KEYS[pattern](value)
    except ValueError as error:
        raise InputError(f"{origin}: {key} is {value!r:.80}; give {error}") from None


def _unread(key: str, origin: str) -> InputError:
    known = ", ".join(one for one in KEYS if not one.endswith(".*"))
    return InputError(
        f"{origin}: nobody reads {key!r:.80}; known: {known}, and with a type its fields. Correct its name or remove it"
    )


def _check_fields(known: Mapping[str, Setting]) -> None:
    """See that the fields of a cluster come with its type; without it they may be misspelt."""
    for name in cluster_names(known):
        fields = cluster_fields(name, known)
        if fields and TYPE not in fields:
            key, one = next(iter(fields.items()))
            raise _unread(f"clusters.{name}.{key}", one.origin)


def _flat(tables: Mapping[str, Any], before: str = "", depth: int = 3) -> Iterator[tuple[str, Any]]:
    """Names with dots, and values, of nested tables; an empty table within another is a value that nobody reads.

    A field of a cluster may itself be a table.
    """
    for name, value in tables.items():
        if isinstance(value, Mapping) and (value or not before) and depth > 1:
            yield from _flat(value, f"{before}{name}.", depth - 1)
        else:
            yield before + name, value


def _toml(path: Path) -> dict[str, Any]:
    tomllib = _reader()
    if tomllib is None:
        raise InputError(f"{path} cannot be read by this Python, which has no TOML reader; install tomli in it")
    try:
        return dict(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}. Correct the file, or remove it") from error


def _reader() -> Any:
    """Python's reader of TOML, the package that it was before 3.11, or None."""
    for name in ("tomllib", "tomli"):
        try:
            return __import__(name)
        except ImportError:
            continue
    return None


def _absolute(path: PathLike) -> Path:
    return Path(os.path.abspath(os.path.expanduser(os.fspath(path))))
