"""Which files the calculator read its parameters and its own code from, seen by an audit hook.

A file counts when it is opened for reading and either has a suffix that weights have, wherever it lies outside the
standard library, or lies outside the interpreter and the system and is not code. Files mapped into memory by compiled
code are read off ``/proc/self/maps``, and files that the calculator's own arguments name count as well. Code counts
when it lies outside the standard library and the installed packages; ``sys.modules`` tells what no hook sees: compiled
modules, and what was imported before the hook.

What this process itself wrote counts when it stays as it is, as a download does; what is written again and again, or
removed, is the calculator's scratch.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import site
import stat
import sys
import sysconfig
import threading
from typing import Any, NamedTuple

SUFFIXES = (
    *(".pt", ".pth", ".pth.tar", ".pt2", ".ckpt", ".model", ".safetensors", ".npz", ".npy", ".h5", ".hdf5", ".onnx"),
    *(".pb", ".msgpack", ".bin", ".pkl", ".joblib", ".nn", ".potential", ".tar", ".zip", ".jpt", ".nequip", ".gguf"),
)
CODE_SUFFIXES = (".py", ".pyc", ".pyi", ".so", ".dylib", ".pth", ".egg-link", ".egg", ".whl", ".cfg", ".toml", ".lock")
SYSTEM_FOLDERS = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/", "/lib/", "/lib64/", "/run/", "/var/", "/opt/conda/")
#: Caches and settings of libraries: no parameters, and different on every machine.
INCIDENTAL_PARTS = ("/.config/", "/matplotlib/", ".dist-info/", ".egg-info/", "/__pycache__/", "/.git/", "/fontconfig/")
#: Credentials: not even their hashes are anybody's business.
SECRET_NAMES = (
    *(".netrc", "_netrc", ".env", ".pypirc", ".git-credentials", "credentials", "token", "stored_tokens"),
    "kaggle.json",
)
WRITING_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
#: How many written files are kept in mind.
KEPT_WRITTEN = 10_000


class Opened(NamedTuple):
    """A file as it was when it was opened: what tells it from a later one at the same path."""

    path: str
    size: int
    modified: int
    inode: int


class WeightsWatch:
    """Remembers the files that this process opens and that look like parameters.

    Parameters
    ----------
    ignored : tuple of str
        Folders whose files never count.
    """

    def __init__(self, ignored: tuple[str, ...] = ()) -> None:
        self._stdlib = os.path.join(sysconfig.get_paths()["stdlib"], "")
        self._installed = _installed_folders()
        self._packages = tuple({os.path.join(sysconfig.get_paths()[name], "") for name in ("purelib", "platlib")})
        prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
        self._own = tuple(os.path.join(folder, "") for folder in (*prefixes, *ignored)) + SYSTEM_FOLDERS
        self._ignored = tuple(os.path.join(folder, "") for folder in (*ignored, os.path.dirname(__file__)))
        self._seen: dict[str, Opened] = {}
        self._many = 1000  # files seen, from which on those that have gone are looked for
        self._written: dict[str, str] = {}  # by this process: SHA-256 as it was told, empty before
        self._scratch: set[str] = set()
        self._told_scratch: set[str] = set()
        self._code: dict[str, Opened] = {}
        self._modules: set[str] = set()  # names of those that were looked at
        self._hashes: dict[Opened, str] = {}
        self._mapped_size: str | None = None
        self._mapped: set[str] = set()
        self._own_thread = threading.local()

    def install(self) -> None:
        """Watch from now on; an audit hook cannot be taken off again."""
        sys.addaudithook(self._hook)

    def add(self, path: str) -> None:
        """Count *path*, whatever its name, if it is a file that holds no credentials."""
        if os.path.basename(path) not in SECRET_NAMES:
            self._remember(os.path.abspath(path))

    def found(self) -> list[dict[str, Any]]:
        """Path, size and SHA-256 of each file seen so far; the hash is empty if the file has changed since."""
        self._own_thread.busy = True
        try:
            self._look_at_maps()
            return self._listed(self._lasting())
        finally:
            self._own_thread.busy = False

    @property
    def scratch(self) -> list[str]:
        """Files that were told among those seen, and that this process has changed since: they are no parameters."""
        return sorted(self._told_scratch)

    def found_code(self) -> list[dict[str, Any]]:
        """The same of each module that was imported from outside the standard library and the installed packages."""
        self._own_thread.busy = True
        try:
            self._look_at_modules()
            return self._listed(self._code)
        finally:
            self._own_thread.busy = False

    def _listed(self, files: dict[str, Opened]) -> list[dict[str, Any]]:
        return [
            {"path": opened.path, "size": opened.size, "sha256": self._sha256(opened)}
            for _, opened in sorted(files.items())
        ]

    def _lasting(self) -> dict[str, Opened]:
        """Of the files seen, those that are no scratch."""
        lasting: dict[str, Opened] = {}
        own: set[str] = set()
        for path, was in list(self._seen.items()):
            opened, sha256 = was, self._sha256(was)
            if not sha256 and self._written.get(path) == "" and (now := _look(path)) is not None and _alike(now, was):
                opened, sha256 = now, self._sha256(now)  # a download whose time was set after it was read
                self._seen[path] = now
            if path in self._written:
                if not self._is_lasting(path, sha256) or sha256 in own:  # or downloaded once more, elsewhere
                    continue
                own.add(sha256)
            elif not sha256 and not os.path.lexists(path):
                self._seen.pop(path, None)
                continue
            lasting[path] = opened
        return lasting

    def _is_lasting(self, path: str, sha256: str) -> bool:
        """Whether a file that this process wrote is what it was when it was told, or is told for the first time."""
        told = self._written[path]
        exists = os.path.lexists(path)
        if exists and sha256 and told in ("", sha256):
            self._written[path] = sha256
            return True
        if exists and told:
            self._scratch.add(path)
            self._told_scratch.add(path)
        self._seen.pop(path, None)
        return False

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.rename") and not getattr(self._own_thread, "busy", False):
            with contextlib.suppress(Exception):  # it would come out of the calculator's own open()
                (self._opened if event == "open" else self._renamed)(*arguments)

    def _opened(self, path: Any, mode: str | None, flags: int) -> None:
        if isinstance(path, int):
            return
        full = os.path.abspath(os.fsdecode(path))
        writes = bool((flags or 0) & WRITING_FLAGS or (mode and set(mode) & set("wxa")))
        if writes or (flags or 0) & os.O_RDWR or (mode and "+" in mode):
            self._note_written(full)
        if writes or full in self._scratch:
            return
        if full.endswith((".py", ".pyc")):
            self._imported(full)
        elif full in self._seen or self._counts(full):
            self._remember(full)  # each time: it may be another file by now

    def _renamed(self, source: Any, target: Any, *_: Any) -> None:
        if os.path.abspath(os.fsdecode(source)) in self._written:
            self._note_written(os.path.abspath(os.fsdecode(target)))

    def _note_written(self, path: str) -> None:
        self._written[path] = self._written.pop(path, "")
        if len(self._written) > KEPT_WRITTEN:
            del self._written[next(iter(self._written))]

    def _imported(self, path: str) -> None:
        """Note a module of the user's own, which belongs to no environment."""
        with contextlib.suppress(ValueError, NotImplementedError):  # not in a cache's folder, or without one
            path = importlib.util.source_from_cache(path) if path.endswith(".pyc") else path
        if self._is_users_own(path) and (opened := _look(path)) is not None:
            self._code[path] = opened

    def _is_users_own(self, path: str) -> bool:
        belonging = self._installed + self._ignored
        return not path.startswith(belonging) and not os.path.realpath(path).startswith(belonging)

    def _counts(self, path: str) -> bool:
        in_packages = path.startswith(self._packages)
        if os.path.basename(path) in SECRET_NAMES:
            return False
        if any(part in path for part in INCIDENTAL_PARTS) or (path.startswith(self._stdlib) and not in_packages):
            return False
        name = path.lower()
        if name.endswith(".pth") and os.path.join(os.path.dirname(path), "") in self._packages:
            return False  # the import system's path files share a suffix with torch's weights
        if name.endswith(SUFFIXES):
            return True
        return not path.startswith(self._own) and not name.endswith(CODE_SUFFIXES) and ".so." not in name

    def _remember(self, path: str) -> None:
        opened = _look(path)
        if opened is not None:
            self._seen[path] = opened
        if len(self._seen) > self._many:
            seen = list(self._seen.items())
            self._seen = {path: opened for path, opened in seen if opened in self._hashes or _look(path)}
            self._many = 2 * len(self._seen) + 1000

    def _look_at_modules(self) -> None:
        """Add the modules that were imported since the last look and that the hook has not seen."""
        for name in sys.modules.keys() - self._modules:
            self._modules.add(name)
            with contextlib.suppress(Exception):  # anything may lie in sys.modules
                # Past the module's own __getattribute__: a lazy module would be imported by the question.
                path = os.path.abspath(object.__getattribute__(sys.modules[name], "__dict__")["__file__"])
                if path not in self._code:
                    self._imported(path)

    def _look_at_maps(self) -> None:
        if (size := _mapped_size()) is None or size != self._mapped_size:  # the kernel takes 1 ms to list the maps
            self._mapped_size = size
            self._mapped = {path for path in _mapped_files() if path.lower().endswith(SUFFIXES) and self._counts(path)}
        for path in self._mapped - self._scratch:
            self._remember(path)  # known or not: a mapped file is what it is now

    def _sha256(self, opened: Opened) -> str:
        if opened not in self._hashes:
            if _look(opened.path) != opened:
                return ""
            self._hashes[opened] = _sha256(opened.path)
        return self._hashes[opened]


def _installed_folders() -> tuple[str, ...]:
    """Folders of the standard library and of installed packages, a base environment's too; links resolved or not."""
    paths = sysconfig.get_paths()
    folders = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders.update((os.path.dirname(os.__file__), *site.getsitepackages()))
    return tuple({os.path.join(form, "") for folder in folders for form in (folder, os.path.realpath(folder))})


def _mapped_size() -> str | None:
    """Size of all that is mapped into this process, which changes with every file that is mapped or let go."""
    try:
        with open("/proc/self/statm", encoding="ascii") as pages:
            return pages.read().split(None, 1)[0]
    except (OSError, IndexError):
        return None


def _mapped_files() -> set[str]:
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            return {line.split(None, 5)[5].rstrip("\n") for line in maps if "/" in line}
    except OSError:
        return set()


def _alike(one: Opened, other: Opened) -> bool:
    """Whether two looks at a file differ in its time at most."""
    return (one.size, one.inode) == (other.size, other.inode)


def _look(path: str) -> Opened | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return Opened(path, status.st_size, status.st_mtime_ns, status.st_ino)


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return ""
    return digest.hexdigest()
