"""The environments of a record in a folder: under the managers' names, all or none, and nowhere else."""

from __future__ import annotations

import errno
import json
import os

import pytest

from mlipcluster.environments.environment import Environment
from mlipcluster.errors import InputError, RecordError
from mlipcluster.recreation import dump as dumping
from mlipcluster.recreation.dump import dump, safe_name
from mlipcluster.recreation.dump_report import report, shown
from mlipcluster.recreation.recorded import SCHEMA, can_be_cloned, recorded

GIT = {"sha1": "a" * 40, "remote": "https://example.org/lab/code.git", "dirty": True, "diff": "diff --git a/x b/x\n"}


def tree(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def conda(make_environment_json):
    return make_environment_json(
        {"python": ("3.11.7", "conda", "h1", "conda-forge")},
        manager="conda",
        lock="@EXPLICIT\nhttps://example.org/python.conda#0123\n",
        lock_name="explicit.txt",
    )


def test_the_run_and_a_calculator_of_its_own(make_sealed, make_environment_json, conda, tmp_path):
    here = make_environment_json(
        lock_name="uv.lock",
        toml="[project]\n",
        toml_format="pyproject.toml",
        more_files=(("requirements.txt", "six\n"),),
    )
    record = recorded(make_sealed(here, {"emt": here, "mace/../ü": conda}, GIT))
    done = dump(record, tmp_path / "new" / "env")
    assert tree(tmp_path / "new" / "env") == {
        "uv.lock",
        "pyproject.toml",
        "requirements.txt",
        "environment.json",
        "uncommitted.diff",
        "calculators/mace/explicit.txt",
        "calculators/mace/environment.json",
    } == set(done.files)  # fmt: skip
    assert done.calculators == {"emt": "", "mace/../ü": "calculators/mace"}
    measured = json.loads((tmp_path / "new/env/environment.json").read_text())
    assert Environment.from_json(measured).digest == here["digest"]
    assert (tmp_path / "new/env/uncommitted.diff").read_text() == GIT["diff"]


def test_a_record_of_an_older_version(make_sealed, conda, tmp_path):
    """Conda's list alone, in a record that knows no further files."""
    assert "more_files" not in conda
    dump(recorded(make_sealed(conda)), tmp_path)
    assert tree(tmp_path) == {"explicit.txt", "environment.json"}


def test_nothing_is_overwritten_unasked(make_sealed, make_environment_json, tmp_path):
    old, new = (recorded(make_sealed(make_environment_json(lock=text))) for text in ("old==1\n", "new==2\n"))
    (tmp_path / "requirements.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds requirements\.txt already.*--force"):
        dump(old, tmp_path)
    assert tree(tmp_path) == {"requirements.txt"}
    assert (tmp_path / "requirements.txt").read_text() == "mine"
    dump(old, tmp_path, force=True)
    dump(new, tmp_path, force=True)
    assert (tmp_path / "requirements.txt").read_text() == "new==2\n"


@pytest.mark.parametrize("force", [False, True])
def test_lock_files_of_two_records_are_not_mixed(make_sealed, tmp_path, force):
    (tmp_path / "pixi.lock").write_text("")
    with pytest.raises(InputError, match=r"pixi\.lock already, which would be mixed up"):
        dump(recorded(make_sealed()), tmp_path, force=force)
    assert tree(tmp_path) == {"pixi.lock"}


def test_calculators_and_changes_of_another_record_are_not_mixed_in(
    make_sealed, make_environment_json, conda, tmp_path
):
    here = make_environment_json()
    dump(recorded(make_sealed(here, {"mace": conda}, GIT)), tmp_path)
    before = tree(tmp_path)
    with pytest.raises(InputError, match=r"holds uncommitted.diff, calculators/mace/explicit.txt, calc.*mixed up"):
        dump(recorded(make_sealed(here, {"chgnet": conda})), tmp_path, force=True)
    assert tree(tmp_path) == before


def test_links_are_not_followed_out_of_the_folder(make_sealed, make_environment_json, conda, tmp_path):
    folder, outside = tmp_path / "env", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "precious").write_text("mine")
    record = recorded(make_sealed(None, {"model": conda}))
    (folder / "calculators").symlink_to(outside)
    with pytest.raises(InputError, match="no folder of its own"):
        dump(record, folder, force=True)
    (folder / "calculators").unlink()
    (folder / "requirements.txt").symlink_to(outside / "precious")
    with pytest.raises(InputError, match="--force"):
        dump(record, folder)
    dump(record, folder, force=True)
    assert not (folder / "requirements.txt").is_symlink()
    assert (outside / "precious").read_text() == "mine"
    assert tree(outside) == {"precious"}


