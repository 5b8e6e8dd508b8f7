"""Environments built again: as recorded or with what differs, and nothing left half made."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from mlipcluster.environments.environment import Environment
from mlipcluster.environments.measure import measure
from mlipcluster.errors import EnvironmentBuildError, InputError, MeasureError, RecordError
from mlipcluster.recreation import recreate as recreating
from mlipcluster.recreation.command_line import recreate_folder, recreate_main
from mlipcluster.recreation.dump import dump
from mlipcluster.recreation.leftovers import MARKER, Mark, read_mark, write_mark
from mlipcluster.recreation.recorded import Recorded
from mlipcluster.recreation.recreate import recreate
from mlipcluster.recreation.recreate_plan import Order, plan

ROOT = Path(__file__).resolve().parents[2]
ENDS_WITHIN = 60.0  # seconds; not a speed, a limit for what should end at once
FAKE = """#!{python}
import os, signal, subprocess, sys, time
open("pyvenv.cfg", "w").close()
os.makedirs("lib/deep", exist_ok=True)
os.makedirs("share", exist_ok=True)
{body}
"""


def wheel(folder, name, version):
    """A package with nothing in it."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},"
        for path, text in files.items()
    ]
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    for version in ("1.0", "2.0"):
        wheel(folder, "tiny", version)
    return folder


