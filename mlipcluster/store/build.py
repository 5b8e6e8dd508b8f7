"""Build an environment in its root: beside what is there, checked, and switched in by rename."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable

from mlipcluster.environments.measure import measure
from mlipcluster.errors import EnvironmentBuildError, InputError, MLIPClusterError
from mlipcluster.files import write_atomic
from mlipcluster.store.parts import new_part, share_tree
from mlipcluster.store.recipes import Plan, kept_files, plan
from mlipcluster.store.source import Source
from mlipcluster.store.store import BUILD_FILE, ENVIRONMENT_FILE, SCHEMA, Build, Store
from mlipcluster.store.turn import Owner, turn
from mlipcluster.store.workplace import Options, Workplace

_SERVES = (
    "import sys\n"
    "assert sys.version_info >= (3, 9), 'Python %d.%d' % sys.version_info[:2]\n"
    "import ase, numpy\n"
    "print('ase', ase.__version__, 'numpy', numpy.__version__)"
)

# Workers write no bytecode, and may not: without it each start would compile what it imports.
_COMPILE = "import compileall, sysconfig; compileall.compile_dir(sysconfig.get_paths()['purelib'], quiet=2)"


def build(store: Store, name: str, options: Options, tell: Callable[[str], None]) -> tuple[Build, bool]:
    """Build the environment *name*, unless it is built of the very same source.

    Another process that builds it at the same moment is waited for, and what that makes is taken.

    Parameters
    ----------
    store : Store
        The root.
    name : str
        What is registered.
    options : Options
        How to build.
    tell : callable
        Gets each line for the person who waits.

    Returns
    -------
    build : Build
        What the name stands for now.
    new : bool
        Whether it was made by this call.

    Raises
    ------
    InputError
        It is not registered, its file cannot be read, or the root cannot be written.
    EnvironmentBuildError
        It could not be built. What was there before stays in use; the log is kept in ``logs/``.
    """
    store.source(name)
    store.layout.check_writable()
    started = time.monotonic()
    try:
        with turn(store.layout, name, options.timeout, tell):
            source = store.source(name)  # it may have been replaced while we waited
            if (ready := _ready(store, source, options)) is not None:
                return ready, False
            return _make(store, source, options, (tell, started + options.timeout))
    except TimeoutError as error:
        raise EnvironmentBuildError(
            f"environment {name!r} could not be built: another process builds it for longer than "
            f"{options.timeout:g} s; see who with `mlipcluster env status`, or wait longer with --timeout"
        ) from error
    except OSError as error:
        raise EnvironmentBuildError(
            f"environment {name!r} could not be built: {error.strerror or error}"
            + (f": {error.filename!r:.200}" if error.filename else "")
            + "; see to that, then build again"
        ) from error


def _ready(store: Store, source: Source, options: Options) -> Build | None:
    """What is built, where it is built of this very source, with this Python, and nothing else is asked for."""
    done = store.current(source.name)
    if done is None or done.source != source or options.force or options.upgrade:
        return None
    return done if options.python in ("", done.facts.get("asked_python")) else None


def _make(
    store: Store, source: Source, options: Options, waits: tuple[Callable[[str], None], float]
) -> tuple[Build, bool]:
    tell, give_up = waits
    with new_part(store.layout, source.name, max(give_up - time.monotonic(), 1.0)) as (folder, lock):
        work = Workplace(store.layout, folder, source, options, tell, (lock,), give_up)
        with _log_kept(store, work):
            _bring_kept(store, work)
            tell(f"resolving what {source.name} needs")
            planned = plan(work)
            known = store.build(_digest(source, planned.lock)) if planned.lock else None
            if known is not None and not options.force:
                tell(f"{source.name} is built already, as {known.digest[:12]}")
                store.switch(known)
                return known, False
            tell(f"installing {source.name} with {planned.manager}")
            planned.install()
            built = _finish(store, work, planned)
            made = _publish(store, built, options)
            _keep(store, work, planned)
        store.switch(made)
    return made, made is built


def _bring_kept(store: Store, work: Workplace) -> None:
    """Begin from the versions of the last build, where its lock is kept."""
    for name in kept_files(work.source):
        kept = store.layout.locks / f"{work.source.name}.{name}"
        if kept.is_file() and not work.options.upgrade:
            shutil.copyfile(kept, work.folder / name)


def _keep(store: Store, work: Workplace, planned: Plan) -> None:
    for name in planned.kept:
        text = (work.folder / name).read_text(encoding="utf-8")
        path = write_atomic(store.layout.locks / f"{work.source.name}.{name}", text)
        store.layout.share_file(path)


def _digest(source: Source, lock: str) -> str:
    """SHA-256 of name, source and lock: the name is that of a file in it."""
    parts = [source.name, source.digest, hashlib.sha256(lock.encode()).hexdigest()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _finish(store: Store, work: Workplace, planned: Plan) -> Build:
    """Check that the environment can serve, measure it, and write what it is: from then on nothing in it changes."""
    _check(work, planned.python)
    _warn_of_a_closed_python(work, planned.python)
    if planned.manager != "uv" or "\n" in str(work.folder):  # uv has done it, but where paths have a newline
        work.run((str(planned.python), "-I", "-c", _COMPILE))
    try:
        environment = measure(planned.python)
    except MLIPClusterError as error:
        raise work.failed(f"it cannot be measured: {error}") from error
    write_atomic(work.folder / ENVIRONMENT_FILE, json.dumps(environment.to_json(), indent=1) + "\n", sync=False)
    lock = planned.lock or environment.lock
    digest = _digest(work.source, lock)
    files, size = share_tree(store.layout, work.folder)
    owner = Owner.here(0)
    facts: dict[str, Any] = {
        "schema": SCHEMA,
        "name": work.source.name,
        "digest": digest,
        "source": asdict(work.source),
        "source_digest": work.source.digest,
        "lock_digest": hashlib.sha256(lock.encode()).hexdigest(),
        "environment_digest": environment.digest,
        "manager": planned.manager,
        "interpreter": os.path.relpath(planned.python, work.folder),
        "python_version": environment.python,
        "asked_python": work.options.python,
        "platform": environment.platform,
        "packages": len(environment.packages),
        "files": files,
        "size": size,
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "host": owner.host,
        "user": owner.user,
    }
    path = write_atomic(work.folder / BUILD_FILE, json.dumps(facts, indent=1) + "\n")
    store.layout.share_file(path)
    build = Build.read(work.folder, digest)
    assert build is not None
    return build


def _warn_of_a_closed_python(work: Workplace, python: Path) -> None:
    """Say so where the root is open to others but the Python below its environment is not, as in a home folder."""
    mode = work.layout.mode
    bit = 0o001 if mode & 0o001 else 0o010 if mode & 0o010 else 0
    closed = [folder for folder in Path(os.path.realpath(python)).parents if bit and not folder.stat().st_mode & bit]
    if closed:
        work.tell(
            f"warning: {work.source.name} runs on a Python in {str(closed[0])!r}, where others may not look; for them "
            "build it with --force and a --python that all can reach, or --download-python"
        )


def _check(work: Workplace, python: Path) -> None:
    if not python.is_file():
        raise work.failed(f"there is no {str(python)!r} in it; does it have Python among its requirements?")
    try:
        work.run((str(python), "-I", "-B", "-c", _SERVES))
    except EnvironmentBuildError as error:
        text = str(error)
        for package in ("ase", "numpy"):
            if f"No module named '{package}'" in text:
                raise work.failed(
                    f"it has no {package}, which every calculator here needs; add it to dependencies"
                ) from None
        if "AssertionError" in text:
            raise work.failed("its Python is older than 3.9; ask for a newer one") from None
        raise work.failed("ase and numpy cannot be imported in it; correct its requirements", text) from None


def _publish(store: Store, made: Build, options: Options) -> Build:
    """Give it its name by its digest. The first that comes is taken, unless it is to be made anew."""
    link = store.layout.link(made.digest)
    target = os.path.join(made.folder.parent.name, made.folder.name)
    try:
        link.symlink_to(target)
        return made
    except FileExistsError:
        other = store.build(made.digest)
    if other is not None and not options.force:
        return other
    if other is not None:
        store.retire(other.folder)  # before it is switched: without the mark it would be taken for half made
    beside = made.folder.with_name(f"{made.folder.name}.link")
    beside.symlink_to(target)
    beside.replace(link)
    return made


@contextmanager
def _log_kept(store: Store, work: Workplace) -> Iterator[None]:
    """Keep the log of a build that fails, and say where it is."""
    try:
        yield
    except (EnvironmentBuildError, InputError, OSError) as error:
        kept = store.layout.logs / f"{work.source.name}.log"
        try:
            kept = write_atomic(kept, work.log.read_bytes())
        except OSError:  # a full disk
            raise error from None
        store.layout.share_file(kept)
        if isinstance(error, OSError):
            raise
        before = "; what was built before is still in use" if store.current(work.source.name) else ""
        raise type(error)(f"{error}\n  (all of it: {kept}{before})") from error
