"""A root of environments: what is registered in it, and what is built."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mlipcluster.environments.environment import Environment
from mlipcluster.errors import InputError, RecordError
from mlipcluster.files import write_atomic
from mlipcluster.store.layout import Layout, open_root, read_json
from mlipcluster.store.parts import RETIRED_FILE, remove_tree
from mlipcluster.store.source import PYTHON, Source, check_name, read_source

BUILD_FILE, ENVIRONMENT_FILE = "build.json", "environment.json"
SCHEMA = 1
_MANIFESTS = ("pixi.toml", "environment.yml")


@dataclass(frozen=True)
class Build:
    """An environment that is built. Nothing in its folder changes any more.

    Attributes
    ----------
    name, digest : str
        Its name, and the SHA-256 of name, source and lock as 64 hexadecimal digits.
    folder : Path
        Where it lies: not the link ``builds/<digest>``, which may be switched, but what that points to.
    source : Source
        What it was built of; the one that is registered may be another by now.
    manager : str
        Who made it: a row of :data:`mlipcluster.environments.managers.MANAGERS`.
    python : Path
        Its interpreter.
    facts : mapping
        All of ``build.json``: ``lock_digest``, ``environment_digest``, ``python_version``, ``size`` in bytes,
        ``started``, ``seconds``, versions.
    """

    name: str
    digest: str
    folder: Path
    source: Source
    manager: str
    python: Path
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def module(self) -> str:
        """What its Python file is imported as, with `folder` among the places to import from."""
        return self.source.module

    @cached_property
    def environment(self) -> Environment:
        """As it was measured when it was built.

        Raises
        ------
        RecordError
            What was written then is damaged.
        """
        return Environment.from_json(read_json(self.folder / ENVIRONMENT_FILE))

    @classmethod
    def read(cls, folder: Path, digest: str) -> Build | None:
        """The build in that folder; None where there is none, or its interpreter is gone."""
        found = read_json(folder / BUILD_FILE)
        try:
            source = Source(**{str(key): str(value) for key, value in found["source"].items()})
            python = folder / str(found["interpreter"])
            build = cls(str(found["name"]), digest, folder, source, str(found["manager"]), python, found)
        except (KeyError, TypeError, AttributeError):
            return None
        return build if found.get("schema") == SCHEMA and _is_there(python) else None


class Store:
    """A root of environments, and what is in it. Only reading, unless a method says otherwise.

    Parameters
    ----------
    root : path
        The root.

    Raises
    ------
    InputError
        It is no root, or a newer mlipcluster's.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.layout: Layout = open_root(root)

    @property
    def root(self) -> Path:
        """Its folder."""
        return self.layout.root

    @property
    def cache(self) -> Path:
        """Where models keep their weights."""
        return self.layout.cache

    def weights_file(self, name: str) -> Path:
        """Where it is written which models were fetched for an environment."""
        return self.layout.weights / f"{name}.json"

    def smoke_file(self, name: str) -> Path:
        """Where the known answers of an environment's smoke tests are written."""
        return self.layout.smoke / f"{name}.json"

    def sources(self) -> dict[str, Source]:
        """What is registered, by name; without what cannot be read (:meth:`broken`)."""
        return {name: found for name, found in self._registered().items() if isinstance(found, Source)}

    def broken(self) -> dict[str, str]:
        """What is wrong with registered files that cannot be read, by name."""
        return {name: str(found) for name, found in self._registered().items() if isinstance(found, InputError)}

    def names(self) -> set[str]:
        """What is registered, whether it can be read or not."""
        return {path.stem for path in self.layout.sources.glob("*.py")}

    def source(self, name: str) -> Source:
        """What is registered under that name.

        Raises
        ------
        InputError
            Nothing is, or it cannot be read; the message lists what is registered.
        """
        found = self._registered()
        if name not in found:
            known = ", ".join(found) or "none"
            raise InputError(
                f"no environment {name!r:.100} is registered in {str(self.root)!r} (registered: {known}); "
                f"{self.command('register', 'FILE.py')}"
            )
        source = found[name]
        if isinstance(source, InputError):
            raise source
        return source

    def current(self, name: str) -> Build | None:
        """The build that a name stands for; None where it is not built, or its folder is gone."""
        digest = read_json(self.layout.current_file(name)).get("digest")
        return self.build(digest) if isinstance(digest, str) and digest.isalnum() else None

    def build(self, digest: str) -> Build | None:
        """The build of that digest; None where there is none."""
        link = self.layout.link(digest)
        try:
            folder = self.layout.parts / Path(os.readlink(link)).name
        except OSError:
            return None
        return Build.read(folder, digest)

    def built(self, name: str) -> Build:
        """The build that a name stands for.

        Raises
        ------
        InputError
            It is not registered, or not built; the message says how to, and lists what is built.
        """
        build = self.current(name)
        if build is None:
            self.source(name)
            others = ", ".join(other for other in self.sources() if self.current(other)) or "none"
            raise InputError(
                f"environment {name!r} is not built in {str(self.root)!r} (built: {others}); "
                f"{self.command('build', name)}"
            )
        return build

    def command(self, *words: str) -> str:
        """How to run a command on this root, for messages."""
        return f"run `mlipcluster env {' '.join(words)} --root {shlex.quote(str(self.root))}`"

    def register(
        self, path: str | os.PathLike[str], name: str = "", setup: str | os.PathLike[str] | None = None
    ) -> tuple[Source, str]:
        """Copy a source file into the root. What is built of an earlier one stays until the next build.

        Parameters
        ----------
        path, name, setup
            As for :func:`mlipcluster.store.source.read_source`.

        Returns
        -------
        source : Source
            What is registered now.
        what : str
            ``"new"``, ``"same"`` or ``"replaced"``.

        Raises
        ------
        InputError
            The file cannot be used, and what was registered stays; or the root cannot be written.
        """
        source = read_source(path, name, setup)
        self.layout.check_writable()
        before = self._registered().get(source.name)
        if isinstance(before, Source) and before == source:
            return source, "same"
        kept = self.layout.sources
        if source.kind != PYTHON:
            self._write(kept / f"{source.name}.{source.file_name}", source.text)
        self._write(kept / f"{source.name}.py", source.script)
        for other in _MANIFESTS:
            if other != source.file_name:
                (kept / f"{source.name}.{other}").unlink(missing_ok=True)
        return source, "new" if before is None else "replaced"

    def remove(self, name: str, *, builds: bool = False) -> list[Build]:
        """Take a name out of the root; its builds stay for those that use them, unless *builds*.

        Returns
        -------
        list of Build
            Those that were removed.

        Raises
        ------
        InputError
            Nothing of that name is registered or built, or the root cannot be written.
        """
        check_name(name)
        if name not in self._registered() and not self.layout.current_file(name).exists():
            self.source(name)
        self.layout.check_writable()
        mine = [build for build in self.builds() if build.name == name]
        self.layout.current_file(name).unlink(missing_ok=True)
        for suffix in ("py", *_MANIFESTS):
            (self.layout.sources / f"{name}.{suffix}").unlink(missing_ok=True)
        for build in mine:
            self.retire(build.folder)
        for path in (*self.layout.locks.glob(f"{name}.*"), self.weights_file(name), self.smoke_file(name)):
            path.unlink(missing_ok=True)
        return [build for build in mine if builds and self.remove_build(build)]

    def builds(self) -> list[Build]:
        """Every build, whether a name stands for it or not."""
        digests = [entry.name for entry in sorted(self.layout.builds.iterdir()) if entry.is_symlink()]
        return [build for build in map(self.build, digests) if build is not None]

    def used(self) -> set[str]:
        """Digests of the builds that names stand for, those that were removed while they were built left out."""
        names = self.names()
        found = (read_json(path).get("digest") for path in self.layout.current.glob("*.json") if path.stem in names)
        return {digest for digest in found if isinstance(digest, str)}

    def switch(self, build: Build) -> None:
        """Let the build's name stand for it, from now on; what it stood for is kept for those that use it."""
        before = self.current(build.name)
        text = json.dumps({"schema": SCHEMA, "name": build.name, "digest": build.digest, "since": time.time()})
        self._write(self.layout.current_file(build.name), text + "\n")
        (build.folder / RETIRED_FILE).unlink(missing_ok=True)
        if before is not None and before.folder != build.folder:
            self.retire(before.folder)

    def retire(self, folder: Path) -> None:
        """Note that from now on nobody comes to a build any more; who uses it goes on."""
        with contextlib.suppress(OSError):  # somebody else's folder: then it counts from when that is noticed
            if not (folder / RETIRED_FILE).exists():
                self._write(folder / RETIRED_FILE, json.dumps({"since": time.time()}) + "\n")

    def remove_build(self, build: Build) -> bool:
        """Remove a build, whoever uses it; False where something of it could not be removed."""
        link = self.layout.link(build.digest)
        with contextlib.suppress(OSError):
            if Path(os.readlink(link)).name == build.folder.name:
                link.unlink(missing_ok=True)
        remove_tree(build.folder)
        return not build.folder.exists()

    def _registered(self) -> dict[str, Source | InputError]:
        found: dict[str, Source | InputError] = {}
        for path in sorted(self.layout.sources.glob("*.py")):
            manifests = [path.with_name(f"{path.stem}.{name}") for name in _MANIFESTS]
            manifest = next((other for other in manifests if other.is_file()), None)
            try:
                found[path.stem] = read_source(manifest or path, path.stem, path if manifest else None)
            except InputError as error:
                found[path.stem] = error
        return found

    def _write(self, path: Path, text: str) -> None:
        write_atomic(path, text)
        self.layout.share_file(path)


def _is_there(python: Path) -> bool:
    """Whether an interpreter is there; one that lies where this user may not look is."""
    try:
        return stat.S_ISREG(os.stat(python).st_mode)
    except PermissionError:
        return True
    except OSError:
        return False


def measured_as_built(build: Build) -> list[str]:
    """How an environment differs from what it was when it was built, one line each; it is measured for that."""
    from mlipcluster.environments.environment import difference
    from mlipcluster.environments.measure import measure
    from mlipcluster.errors import MeasureError

    try:
        return difference(build.environment, measure(build.python))
    except (MeasureError, RecordError) as error:
        return [str(error)]