@pytest.fixture
def offline(wheels, monkeypatch):
    """Installers see the folder of wheels and no network."""
    for name, value in {
        "UV_OFFLINE": "1",
        "UV_NO_INDEX": "1",
        "UV_FIND_LINKS": os.fspath(wheels),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": os.fspath(wheels),
        "UV_PYTHON_DOWNLOADS": "never",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def dumped(tmp_path, make_environment_json):
    """A folder as ``dump`` leaves it."""

    def make(packages=None, folder='it\'s a "new" env ü', **fields):
        packed = make_environment_json(packages or {"tiny": "1.0"}, **fields)
        place = tmp_path / folder
        dump(Recorded(Environment.from_json(packed)), place)
        return place

    return make


@pytest.fixture
def fake_uv(tmp_path, monkeypatch):
    """A program in uv's place that does what a test says, after it has begun to make something."""

    def make(body):
        path = tmp_path / "tools" / "uv"
        path.parent.mkdir(exist_ok=True)
        path.write_text(FAKE.format(python=sys.executable, body=body))
        path.chmod(0o755)
        monkeypatch.setenv("UV", os.fspath(path))

    return make


def names(folder):
    return sorted(os.listdir(folder))


def quiet(line):
    pass


# --- as recorded -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("manager", "asked"), [("uv", ""), ("pip", ""), ("pip", "uv"), ("uv", "pip")])
def test_it_is_made_as_recorded(dumped, offline, uv, manager, asked):
    """By the recorded manager, or by the other one: the digest knows no manager."""
    folder = dumped(manager=manager)
    before = {name: (folder / name).read_bytes() for name in names(folder)}
    said = []
    done = recreate(Order(folder, asked), said.append)
    assert done.differences == ()
    assert done.environment.digest == done.recorded.digest == measure(folder).digest
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert any(line.startswith("$ ") and ("uv" in line or " -m pip " in line) for line in said)
    assert read_mark(folder).whole


@pytest.mark.parametrize("manager", ["uv", "pip"])
def test_in_a_folder_whose_name_has_a_newline(dumped, offline, uv, manager):
    folder = dumped(manager=manager, folder="two\nlines $(touch evil)")
    assert recreate(Order(folder), quiet).differences == ()
    assert not Path("evil").exists()


def test_what_is_there_already_is_left_alone_and_made_again_when_asked(dumped, offline, uv):
    folder = dumped()
    recreate(Order(folder), quiet)
    (folder / "lib" / "mine").write_text("")
    (folder / "thesis").mkdir()
    with pytest.raises(InputError, match=r"has the environment already.*--force"):
        recreate(Order(folder), quiet)
    assert (folder / "lib" / "mine").exists()
    assert recreate(Order(folder, force=True), quiet).differences == ()
    assert not (folder / "lib" / "mine").exists()
    assert (folder / "thesis").exists()


@pytest.mark.parametrize("tool", ["python", "uv", "this"])
def test_an_environment_is_not_made_again_by_what_is_in_it(dumped, tmp_path, monkeypatch, tool):
    folder = dumped()
    inside = folder / "bin" / "tool"
    inside.parent.mkdir()
    inside.symlink_to(sys.executable)
    write_mark(folder, Mark(frozenset({"bin"}), True, "", "d" * 64))
    python = os.fspath(inside) if tool == "python" else ""
    if tool == "uv":
        monkeypatch.setenv("UV", os.fspath(inside))
    elif tool == "this":
        monkeypatch.setattr(sys, "executable", os.fspath(inside))
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(InputError, match=r"lies in the environment that would be taken away"):
        recreate(Order(link, python=python, force=True), quiet)
    assert inside.is_symlink()


def test_another_environment_than_the_recorded_one_is_not_called_it(dumped, uv):
    folder = dumped()
    write_mark(folder, Mark(frozenset({"bin"}), True, "", "d" * 64))
    with pytest.raises(InputError, match=r"has another environment already .*make the recorded one .*--force"):
        recreate(Order(folder), quiet)


def test_nobody_reads_on(dumped, fake_uv):
    """As ``| head`` does: that is no fault of the disk."""

    def gone(line):
        if line.startswith("$"):
            raise BrokenPipeError

    fake_uv("")
    folder = dumped()
    before = names(folder)
    with pytest.raises(BrokenPipeError):
        recreate(Order(folder), gone)
    assert names(folder) == before


def test_what_differs_is_listed(dumped, offline, uv):
    folder = dumped({"tiny": "1.0"}, lock="tiny==2.0\n")
    said = []
    assert recreate_folder(Order(folder), said.append) == 3
    assert "  tiny 1.0 -> 2.0" in said
    assert read_mark(folder).whole


def test_an_edited_lock_file_is_told(dumped, offline, uv):
    folder = dumped()
    (folder / "requirements.txt").write_text("tiny==2.0\n")
    said = []
    done = recreate(Order(folder), said.append)
    assert "warning: requirements.txt is not as it was recorded: it was edited, or cut short" in said
    assert done.differences == ("tiny 1.0 -> 2.0",)


def test_without_a_measurement_nothing_is_verified(dumped, offline, uv):
    folder = dumped()
    (folder / "environment.json").unlink()
    said = []
    assert recreate_folder(Order(folder), said.append) == 0
    assert any("not verified" in line for line in said)


OPTIONS = ["--extra-index-url https://a:b@evil.example/simple", "-e ../x", "file:///x.whl", "./x", "x @ file:///x.whl"]


@pytest.mark.parametrize("name", ["requirements.txt", "environment.yml"])
def test_what_a_lock_file_does_besides_is_told_before_it_is_done(dumped, uv, name):
    entry = "    - " if name == "environment.yml" else ""
    harmless = ["---", f"{entry}tiny==1.0 \\", "    --hash=sha256:00", f"{entry}six @ https://files.example/six.whl"]
    folder = dumped(lock="\n".join(["# x", *harmless, *(entry + line for line in OPTIONS), ""]), lock_name=name)
    (folder / "requirements.txt").touch()
    said = []
    assert recreate_folder(Order(folder, "pip", python=sys.executable, force=True), said.append, dry_run=True) == 0
    assert said[0] == "the lock files name: evil.example, files.example"
    told = [line for line in said if line.startswith("warning")]
    assert told == [f"warning: {name} says {line!r}, which is followed as it stands" for line in OPTIONS]


def test_pip_installs_nowhere_else(dumped, offline, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_TARGET", os.fspath(tmp_path / "elsewhere"))
    assert recreate(Order(dumped(manager="pip")), quiet).differences == ()
    assert not (tmp_path / "elsewhere").exists()


def test_a_dry_run_only_shows(dumped, uv):
    folder = dumped()
    before = names(folder)
    said = []
    assert recreate_folder(Order(folder), said.append, dry_run=True) == 0
    assert [line for line in said if line.startswith("$ ") and "venv" in line]
    assert names(folder) == before


# --- refused before anything starts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("there", ["bin", "pyvenv.cfg", "env", ".pixi", "share", ".gitignore"])
def test_an_environment_of_somebody_else_is_refused(dumped, uv, there):
    folder = dumped()
    (folder / there).mkdir()
    (folder / there / "mine").write_text("")
    before = names(folder)
    for force in (False, True):
        with pytest.raises(InputError, match=r"not made by recreating: it is left alone"):
            recreate(Order(folder, force=force), quiet)
    assert names(folder) == before
    assert (folder / there / "mine").exists()


def test_another_platform(dumped, offline, uv):
    folder = dumped(platform="linux-mips128")
    with pytest.raises(InputError, match=r"linux-mips128, and this is .*--force"):
        recreate(Order(folder), quiet)
    assert MARKER not in names(folder)
    done = recreate(Order(folder, force=True), quiet)
    assert done.differences[0].startswith("platform linux-mips128 -> ")


def test_another_python(dumped, offline, uv):
    folder = dumped(
        python="3.11.99" if sys.version_info[:2] == (3, 11) else f"3.{sys.version_info[1]}.99", manager="pip"
    )
    with pytest.raises(
        EnvironmentBuildError, match=r"Python 3\.\d+\.99 is needed.*--python.*--env_manager uv.*--force"
    ):
        recreate(Order(folder), quiet)
    with pytest.raises(InputError, match=r"was recorded; name one of that version"):
        recreate(Order(folder, python=sys.executable), quiet)
    for python in ("/no/such/python", "true"):
        with pytest.raises(InputError, match=r"is no Python that runs"):
            recreate(Order(folder, python=python), quiet)
    assert MARKER not in names(folder)
    done = recreate(Order(folder, force=True), quiet)
    assert done.differences[0].startswith("python 3.")


def test_unknown_and_missing_managers(dumped, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"no environment manager 'poetry'; known: .*conda.*--env_manager"):
        plan(Order(dumped(manager="poetry", folder="a")))
    folder = dumped(manager="uv", folder="b")
    with pytest.raises(InputError, match=r"conda builds from .*explicit\.txt.*take .*--env_manager pip"):
        plan(Order(folder, "conda"))
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    monkeypatch.delenv("UV", raising=False)
    monkeypatch.setattr(sys, "executable", os.fspath(tmp_path / "python"))
    with pytest.raises(
        EnvironmentBuildError, match=r"uv is not on the PATH; install uv, or take pip.*--env_manager pip"
    ):
        plan(Order(folder))
    folder = dumped(manager="conda", lock="@EXPLICIT\n", lock_name="explicit.txt", folder="c")
    with pytest.raises(EnvironmentBuildError, match=r"conda is not on the PATH; install conda"):
        plan(Order(folder, "conda"))


def test_a_folder_without_lock_files(tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        plan(Order(tmp_path / "gone"))
    with pytest.raises(InputError, match="holds no lock file; dump an environment"):
        plan(Order(tmp_path))


def test_a_folder_that_cannot_be_written(dumped, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *given, **more: False)
    with pytest.raises(InputError, match="cannot be written to"):
        plan(Order(dumped()))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"packages": 3}', '{"packages": [], "lock_name": "../x", "lock": "x"}']
)
def test_a_damaged_measurement(dumped, text):
    folder = dumped()
    (folder / "environment.json").write_text(text)
    with pytest.raises(RecordError):
        plan(Order(folder))


# --- packages from folders -------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path):
    """A package in a git checkout that needs nothing to be built."""
    folder = tmp_path / "the project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "local"\nversion = "1"\n'
    )
    (folder / "backend.py").write_text(
        "import zipfile\n"
        "def build_editable(folder, *rest):\n"
        "    info, name = 'local-1.dist-info', 'local-1-py3-none-any.whl'\n"
        "    with zipfile.ZipFile(folder + '/' + name, 'w') as archive:\n"
        "        archive.writestr(info + '/METADATA', 'Metadata-Version: 2.1\\nName: local\\nVersion: 1\\n')\n"
        "        wheel = 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n'\n"
        "        archive.writestr(info + '/WHEEL', wheel)\n"
        "        archive.writestr(info + '/RECORD', '')\n"
        "    return name\n"
        "build_wheel = build_editable\n"
    )
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "one"]):
        subprocess.run(["git", "-C", folder, *command], check=True)
    done = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return folder, done.stdout.strip()