def test_folders_that_cannot_be(make_sealed, tmp_path):
    record = recorded(make_sealed())
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="--env_dir"):
            dump(record, place)
    (tmp_path / "requirements.txt").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        dump(record, tmp_path, force=True)


def test_a_disk_that_fills_leaves_nothing(make_sealed, make_environment_json, tmp_path, monkeypatch):
    def write(path, text, count=[]):  # noqa: B006 - counts
        count.append(path)
        if len(count) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, text)

    real = dumping.write_atomic
    monkeypatch.setattr(dumping, "write_atomic", write)
    with pytest.raises(InputError, match=r"No space left on device.*nothing was changed; make room"):
        dump(recorded(make_sealed()), tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("", "calculator"),
        ("..", "calculator"),
        ("../../etc", "etc"),
        ("/abs", "abs"),
        ("-rf", "rf"),
        ("a b\n'c'", "a_b_c"),
        ("mace-medium", "mace-medium"),
        ("NUL", "NUL_"),
        ("x" * 500, "x" * 64),
        ("Chgnet", "Chgnet-2"),
    ],
)
def test_safe_names(name, safe):
    assert safe_name(name, {"chgnet"}) == safe


# --- what is read of a record ----------------------------------------------------------------------------------------


def test_the_schema_is_the_one_of_the_floor_above(make_sealed):
    from mlipcluster.outputs.frame import RECORD_KEY
    from mlipcluster.records import record
    from mlipcluster.recreation import found

    assert record.SCHEMA == SCHEMA
    assert found.RECORD_KEY == RECORD_KEY
    assert recorded(make_sealed()).warnings == ()  # the seal is understood as it was made


@pytest.mark.parametrize("schema", [2, 10**30, "1", None, True])
def test_another_schema_is_refused(make_sealed, schema):
    with pytest.raises(RecordError, match=r"newer mlipcluster|no schema number"):
        recorded({**make_sealed(), "schema": schema})


def test_a_changed_record_is_told_and_read(make_sealed, make_environment_json):
    record = make_sealed()
    record["instance"]["environment"] = "evil==1\n"
    assert "changed after it was written" in recorded(record).warnings[0]
    record = make_sealed({**make_environment_json(), "digest": "0" * 64})
    assert "do not have the digest" in recorded(record).warnings[0]


@pytest.mark.parametrize(
    "change",
    [
        {"instance": {}},
        {"instance": None},
        {"metadata": []},
        {"metadata": {"environment": {}}},
        {"metadata": {"environment": None}},
        {"metadata": {"environment": {"packages": [{"nome": "x"}]}}},
        {"metadata": {"environment": {"packages": [1]}}},
        {"metadata": {"environment": {"packages": [], "lock_name": "../../x"}}},
        {"metadata": {"environment": {"packages": [], "more_files": {"/etc/passwd": "x"}}}},
        {"metadata": {"environment": {"packages": [], "more_files": ["a"]}}},
    ],
)
def test_a_record_that_lacks_what_is_needed(make_sealed, change):
    with pytest.raises(RecordError):
        recorded({**make_sealed(), **change})


