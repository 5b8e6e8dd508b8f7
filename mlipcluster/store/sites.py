"""Where a group's root of environments is: a path, a named cluster's, or the one that settings name.

Settings are those of `mlipcluster.settings.values`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Union

from mlipcluster.errors import InputError
from mlipcluster.settings.files import user_file
from mlipcluster.settings.keys import TYPE, absolute
from mlipcluster.settings.values import Setting, settings

ROOT_VARIABLE = "MLIPCLUSTER_ROOT"

PathLike = Union[str, "os.PathLike[str]"]


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
        return Path(absolute(root))
    if cluster is None and os.environ.get(ROOT_VARIABLE):
        return Path(absolute(os.environ[ROOT_VARIABLE]))  # whatever the files say: they are not read
    known = settings()
    if cluster is None:
        return Path(known["root"].value) if known["root"].value else None
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