@pytest.mark.parametrize("manager", ["uv", "pip"])
def test_a_package_from_a_checkout(dumped, offline, uv, project, manager):
    place, sha1 = project
    source = f"editable:local@{sha1}"
    folder = dumped({"tiny": "1.0", "local": ("1", source)}, lock="tiny==1.0\n", manager=manager)
    with pytest.raises(InputError, match=rf"local 1 \(git checkout {sha1}\).*--package local=PATH"):
        recreate(Order(folder), quiet)
    assert MARKER not in names(folder)
    done = recreate(Order(folder, packages={"local": os.fspath(place)}), quiet)
    assert done.differences == ()


def test_a_checkout_at_another_commit_is_told(dumped, project):
    folder = dumped({"local": ("1", f"editable:local@{'a' * 40}")}, lock="# none\n")
    warnings = plan(Order(folder, packages={"local": os.fspath(project[0])})).warnings
    assert f"is at {project[1]}, recorded was {'a' * 40}" in warnings[0]


def test_a_package_may_be_left_out(dumped, offline, uv):
    folder = dumped({"tiny": "1.0", "local": ("1", "editable:local")}, lock="tiny==1.0\n")
    status = recreate_main(["--env_dir", os.fspath(folder), "--package", "Local="])
    assert status == 3
    assert {package.name for package in measure(folder).packages} == {"tiny"}


