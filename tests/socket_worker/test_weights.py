from __future__ import annotations

import hashlib
import importlib.util
import mmap
import os
import sys
import sysconfig
import types
from pathlib import Path

import pytest

from mlipcluster.socket_worker.weights import WeightsWatch


@pytest.fixture
def watch(tmp_path):
    return WeightsWatch((str(tmp_path / "ignored"),))


def opened(watch, path, mode="rb", flags=os.O_RDONLY):
    watch._hook("open", (path, mode, flags))
    return {item["path"]: item for item in watch.found()}


def test_the_hook_sees_open(tmp_path):
    path = tmp_path / "a model's.pt"
    path.write_bytes(b"1234")
    watch = WeightsWatch()
    watch.install()
    path.read_bytes()
    os.close(os.open(path, os.O_RDONLY))
    found = [item for item in watch.found() if item["path"] == str(path)]
    assert found == [{"path": str(path), "size": 4, "sha256": hashlib.sha256(b"1234").hexdigest()}]


@pytest.mark.parametrize(
    "name", ["w.pt", "W.PTH.TAR", "w.safetensors", "blobs/0123abcd", "Cu_mishin.eam.alloy", "m.model"]
)
def test_parameters_count(watch, tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("parameters")
    assert str(path) in opened(watch, str(path))
    assert str(path) in opened(WeightsWatch(), os.fsencode(path))


@pytest.mark.parametrize(
    "name", ["m.py", "m.cpython-311.pyc", "m.so", "libm.so.6", "x.dist-info/RECORD", "pyproject.toml", "ignored/data"]
)
def test_code_and_what_belongs_to_it_do_not(watch, tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("code")
    assert opened(watch, str(path)) == {}


def test_weights_within_the_environment_count_and_path_files_do_not(watch):
    packages = Path(sysconfig.get_paths()["purelib"])
    assert watch._counts(str(packages / "chgnet" / "pretrained" / "weights.pth.tar"))
    assert not watch._counts(str(packages / "distutils-precedence.pth"))
    assert not watch._counts(str(packages / "ase" / "data.json"))
    assert not watch._counts(str(Path(os.__file__).parent / "test" / "archive.zip"))


@pytest.mark.parametrize(("mode", "flags"), [("wb", 0), ("a", 0), ("x", 0), (None, os.O_WRONLY)])
def test_what_is_written_is_not_read(watch, tmp_path, mode, flags):
    (tmp_path / "w.pt").touch()
    assert opened(watch, str(tmp_path / "w.pt"), mode, flags) == {}


def test_nonsense_is_ignored(watch, tmp_path):
    for path in (3, str(tmp_path), str(tmp_path / "missing.pt"), "/dev/null", "/proc/self/status", "nul\0"):
        assert opened(watch, path) == {}


def test_the_hash_is_of_what_was_opened(watch, tmp_path):
    path = tmp_path / "w.pt"
    path.write_bytes(b"old")
    watch._hook("open", (str(path), "rb", 0))
    path.write_bytes(b"newer")
    (item,) = watch.found()
    assert item == {"path": str(path), "size": 3, "sha256": ""}


def test_a_hash_once_taken_outlives_the_file(watch, tmp_path):
    path = tmp_path / "w.pt"
    path.write_bytes(b"old")
    before = opened(watch, str(path))
    path.unlink()
    assert {item["path"]: item for item in watch.found()} == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc/self/maps is Linux's")
def test_files_mapped_by_compiled_code_are_found(watch, tmp_path):
    path = tmp_path / "mapped weights.safetensors"
    path.write_bytes(b"x" * 5000)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
        found = {item["path"]: item for item in watch.found()}
    assert found[str(path)]["sha256"] == hashlib.sha256(b"x" * 5000).hexdigest()


def test_files_named_by_arguments_are_added(watch, tmp_path):
    (tmp_path / "anything.py").write_text("x")
    watch.add(str(tmp_path / "anything.py"))
    watch.add(str(tmp_path / "missing"))
    assert [item["path"] for item in watch.found()] == [str(tmp_path / "anything.py")]


def test_a_file_that_is_opened_again_is_told_as_it_is_now(watch, tmp_path):
    path = tmp_path / "w.pt"
    for content in (b"old", b"new"):
        path.write_bytes(content)
        os.utime(path, ns=(0, content[0]))  # of one size and inode
        assert opened(watch, str(path))[str(path)]["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_named_file_is_followed_whatever_its_name(watch, tmp_path):
    path = tmp_path / "ignored.dist-info" / "w"
    path.parent.mkdir()
    path.write_bytes(b"old")
    assert opened(watch, str(path)) == {}
    watch.add(str(path))
    path.write_bytes(b"newer")
    assert opened(watch, str(path))[str(path)]["sha256"] == hashlib.sha256(b"newer").hexdigest()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc/self/maps is Linux's")
def test_a_mapped_file_that_was_replaced_is_told_as_it_is_now(watch, tmp_path):
    path = tmp_path / "w.safetensors"
    for content in (b"x" * 5000, b"y" * 6000):
        (tmp_path / "new").write_bytes(content)
        (tmp_path / "new").replace(path)
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
            found = {item["path"]: item["sha256"] for item in watch.found()}
        assert found[str(path)] == hashlib.sha256(content).hexdigest()


def written(watch, path, content):
    watch._hook("open", (str(path), "w", os.O_WRONLY | os.O_CREAT))
    path.write_text(content)


def test_what_the_process_writes_again_and_again_is_scratch(watch, tmp_path):
    path = tmp_path / "job.out"
    written(watch, path, "1")
    assert str(path) in opened(watch, str(path))  # it may be a download, so far
    written(watch, path, "2.0")
    assert opened(watch, str(path)) == {}
    assert watch.scratch == [str(path)]
    assert opened(watch, str(path)) == {}


def test_what_changes_before_it_was_ever_told_is_scratch_that_nobody_need_know_of(watch, tmp_path):
    path = tmp_path / "job.out"
    written(watch, path, "1")
    watch._hook("open", (str(path), "r", os.O_RDONLY))
    written(watch, path, "2.0")
    assert watch.found() == []
    assert watch.scratch == []


def test_a_download_whose_time_is_set_after_it_was_read_counts(watch, tmp_path):
    path = tmp_path / "w.pt"
    written(watch, path, "weights")
    watch._hook("open", (str(path), "r", os.O_RDONLY))
    os.utime(path, (1, 1))
    assert [found["sha256"] for found in watch.found()] == [hashlib.sha256(b"weights").hexdigest()]
    assert watch.scratch == []


def test_what_changed_before_it_was_ever_told_counts_when_it_is_read_again(watch, tmp_path):
    path = tmp_path / "w.pt"
    written(watch, path, "half")
    watch._hook("open", (str(path), "r", os.O_RDONLY))
    written(watch, path, "all of it")
    assert watch.found() == []
    assert opened(watch, str(path))[str(path)]["sha256"] == hashlib.sha256(b"all of it").hexdigest()


def test_temporary_files_that_have_gone_are_forgotten(watch, tmp_path):
    for number in range(3):
        path = tmp_path / f"x{number}.out"
        written(watch, path, "1")
        watch._hook("open", (str(path), "r", os.O_RDONLY))
        path.unlink()
        assert watch.found() == []
    assert watch._seen == {}


def test_files_that_have_gone_are_forgotten_even_if_nobody_asks(watch, tmp_path):
    path = tmp_path / "x.out"
    for number in range(1500):
        path = path.rename(tmp_path / f"x{number}.out") if number else path
        path.write_text("1")
        watch._hook("open", (str(path), "r", os.O_RDONLY))
    assert len(watch._seen) < 1000


@pytest.mark.parametrize("moved", [False, True])
def test_a_download_counts(watch, tmp_path, moved):
    part, path = tmp_path / ("model.pt.part" if moved else "model.pt"), tmp_path / "model.pt"
    for _ in range(2):  # the second time it is the same again
        written(watch, part, "weights")
        if moved:
            watch._hook("os.rename", (str(part), str(path), -1, -1))
            part.rename(path)
        assert opened(watch, str(path))[str(path)]["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert watch.scratch == []


def test_what_somebody_else_replaces_is_no_scratch(watch, tmp_path):
    path = tmp_path / "w.pt"
    for content in (b"old", b"newer"):
        path.write_bytes(content)
        assert opened(watch, str(path))[str(path)]["sha256"] == hashlib.sha256(content).hexdigest()
    assert watch.scratch == []


@pytest.mark.parametrize("name", [".netrc", "huggingface/token", ".aws/credentials"])
def test_credentials_do_not_count(watch, tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("secret")
    assert opened(watch, str(path)) == {}
    watch.add(str(path))
    assert watch.found() == []


@pytest.fixture
def module(monkeypatch):
    """Put a module of a file into ``sys.modules``."""

    def put(path):
        module = types.ModuleType("put_here")
        module.__file__ = str(path)
        monkeypatch.setitem(sys.modules, "put_here", module)

    return put


def code(watch):
    return {item["path"]: item for item in watch.found_code()}


@pytest.mark.parametrize("name", ["own.py", "own.cpython-311-x86_64-linux-gnu.so", "own.pyc"])
def test_modules_that_no_hook_saw_are_code(watch, module, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"code")
    module(path)
    expected = {"path": str(path), "size": 4, "sha256": hashlib.sha256(b"code").hexdigest()}
    assert code(watch)[str(path)] == expected
    path.unlink()
    assert code(watch)[str(path)] == expected


def test_installed_modules_and_the_ignored_are_no_code(watch, module, tmp_path):
    packages = Path(sysconfig.get_paths()["purelib"])
    link = tmp_path / "link"
    link.symlink_to(packages)
    (tmp_path / "ignored").mkdir()
    (tmp_path / "ignored" / "own.py").touch()
    for path in (
        *(Path(os.__file__), packages / "ase" / "atoms.py", link / "ase" / "atoms.py"),
        *(tmp_path / "ignored" / "own.py", tmp_path / "missing.py"),
    ):
        watch._modules.discard("put_here")
        module(path)
        assert str(path) not in code(watch)


def test_looking_at_modules_imports_no_lazy_one(watch, monkeypatch, tmp_path):
    path = tmp_path / "lazy.py"
    path.write_text("raise RuntimeError('imported')")
    spec = importlib.util.spec_from_file_location("lazy", path)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    lazy = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lazy", lazy)
    spec.loader.exec_module(lazy)
    monkeypatch.setitem(sys.modules, "strange", object())
    assert str(path) in code(watch)
    with pytest.raises(RuntimeError, match="imported"):
        _ = lazy.anything
