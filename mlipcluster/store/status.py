"""What a root holds: one reader of all that is written in it, so that no two views disagree."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlipcluster.store.layout import read_json
from mlipcluster.store.parts import RETIRED_FILE, abandoned, linked, running
from mlipcluster.store.source import Source
from mlipcluster.store.store import Build, Store, measured_as_built
from mlipcluster.store.turn import Owner

BUILT, NOT_BUILT, BROKEN = "built", "not built", "cannot be read"


@dataclass(frozen=True)
class EnvironmentStatus:
    """One registered environment.

    Attributes
    ----------
    name, kind : str
        Its name, and ``"python"``, ``"pixi"`` or ``"conda"``; empty where its file cannot be read.
    state : str
        ``"built"``, ``"not built"`` or ``"cannot be read"``.
    source_digest : str
        SHA-256 of what is registered.
    digest, lock_digest, environment_digest : str
        Of the build: its own, of its lock, and of what is installed; empty where it is not built.
    python, manager : str
        Version of its Python, and who made it.
    folder : str
        Where it lies.
    packages, size : int
        How many packages, and bytes, as counted when it was built.
    finished : str
        When it was built (ISO 8601, UTC).
    models : tuple of str
        Models whose weights were fetched.
    smoke : mapping of str to mapping
        The last smoke test of each model in this build: ``verdict``, ``when``.
    drift : tuple of str
        One line for each way it is not what it is taken for.
    """

    name: str
    kind: str
    state: str
    source_digest: str = ""
    digest: str = ""
    lock_digest: str = ""
    environment_digest: str = ""
    python: str = ""
    manager: str = ""
    folder: str = ""
    packages: int = 0
    size: int = 0
    finished: str = ""
    models: tuple[str, ...] = ()
    smoke: Mapping[str, Mapping[str, Any]] | None = None
    drift: tuple[str, ...] = ()


@dataclass(frozen=True)
class OldBuild:
    """A build that no name stands for any more.

    Attributes
    ----------
    name, digest : str
        What it was built for, and its digest.
    folder : Path
        Where it lies.
    size : int
        Bytes, as counted when it was built.
    since : float, optional
        Unix time since when nobody is sent there, in seconds; None where that was not noted.
    """

    name: str
    digest: str
    folder: Path
    size: int
    since: float | None

    @property
    def days(self) -> float:
        """For how many days nobody has been sent there."""
        return max(0.0, time.time() - self.since) / 86400 if self.since is not None else 0.0


@dataclass(frozen=True)
class StoreStatus:
    """A root.

    Attributes
    ----------
    root : Path
        Its folder.
    environments : tuple of EnvironmentStatus
        Sorted by name.
    building : tuple of Owner
        Who builds at this moment.
    abandoned : tuple of Path
        What builders that are no more have left.
    old : tuple of OldBuild
        Builds that no name stands for.
    """

    root: Path
    environments: tuple[EnvironmentStatus, ...]
    building: tuple[Owner, ...]
    abandoned: tuple[Path, ...]
    old: tuple[OldBuild, ...]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, with ``schema``."""
        return {
            "schema": 1,
            "root": str(self.root),
            "environments": [asdict(environment) for environment in self.environments],
            "building": [asdict(builder) for builder in self.building],
            "abandoned": [str(path) for path in self.abandoned],
            "old": [{**asdict(build), "folder": str(build.folder)} for build in self.old],
        }


def status(store: Store, *, check: bool = False) -> StoreStatus:
    """What is registered, built, being built and left over in a root.

    Parameters
    ----------
    store : Store
        The root; nothing in it is changed.
    check : bool
        Measure each environment again, and compare: that starts a process for each.
    """
    broken = store.broken()
    found = [EnvironmentStatus(name, "", BROKEN, drift=(why,)) for name, why in broken.items()]
    found += [_environment(store, name, source, check=check) for name, source in store.sources().items()]
    environments = tuple(sorted(found, key=lambda environment: environment.name))
    layout = store.layout
    return StoreStatus(store.root, environments, tuple(running(layout)), tuple(abandoned(layout)), tuple(old(store)))


def old(store: Store) -> list[OldBuild]:
    """Builds that no name stands for, whether they still have their link or a newer one took it."""
    used, links = store.used(), linked(store.layout)
    folders = dict(links)
    folders.update(
        {path.parent: "" for path in store.layout.parts.glob(f"*/{RETIRED_FILE}") if path.parent not in links}
    )
    found = []
    for folder, digest in folders.items():
        if digest in used:
            continue
        build = Build.read(folder, digest)
        since = read_json(folder / RETIRED_FILE).get("since")
        when = float(since) if isinstance(since, (int, float)) else None
        facts = build.facts if build else {}
        name = build.name if build else folder.name.rpartition("-")[0]
        found.append(OldBuild(name, digest or str(facts.get("digest", "")), folder, int(facts.get("size", 0)), when))
    return found


def _environment(store: Store, name: str, source: Source, *, check: bool) -> EnvironmentStatus:
    build = store.current(name)
    if build is None:
        gone = read_json(store.layout.current_file(name)).get("digest")
        lost = (f"it was built, but that build is gone; {store.command('build', name)}",) if gone else ()
        return EnvironmentStatus(name, source.kind, NOT_BUILT, source.digest, drift=lost)
    drift: tuple[str, ...] = ()
    if source != build.source:
        drift = (f"its source has changed since it was built; {store.command('build', name)}",)
    if not os.access(build.python, os.X_OK):
        closed = f"its Python, {os.path.realpath(build.python)}, cannot be run by you; whoever keeps this root has to "
        drift += (closed + "build it with a --python that all can reach, or with --download-python",)
    elif check and (lines := measured_as_built(build)):
        shown = "; ".join(lines[:5]) + (f"; and {len(lines) - 5} more" if len(lines) > 5 else "")
        drift += (f"it is not as it was built ({shown}); {store.command('build', name, '--force')}",)
    facts = build.facts
    return EnvironmentStatus(
        name,
        source.kind,
        BUILT,
        source.digest,
        build.digest,
        str(facts.get("lock_digest", "")),
        str(facts.get("environment_digest", "")),
        str(facts.get("python_version", "")),
        build.manager,
        folder=str(build.folder),
        packages=int(facts.get("packages", 0)),
        size=int(facts.get("size", 0)),
        finished=str(facts.get("finished", "")),
        models=_models(store, name),
        smoke=_smoke(store, build),
        drift=drift,
    )


def _models(store: Store, name: str) -> tuple[str, ...]:
    models = read_json(store.weights_file(name)).get("models")
    return tuple(sorted(str(model) for model in models)) if isinstance(models, (dict, list)) else ()


def _smoke(store: Store, build: Build) -> dict[str, Mapping[str, Any]]:
    """The last test of each model in this very build."""
    answers = read_json(store.smoke_file(build.name)).get("answers")
    here = answers.get(build.digest) if isinstance(answers, dict) else None
    found: dict[str, Mapping[str, Any]] = {}
    for model, answer in here.items() if isinstance(here, dict) else ():
        last = answer.get("last") if isinstance(answer, dict) else None
        if isinstance(last, dict):
            found[str(model)] = {"verdict": str(last.get("verdict", "")), "when": str(last.get("when", ""))}
    return found
