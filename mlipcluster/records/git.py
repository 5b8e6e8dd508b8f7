"""The git repository that a protocol's file lies in: commit, remote, and what was not committed."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlipcluster.environments.measure_script import without_credentials
from mlipcluster.errors import InputError, MismatchError
from mlipcluster.files import sha256_file
from mlipcluster.process import read_command

if TYPE_CHECKING:
    from git import Repo

FILE_BYTES = 64 * 1024  # a larger untracked file is named, not copied
DIFF_BYTES = 1024 * 1024  # a longer diff is cut, and says so
CODE_SUFFIXES = frozenset(
    {".c", ".cc", ".cfg", ".cpp", ".cu", ".f", ".f90", ".h", ".hpp", ".ini", ".ipynb", ".jl", ".pxd", ".py", ".pyi"}
    | {".pyx", ".sh", ".toml", ".txt", ".yaml", ".yml"}
)
SECRET_NAME = re.compile(  # changes of such files are told by their hash only
    r"(?i)secret|credential|passw|\.netrc|\.env\b|(?<![a-z])(?:api|access|private)?(?:token|key)s?(?![a-z])"
)
RUN_FILES = ("run.json", "ledger.jsonl")  # a folder that holds one is a run's own, not part of the code


@dataclass(frozen=True)
class GitState:
    """What git knows of a checkout.

    Attributes
    ----------
    sha1, branch : str
        Commit that is checked out (empty before the first one) and its branch (empty if detached).
    remote : str
        Address of ``origin``, or of the first remote there is, without credentials.
    root : str
        Folder of the checkout.
    dirty : bool
        Whether tracked files differ from the commit, or code lies there that git does not know.
    diff : str
        ``git diff HEAD``, followed by the untracked files that count: code and configuration (not what git ignores,
        not run folders). Cut at 1 MB, which it then says. Addresses in it are without credentials; files named like a
        secret (:data:`SECRET_NAME`) are told by their hash.
    """

    sha1: str
    branch: str
    remote: str
    root: str
    dirty: bool
    diff: str

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def inspect(path: str | os.PathLike[str] | None) -> GitState | None:
    """State of the repository that *path* lies in.

    Returns
    -------
    GitState or None
        None if *path* is None or does not exist (a notebook's cell), lies in no repository, or there is no git
        program: :func:`why_not` tells which.
    """
    root = find_root(path)
    if root is None or (repo := _open(root)) is None:
        return None
    with repo:
        sha1 = repo.head.commit.hexsha if repo.head.is_valid() else ""
        diff = _diff(repo, sha1)
        branch = "" if repo.head.is_detached else repo.active_branch.name
        return GitState(sha1, branch, _remote(repo), str(root), bool(diff), diff)


def find_root(path: str | os.PathLike[str] | None) -> Path | None:
    """The nearest folder at or above *path* that holds ``.git``, or None."""
    if path is None or not str(path):
        return None
    place = Path(path).expanduser()
    if not place.exists():
        return None
    place = place.resolve()
    return next((folder for folder in (place, *place.parents) if (folder / ".git").exists()), None)


def why_not(path: str | os.PathLike[str] | None) -> str:
    """Why :func:`inspect` has nothing to say of *path*."""
    if find_root(path) is None:
        return f"{str(path or 'the protocol')!r} lies in no git repository; run 'git init' and commit it"
    return "the git program cannot be run or refuses the repository; install git, and see what 'git status' says there"


def check(policy: str | None, state: GitState | None) -> None:
    """Hold the repository against what the user asked for.

    Parameters
    ----------
    policy : str or None
        None: anything goes. ``""``: a repository without uncommitted changes. Otherwise the commit that must be
        checked out, without uncommitted changes: its SHA1 or the first 7 digits or more.
    state : GitState or None
        What :func:`inspect` found.

    Raises
    ------
    InputError
        *policy* is no SHA1.
    MismatchError
        The repository is not as asked.
    """
    if policy is None:
        return
    if policy and not re.fullmatch(r"[0-9a-fA-F]{7,64}", policy):
        raise InputError(f"sha1={policy!r} is no commit: give at least 7 of its hexadecimal digits, '' or None")
    if state is None:
        raise MismatchError(
            f"sha1={policy!r} asks for a git repository, but the protocol's file lies in none (or there is no git "
            "program); commit it to one, or pass sha1=None",
            ("git: recorded a commit, here there is none",),
        )
    if not state.sha1.startswith(policy.lower()):
        here = state.sha1 or "nothing (no commit yet)"
        raise MismatchError(
            f"sha1={policy!r} asks for that commit, but {state.root!r} has {here} checked out; "
            f"run 'git checkout {policy}' there, or pass sha1=None",
            (f"git: {policy} -> {here}",),
        )
    if state.dirty or not state.sha1:
        names = changed_files(state.diff)
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise MismatchError(
            f"{state.root!r} has changes that are not committed ({shown or 'everything'}); "
            "commit them, or pass sha1=None",
            tuple(f"git: {name} is not committed" for name in names),
        )


def changed_files(diff: str) -> list[str]:
    """Names of the files in the text of :attr:`GitState.diff`."""
    found = re.findall(r"(?m)^(?:diff --git a/.* b/(.*)|untracked: (.*?)(?: \(.*\))?)$", diff)
    return [tracked or untracked for tracked, untracked in found]


def _open(root: Path) -> Repo | None:
    try:
        from git import GitError, Repo  # GitPython looks for the git program when it is imported
    except ImportError:
        return None
    try:
        repo = Repo(root)
        # No program that the repository's configuration names is run; nor are its locks taken.
        repo.git.set_persistent_git_options(c="core.fsmonitor=false", no_optional_locks=True)
        repo.git.rev_parse("--git-dir")
    except (GitError, OSError):
        return None
    return None if repo.bare else repo


def _remote(repo: Repo) -> str:
    names = [remote.name for remote in repo.remotes]
    if not names:
        return ""
    remote = repo.remotes["origin" if "origin" in names else names[0]]
    return without_credentials(next(iter(remote.urls), ""))


def _diff(repo: Repo, sha1: str) -> str:
    # As for the monitor in _open: no external diff, no text conversion.
    options = ["--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/"]
    target = ["HEAD"] if sha1 else ["--cached"]
    text, cut = _bounded(repo, ["diff", *options, *target, "--"])
    text = "".join(map(_tracked_text, re.split(r"(?m)^(?=diff --git )", text)))
    for name in sorted(_untracked(repo)):
        if cut or len(text) > DIFF_BYTES:
            cut = True
            break
        text += _untracked_text(Path(str(repo.working_tree_dir)), name)
    if cut or len(text) > DIFF_BYTES:
        text = text[:DIFF_BYTES].rpartition("\n")[0]  # half an address would keep its password
        text += f"\n(cut: the changes are longer than {DIFF_BYTES} characters)\n"
    return without_credentials(text)


def _bounded(repo: Repo, arguments: list[str]) -> tuple[str, bool]:
    """What git prints, at most :data:`DIFF_BYTES` of it, and whether there was more."""
    command = [str(repo.git.GIT_PYTHON_GIT_EXECUTABLE), "--no-optional-locks", "-c", "core.fsmonitor=false", *arguments]
    data, more = read_command(command, DIFF_BYTES, cwd=str(repo.working_tree_dir))
    return data.decode("utf-8", "backslashreplace"), more


def _tracked_text(section: str) -> str:
    head = section.partition("\n")[0]
    if not SECRET_NAME.search(head):
        return section
    return f"{head}\n(not copied: sha256={hashlib.sha256(section.encode()).hexdigest()})\n"


def _untracked(repo: Repo) -> list[str]:
    listed = repo.git.ls_files("--others", "--exclude-standard", "-z")
    names = [name for name in listed.split("\0") if Path(name).suffix.lower() in CODE_SUFFIXES]
    root = Path(str(repo.working_tree_dir))
    runs: dict[Path, bool] = {}
    return [name for name in names if not _in_run(root, Path(name).parent, runs)]


def _in_run(root: Path, folder: Path, known: dict[Path, bool]) -> bool:
    if folder not in known:
        here = any((root / folder / name).is_file() for name in RUN_FILES)
        known[folder] = here or (folder != Path() and _in_run(root, folder.parent, known))
    return known[folder]


def _untracked_text(root: Path, name: str) -> str:
    try:
        if SECRET_NAME.search(name):
            return f"untracked: {name} (not copied: sha256={sha256_file(root / name)})\n"
        size = (root / name).stat().st_size
        if size > FILE_BYTES:
            return f"untracked: {name} ({size} bytes, not copied)\n"
        text = (root / name).read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return f"untracked: {name} (not copied: {type(error).__name__})\n"
    return f"untracked: {name}\n" + "".join(f"+{line}\n" for line in text.splitlines())