def test_a_broken_calculator_does_not_keep_the_rest(make_sealed, make_environment_json, conda):
    broken = {**conda, "lock_name": "/etc/passwd"}
    record = recorded(make_sealed(None, {"a": broken, "b": conda, "c": {"packages": 1}}))
    assert set(record.calculators) == {"b"}
    assert len(record.warnings) == 2


def test_broken_text(make_sealed, make_environment_json):
    with pytest.raises(RecordError, match="is damaged"):
        recorded(make_sealed(make_environment_json(lock="a\ud800")))


@pytest.mark.parametrize(
    ("remote", "ok"),
    [
        ("https://example.org/x.git", True),
        ("git@example.org:lab/x.git", True),
        ("/srv/git/x y.git", True),
        ("ssh://git@example.org/x", True),
        ("--upload-pack=touch evil", False),
        ("ext::sh -c touch% evil", False),
        ("-x", False),
        ("", False),
    ],
)
def test_remotes_that_git_takes_for_an_address(remote, ok):
    assert can_be_cloned(remote) is ok


# --- what is told ----------------------------------------------------------------------------------------------------


def told(record, tmp_path):
    return "\n".join(report(record, dump(record, tmp_path / "the env"), ["python3", "recreate_env.py", "--env_dir"]))


def test_the_report_says_what_to_do_next(make_sealed, make_environment_json, conda, tmp_path):
    here = make_environment_json({"mlipcluster": ("0.1.0", f"editable:mlipcluster@{'b' * 40}+dirty")})
    text = told(recorded(make_sealed(here, {"mace": conda, "emt": here}, GIT)), tmp_path)
    for line in (
        f"code: commit {'a' * 40} of https://example.org/lab/code.git",
        "  git clone --no-checkout -- https://example.org/lab/code.git checkout",
        f"  git -C checkout fetch origin {'a' * 40}",
        f"  git -C checkout checkout {'a' * 40}",
        f"package mlipcluster 0.1.0: from a checkout at {'b' * 40}+dirty",
        "calculator 'emt': in the environment of the run itself",
        "calculator 'mace': calculators/mace",
        f"  python3 recreate_env.py --env_dir '{tmp_path}/the env'",
        f"  python3 recreate_env.py --env_dir '{tmp_path}/the env/calculators/mace'",
    ):
        assert line in text.splitlines()
    assert "not committed" in text


def test_the_report_without_a_commit(make_sealed, tmp_path):
    assert "code: the record names no commit" in told(recorded(make_sealed()), tmp_path)


@pytest.mark.parametrize(
    "evil", ["\x1b]0;pwned\x07", "a\nrm -rf ~", "\u202egpj.exe", "\x9b31m", "\ud800", "'; touch x; '"]
)
def test_nothing_of_a_record_reaches_the_terminal_raw(make_sealed, make_environment_json, conda, tmp_path, evil):
    here = make_environment_json({f"six{evil}": (f"1{evil}", f"editable:six@{evil}")}, lock="six\n")
    git = {"sha1": "a" * 40, "remote": f"https://example.org/{evil}", "dirty": True, "diff": f"+{evil}\n"}
    text = told(recorded(make_sealed(here, {evil: conda, f"b{evil}": here}, git, name=evil)), tmp_path)
    assert all(line.isprintable() for line in text.split("\n"))
    assert "rm -rf ~" not in text.split("\n")
    assert tree(tmp_path)  # written all the same


@pytest.mark.parametrize(
    "words", [["a b", "it's"], ["$HOME", "`x`", "\\"], ["ü", ""], ["new\nline", "tab\t'q' \\ \x1b"]]
)
def test_shown_words_are_what_a_shell_reads(words):
    import subprocess

    script = f"printf '%s\\0' {shown(*words)}"
    assert shown(*words).isprintable()
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8", **os.environ}
    )
    assert done.stdout.decode().split("\0")[:-1] == words
