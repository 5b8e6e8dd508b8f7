"""The folders of a root of environments that a group shares, and what makes a folder one."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from mlipcluster.errors import InputError
from mlipcluster.files import write_atomic

KIND, SCHEMA = "mlipcluster root of environments", 1
MARKER = "mlipcluster-root.json"
FOLDERS = ("sources", "builds", "current", "locks", "cache", "weights", "smoke", "logs")


class Layout:
    """The one owner of a root's paths.

    ::

        mlipcluster-root.json   what this folder is, with the version of its layout
        sources/                registered source files: <name>.py, with <name>.pixi.toml or <name>.environment.yml
        builds/<digest>         a link to the folder of a build, switched in by rename
        builds/.parts/<unique>  the folder itself: made, filled, and never changed after that
        current/<name>.json     the build that a name stands for
        locks/                  what was resolved last, kept for the next build
        cache/                  weights of models, and what libraries keep beside them
        weights/<name>.json     which models were fetched
        smoke/<name>.json       known answers of smoke tests
        logs/                   of builds that failed
        python/                 Pythons that were downloaded because a build was told to

    Parameters
    ----------
    root : path
        The root; it need not exist.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(os.path.abspath(os.path.expanduser(os.fspath(root))))
        self.marker = self.root / MARKER
        self.sources, self.builds, self.current, self.locks = (self.root / name for name in FOLDERS[:4])
        self.cache, self.weights, self.smoke, self.logs = (self.root / name for name in FOLDERS[4:])
        self.parts = self.builds / ".parts"
        self.pythons = self.root / "python"

    @property
    def mode(self) -> int:
        """Permissions of the root, which those of all that is in it follow."""
        return stat.S_IMODE(self.root.stat().st_mode)

    def link(self, digest: str) -> Path:
        """Where the build of that digest is found."""
        return self.builds / digest

    def current_file(self, name: str) -> Path:
        """The file that says which build a name stands for."""
        return self.current / f"{name}.json"

    def turn_file(self, name: str) -> Path:
        """The lock of whoever builds the environment of that name."""
        return self.builds / f".lock-{name}"

    def make_folder(self, folder: Path) -> Path:
        """Make a folder with the root's own permissions: a group that may write into the root may write there."""
        folder.mkdir(exist_ok=True)
        with contextlib.suppress(PermissionError):  # somebody else's, who has seen to it
            if stat.S_IMODE(folder.stat().st_mode) != self.mode:
                folder.chmod(self.mode)
        return folder

    def share_file(self, path: Path | int) -> None:
        """Give a file the permissions that the root gives to the group and to others."""
        with contextlib.suppress(PermissionError):
            os.chmod(path, 0o600 | (self.mode & 0o066))

    def check_writable(self) -> None:
        """Raise InputError where this user may not write into the root; it says whose it is."""
        folder = next((f for f in (self.root, self.sources, self.builds, self.parts) if not os.access(f, _WRITE)), None)
        if folder is not None:
            raise InputError(
                f"{str(folder)!r} cannot be written by you; it belongs to {owner(folder)}: ask them, or make a root of "
                "your own with `mlipcluster env init --root …`"
            )


_READ, _WRITE = os.R_OK | os.X_OK, os.W_OK | os.X_OK


def make_root(root: str | os.PathLike[str]) -> tuple[Layout, bool]:
    """Make a root out of a folder that is empty or not there yet; where it is a root already, nothing changes.

    Returns
    -------
    layout : Layout
        Its paths.
    new : bool
        Whether it was no root before.

    Raises
    ------
    InputError
        The folder holds something else, cannot be written, or is a root of a newer version.
    """
    layout = Layout(root)
    if layout.marker.is_file():
        return open_root(root), False
    try:
        layout.root.mkdir(parents=True, exist_ok=True)
        _refuse_others(layout)
        for folder in (*(layout.root / name for name in FOLDERS), layout.parts):
            layout.make_folder(folder)
        # last: until it is there, the folder is none
        write_atomic(layout.marker, json.dumps({"kind": KIND, "schema": SCHEMA}) + "\n")
    except OSError as error:
        raise InputError(
            f"{str(layout.root)!r} cannot be made a root: {error.strerror or error}; choose a folder that you may write"
        ) from error
    layout.share_file(layout.marker)
    return layout, True


def open_root(root: str | os.PathLike[str]) -> Layout:
    """The paths of an existing root.

    Raises
    ------
    InputError
        There is none; the message says what is there instead, and what to do.
    """
    layout = Layout(root)
    _refuse_closed(layout)
    if not os.path.exists(layout.marker):  # False as well where a folder above it is closed
        raise InputError(_no_root(layout))
    found = read_json(layout.marker)
    if found.get("kind") != KIND or not isinstance(found.get("schema"), int):
        raise InputError(
            f"{str(layout.marker)!r} is damaged; write {json.dumps({'kind': KIND, 'schema': SCHEMA})} into it"
        )
    if found["schema"] > SCHEMA:
        raise InputError(
            f"{str(layout.root)!r} is a root of schema {found['schema']}, made by a newer mlipcluster; this one knows "
            f"{SCHEMA}: update it, or choose another root"
        )
    return layout


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none, or it is damaged."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def owner(path: Path) -> str:
    """Whose a file is: ``"'ada' (group 'mlip')"``."""
    import grp
    import pwd

    found = path.stat() if path.exists() else path.parent.stat()
    user, group = str(found.st_uid), str(found.st_gid)
    with contextlib.suppress(KeyError):  # a number without a name, as in some containers
        user = pwd.getpwuid(found.st_uid).pw_name
    with contextlib.suppress(KeyError):
        group = grp.getgrgid(found.st_gid).gr_name
    return f"{user!r} (group {group!r})"


def _refuse_closed(layout: Layout) -> None:
    """See that this user may look into the root: what is closed would be taken for empty, and another model served."""
    folders = (layout.root, layout.sources, layout.builds, layout.current)
    closed = next((folder for folder in folders if os.path.isdir(folder) and not os.access(folder, _READ)), None)
    if closed is not None:
        raise InputError(
            f"{str(closed)!r} cannot be read by you; it belongs to {owner(closed)}: ask them to open it, or name"
            " another root with --root"
        )


def _refuse_others(layout: Layout) -> None:
    names = sorted(entry.name for entry in layout.root.iterdir())
    if _is_rootstock(layout.root):
        raise InputError(_no_root(layout))
    if others := [name for name in names if name not in FOLDERS and not name.startswith(f".{MARKER}.")]:
        raise InputError(
            f"{str(layout.root)!r} is not empty (it holds {', '.join(others[:5])!r:.200}) and is no root; choose an "
            "empty folder, or a new one"
        )


def _no_root(layout: Layout) -> str:
    root = str(layout.root)
    if _is_rootstock(layout.root):
        return (
            f"{root!r} is a root of Rootstock, whose environments cannot be shared; its files work unchanged: "
            f"`mlipcluster env init --root NEW`, then `mlipcluster env register {root}/environments/*.py --root NEW`"
        )
    found = "is no root of environments" if os.path.isdir(root) else "does not exist"
    return f"{root!r} {found}; make one with `mlipcluster env init --root …`, or name another with --root"


def _is_rootstock(root: Path) -> bool:
    return os.path.isdir(root / "environments") and os.path.isdir(root / "envs")
