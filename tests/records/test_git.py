from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlipcluster.errors import InputError, MismatchError
from mlipcluster.records import git
from mlipcluster.records.git import GitState, changed_files, check, inspect, why_not


def _git(folder, *arguments):
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repo(tmp_path):
    """A repository with one commit, in a folder that no shell likes."""
    folder = tmp_path / "a 'repo' ü"
    folder.mkdir()
    _git(folder, "init", "-q", "-b", "main")
    (folder / "protocol.py").write_text("x = 1\n")
    (folder / ".gitignore").write_text("ignored.py\n")
    _git(folder, "add", ".")
    _git(folder, "commit", "-q", "-m", "first")
    return folder


def test_a_clean_checkout(repo):
    state = inspect(repo / "protocol.py")
    assert state.sha1 == _git(repo, "rev-parse", "HEAD")
    assert (state.branch, state.remote, state.dirty, state.diff) == ("main", "", False, "")
    assert Path(state.root) == repo
    assert inspect(repo) == state
    assert GitState(**state.to_json()) == state
    for policy in (None, "", state.sha1, state.sha1[:7], state.sha1.upper()):
        check(policy, state)


def test_a_changed_file_is_in_the_diff(repo):
    (repo / "protocol.py").write_text("x = 2\n")
    state = inspect(repo / "protocol.py")
    assert state.dirty
    assert "-x = 1\n+x = 2\n" in state.diff
    assert changed_files(state.diff) == ["protocol.py"]
    check(None, state)
    for policy in ("", state.sha1):
        with pytest.raises(MismatchError, match=r"protocol\.py") as caught:
            check(policy, state)
        assert caught.value.differences == ("git: protocol.py is not committed",)


def test_a_staged_file_is_in_the_diff(repo):
    (repo / "protocol.py").write_text("x = 2\n")
    _git(repo, "add", ".")
    assert "+x = 2" in inspect(repo).diff


def test_untracked_code_counts(repo):
    (repo / "helper.py").write_text("y = 'ü'\nz = 3\n")
    (repo / "sub").mkdir()
    (repo / "sub" / "config.yaml").write_text("a: 1")
    state = inspect(repo)
    assert state.dirty
    assert "untracked: helper.py\n+y = 'ü'\n+z = 3\n" in state.diff
    assert changed_files(state.diff) == ["helper.py", "sub/config.yaml"]


def test_what_is_no_code_does_not_count(repo):
    (repo / "ignored.py").write_text("y = 2")
    (repo / "Cu.cif").write_text("data")
    (repo / "weights.pt").write_bytes(b"\0")
    run = repo / "runs" / "relax"
    (run / "environments" / "abc").mkdir(parents=True)
    (run / "ledger.jsonl").write_text("")
    (run / "environments" / "abc" / "requirements.txt").write_text("numpy")
    state = inspect(repo)
    assert (state.dirty, state.diff) == (False, "")


def test_large_and_binary_files_are_named_only(repo):
    (repo / "large.py").write_text("#" * (git.FILE_BYTES + 1))
    (repo / "binary.py").write_bytes(b"\xff\xfe\0")
    diff = inspect(repo).diff
    assert f"untracked: large.py ({git.FILE_BYTES + 1} bytes, not copied)" in diff
    assert "untracked: binary.py (not copied: UnicodeDecodeError)" in diff
    assert changed_files(diff) == ["binary.py", "large.py"]


def test_the_diff_is_free_of_credentials(repo):
    (repo / "protocol.py").write_text("url = 'https://me:secret@example.org/a'\n")
    (repo / "helper.py").write_text("url = 'https://example.org/a?token=secret'\n")
    diff = inspect(repo).diff
    assert "+url = 'https://example.org/a'" in diff
    assert "untracked: helper.py\n+url = 'https://example.org/a'\n" in diff
    assert "secret" not in diff


@pytest.mark.parametrize(
    "name",
    ["credentials.yaml", "my_secrets.toml", "hf_token.txt", "api-key.ini", ".env.sh", ".netrc.txt", "keys/a.txt"],
)
@pytest.mark.parametrize("tracked", [True, False])
def test_files_named_like_a_secret_are_told_by_their_hash(repo, name, tracked):
    file = repo / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("first")
    if tracked:
        _git(repo, "add", ".")
        _git(repo, "commit", "-q", "-m", "second")
    seen = set()
    for text in ("hidden", "hidden, too"):
        file.write_text(text)
        state = inspect(repo)
        assert changed_files(state.diff) == [name]
        assert "hidden" not in state.diff
        assert "sha256=" in state.diff
        seen.add(state.diff)
    assert len(seen) == 2


@pytest.mark.parametrize("name", ["tokenizer.py", "monkey.py", "keyboard/a.txt", "environment.yaml"])
def test_other_names_that_sound_like_it_are_copied(repo, name):
    (repo / name).parent.mkdir(exist_ok=True)
    (repo / name).write_text("shown")
    assert "+shown" in inspect(repo).diff