def test_mlipcluster_itself_is_taken_from_its_checkout(dumped):
    folder = dumped({"mlipcluster": ("0.1.0", "editable:mlipcluster")}, lock="# none\n")
    assert any(os.fspath(ROOT) in step.command for step in plan(Order(folder)).steps)


def test_wrong_places(dumped):
    folder = dumped({"local": ("1", "file:local")}, lock="# none\n")
    with pytest.raises(InputError, match="there is nothing; give the folder"):
        plan(Order(folder, packages={"local": "/no/such"}))
    with pytest.raises(InputError, match=r"no package of that name was installed from a folder; .* local"):
        plan(Order(folder, packages={"other": "/"}))


# --- nothing half made -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("manager", ["uv", "pip"])
def test_a_package_that_is_gone_is_named(dumped, offline, uv, manager):
    folder = dumped({"tiny": "1.0", "no-such-thing": "3.1"}, manager=manager)
    before = names(folder)
    with pytest.raises(EnvironmentBuildError, match=r"no-such-thing[\s\S]*last words"):
        recreate(Order(folder), quiet)
    assert names(folder) == before


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("sys.exit('error: No space left on device (os error 28)')", "the disk is full; make room"),
        ("sys.exit(7)", "exit status 7"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "exit status -11"),
        ("print('\\x1b[31mError'); sys.exit(1)", "exit status 1"),
    ],
)
def test_a_tool_that_fails(dumped, fake_uv, body, words):
    fake_uv(body)
    folder = dumped()
    (folder / "mine").write_text("mine")
    before, said = names(folder), []
    with pytest.raises(EnvironmentBuildError) as caught:
        recreate(Order(folder), said.append)
    assert words in str(caught.value)
    assert names(folder) == before
    assert all(line.isprintable() for line in said)


def test_a_tool_that_makes_nothing(dumped, fake_uv):
    fake_uv("")
    folder = dumped()
    before = names(folder)
    with pytest.raises(MeasureError):
        recreate(Order(folder), quiet)
    assert names(folder) == before


def test_a_tool_that_takes_too_long_is_ended_with_all_it_started(dumped, fake_uv, tmp_path):
    pid = os.fspath(tmp_path / "pid")
    fake_uv(f"open({pid!r}, 'w').write(str(subprocess.Popen(['sleep', '600']).pid))\ntime.sleep(600)")
    folder = dumped()
    before = names(folder)
    with pytest.raises(EnvironmentBuildError, match=r"longer than 3 s.*--timeout"):
        recreate(Order(folder, timeout=3.0), quiet)
    assert names(folder) == before
    wait_until(lambda: not is_running(int((tmp_path / "pid").read_text())))