def test_a_warning_of_git_for_each_file_does_not_stop_it(repo):
    _git(repo, "config", "core.safecrlf", "warn")
    _git(repo, "config", "core.autocrlf", "true")
    for number in range(500):
        (repo / f"{number}{'long' * 50}.py").write_text("x = 1\n")
    _git(repo, "add", ".")
    for file in repo.glob("*long.py"):
        file.write_text("x = 2\n")
    script = f"from mlipcluster.records.git import inspect; print(inspect({str(repo)!r}).diff.count('+x = 2'))"
    command = [sys.executable, "-c", script]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout == "500\n"


@pytest.mark.parametrize("tracked", [True, False])
def test_a_long_diff_is_cut_and_says_so(repo, monkeypatch, tracked):
    monkeypatch.setattr(git, "DIFF_BYTES", 5000)
    if tracked:
        (repo / "protocol.py").write_text("x = 2\n" * 100_000)
    for number in range(40):
        (repo / f"n{number}.py").write_text("y = 1\n" * 50)
    state = inspect(repo)
    assert state.dirty
    assert len(state.diff) < 5200
    assert state.diff.endswith("(cut: the changes are longer than 5000 characters)\n")


def test_no_half_address_is_left_at_the_cut(repo, monkeypatch):
    (repo / "helper.py").write_text("url = 'https://me:hidden@example.org/'\n")
    monkeypatch.setattr(git, "DIFF_BYTES", len("untracked: helper.py\n+url = 'https://me:hidden"))
    assert "hidden" not in inspect(repo).diff


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:secret@example.org/a/b.git", "https://example.org/a/b.git"),
        ("https://ghp_secret@example.org/a/b.git", "https://example.org/a/b.git"),
        ("https://me:se@cret@example.org/a.git", "https://example.org/a.git"),
        ("https://example.org/a.git?private_token=secret", "https://example.org/a.git"),
        ("ssh://git@example.org:22/a.git", "ssh://git@example.org:22/a.git"),
        ("ssh://me:secret@example.org/a.git", "ssh://example.org/a.git"),
        ("git@example.org:a/b.git", "git@example.org:a/b.git"),
        ("/some/folder", "/some/folder"),
    ],
)
def test_a_remote_is_free_of_credentials(repo, url, shown):
    _git(repo, "remote", "add", "other", "https://example.org/other.git")
    _git(repo, "remote", "add", "origin", url)
    assert inspect(repo).remote == shown


def test_a_repository_without_a_commit(tmp_path):
    _git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "protocol.py").write_text("x = 1\n")
    state = inspect(tmp_path)
    assert (state.sha1, state.branch, state.dirty) == ("", "main", True)
    assert "untracked: protocol.py" in state.diff
    with pytest.raises(MismatchError, match="no commit yet"):
        check("abcdef0", state)


def test_a_detached_head(repo):
    _git(repo, "checkout", "-q", "--detach")
    assert inspect(repo).branch == ""


def test_a_worktree_is_a_checkout_too(repo, tmp_path):
    other = tmp_path / "other"
    _git(repo, "worktree", "add", "-q", "-b", "side", str(other))
    assert (inspect(other).branch, inspect(other).root) == ("side", str(other))


@pytest.mark.parametrize("path", [None, "", "/no/such/file.py", "<ipython-input-1>"])
def test_no_file_no_state(path):
    assert inspect(path) is None
    assert "git init" in why_not(path)


def test_no_repository_no_state(tmp_path):
    assert inspect(tmp_path) is None
    check(None, None)
    with pytest.raises(MismatchError, match="sha1=None"):
        check("", None)


def test_another_commit_is_named(repo):
    state = inspect(repo)
    with pytest.raises(MismatchError, match="git checkout 1234567"):
        check("1234567", state)


@pytest.mark.parametrize("policy", ["main", "abc", "xyzxyzxyz", "HEAD~1"])
def test_a_policy_that_is_no_commit_is_refused(policy, repo):
    with pytest.raises(InputError, match="7"):
        check(policy, inspect(repo))


def test_without_the_git_program(repo):
    script = (
        f"from mlipcluster.records.git import inspect, why_not; print(inspect({str(repo)!r}), why_not({str(repo)!r}))"
    )
    environment = {**os.environ, "PATH": "/nowhere"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("None ")
    assert "install git" in done.stdout


def test_a_broken_repository_is_no_state(tmp_path):
    (tmp_path / ".git").write_text("gitdir: /nowhere\n")
    assert inspect(tmp_path) is None
    assert "git status" in why_not(tmp_path)


def test_programs_that_the_repository_names_are_not_run(repo):
    witness = repo / "witness"
    _git(repo, "config", "diff.external", f"touch '{witness.name}'")
    _git(repo, "config", "core.fsmonitor", f"touch {witness.name}")
    (repo / "protocol.py").write_text("x = 2\n")
    assert "+x = 2" in inspect(repo).diff
    assert not witness.exists()