def test_a_disk_that_fills(dumped, fake_uv, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    fake_uv("")
    folder = dumped()
    before = names(folder)
    monkeypatch.setattr(recreating, "write_mark", full)
    with pytest.raises(EnvironmentBuildError, match=r"No space left on device.*make room"):
        recreate(Order(folder), quiet)
    assert names(folder) == before


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(true):
    deadline = time.monotonic() + ENDS_WITHIN
    while not true():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.02)


@pytest.fixture
def started(dumped, fake_uv, tmp_path):
    """The script while its tool works: process, folder, what was in it before, and the tool's process id."""
    pid = tmp_path / "pid"
    path = os.fspath(pid)
    beside = f"{path}.new"
    fake_uv(f"open({beside!r}, 'w').write(str(os.getpid()))\nos.rename({beside!r}, {path!r})\ntime.sleep(600)")
    folder = dumped()
    before = names(folder)
    process = subprocess.Popen(
        [sys.executable, "-I", ROOT / "recreate_env.py", "--env_dir", folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until(lambda: pid.exists() or process.poll() is not None)
        yield process, folder, before, int(pid.read_text())
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_takes_away_what_was_made(started, number):
    process, folder, before, pid = started
    assert "pyvenv.cfg" in names(folder)
    process.send_signal(number)
    said, _ = process.communicate(timeout=ENDS_WITHIN)
    assert process.returncode == 130, said
    assert "interrupted" in said
    assert "Traceback" not in said
    assert names(folder) == before
    wait_until(lambda: not is_running(pid))


def test_a_second_start_in_the_same_folder_is_refused(started):
    _, folder, _, pid = started
    with pytest.raises(InputError, match=r"another process recreates .* now"):
        recreate(Order(folder), quiet)
    assert is_running(pid)


def test_after_sigkill_the_next_start_clears_the_rest(started, offline, uv, monkeypatch):
    process, folder, before, pid = started
    process.kill()
    process.wait()
    assert {MARKER, "pyvenv.cfg", "lib"} <= set(names(folder))
    assert is_running(pid)  # nobody was left to end it
    monkeypatch.setenv("UV", uv)
    (folder / "thesis").mkdir()
    (folder / "lib" / "half made").write_text("")
    said = []
    done = recreate(Order(folder), said.append)
    assert said[0].startswith("taking away what an earlier start left unfinished")
    assert done.differences == ()
    assert not (folder / "lib" / "half made").exists()
    assert {*before, "thesis"} < set(names(folder))
    wait_until(lambda: not is_running(pid))


def test_a_marker_that_cannot_be_read(dumped, uv):
    folder = dumped()
    for text in (
        "",
        "[]",
        json.dumps({"kind": "other"}),
        json.dumps({"kind": "mlipcluster recreate", "made": ["../thesis"]}),
    ):
        (folder / MARKER).write_text(text)
        with pytest.raises(InputError, match=r"cannot be read.*take a new folder"):
            recreate(Order(folder), quiet)


def test_links_are_removed_and_not_followed(dumped, fake_uv, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("")
    fake_uv(f"os.symlink({os.fspath(outside)!r}, 'etc'); sys.exit(1)")
    folder = dumped()
    with pytest.raises(EnvironmentBuildError):
        recreate(Order(folder), quiet)
    assert (outside / "precious").exists()
    assert "etc" not in names(folder)


def test_the_marker_says_what_is_made(tmp_path):
    mark = Mark(frozenset({"bin", "lib"}), True, "t", "d")
    write_mark(tmp_path, mark)
    assert read_mark(tmp_path) == mark
    assert read_mark(tmp_path / "gone") is None


def test_lock_files_that_came_later_are_kept(dumped, offline, uv, make_environment_json):
    """A folder that is dumped into again, after an environment was made in it."""
    folder = dumped()
    recreate(Order(folder), quiet)
    packed = make_environment_json({"tiny": "2.0"}, more_files=(("pixi.toml", "[project]\n"),))
    dump(Recorded(Environment.from_json(packed), diff="+x\n"), folder, force=True)
    assert recreate(Order(folder, force=True), quiet).differences == ()
    assert {"pixi.toml", "uncommitted.diff"} <= set(names(folder))
