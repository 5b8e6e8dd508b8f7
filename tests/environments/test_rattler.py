"""Conda prefixes and pixi locks of a real implementation: py-rattler, with a channel of this machine.

Its Python is this machine's own: the program is copied, its library is linked to.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import io
import json
import tarfile
from pathlib import Path

import pytest
import rattler
from rattler.lock import LockChannel, LockFile, LockPlatform

from mlipcluster.environments.conda import channel_of
from mlipcluster.environments.environment import Package, difference
from mlipcluster.environments.measure import measure


def _load(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "fakes" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


prefixes = _load("conda_prefix")
SUBDIR = prefixes.SUBDIR


def _package(channel, name, version, build, *, files=None, links=None, depends=(), subdir=SUBDIR):
    """A package in conda's older archive format, with *files* (name to bytes) and *links* (name to target)."""
    paths, noarch = [], {"noarch": "python"} if subdir == "noarch" else {}
    about = {"name": name, "version": version, "build": build, "build_number": 0, "depends": [*depends], **noarch}
    folder = channel / subdir
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / f"{name}-{version}-{build}.tar.bz2", "w:bz2") as archive:

        def add(path, data, mode=0o644):
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), mode
            archive.addfile(info, io.BytesIO(data))

        for path, data in (files or {}).items():
            add(path, data, 0o755 if path.startswith("bin/") else 0o644)
            sha256 = hashlib.sha256(data).hexdigest()
            paths.append({"_path": path, "path_type": "hardlink", "sha256": sha256, "size_in_bytes": len(data)})
        for path, target in (links or {}).items():
            info = tarfile.TarInfo(path)
            info.type, info.linkname = tarfile.SYMTYPE, str(target)
            archive.addfile(info)
            paths.append({"_path": path, "path_type": "softlink", "sha256": "0" * 64, "size_in_bytes": 0})
        add("info/index.json", json.dumps({**about, "subdir": subdir, "timestamp": 1_700_000_000_000}).encode())
        add("info/paths.json", json.dumps({"paths": paths, "paths_version": 1}).encode())
        add("info/about.json", b"{}")


def _distribution(name, version, **more):
    info = f"site-packages/{name}-{version}.dist-info"
    files = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", **more}
    return {f"{info}/{file}": text.encode() for file, text in files.items()}


@pytest.fixture(scope="module")
def channel(tmp_path_factory):
    """Address of a channel with this machine's Python, tiny, and other, which does not say who installed it."""
    folder = tmp_path_factory.mktemp("a channel's folder")
    python = {"bin/python3": prefixes.python_program().read_bytes(), f"{prefixes.SITE}/README": b"x\n"}
    links = {"bin/python": "python3", **prefixes.python_links()}
    _package(folder, "python", prefixes.PYTHON, "h0_cpython", files=python, links=links)
    tiny, other = _distribution("tiny", "1.5", INSTALLER="conda\n"), _distribution("other", "2")
    _package(folder, "tiny", "1.5", "py_0", files=tiny, depends=["python", "other >=1"], subdir="noarch")
    _package(folder, "other", "2", "py_1", files=other, depends=["python"], subdir="noarch")
    asyncio.run(rattler.index.index_fs(folder))
    return folder.as_uri()


def _solve(channel, *specs):
    return asyncio.run(rattler.solve([rattler.Channel(channel)], list(specs), platforms=[SUBDIR, "noarch"]))


def _install(records, prefix):
    cache = prefix.parent / "cache"
    asyncio.run(rattler.install(records, target_prefix=prefix, cache_dir=cache, show_progress=False))
    return prefix


@pytest.fixture(scope="module")
def records(channel):
    return _solve(channel, "python", "tiny")


@pytest.fixture
def prefix(records, tmp_path):
    return _install(records, tmp_path / "an 'env'")


def test_a_real_prefix_is_told_and_measured(prefix, channel):
    measured = measure(prefix)
    assert (measured.manager, measured.prefix, measured.python) == ("conda", str(prefix), prefixes.PYTHON)
    name = "file:" + channel.rpartition("/")[2]
    assert measured.packages == (
        Package("other", "2", "conda", "py_1", name),
        Package("python", prefixes.PYTHON, "conda", "h0_cpython", name),
        Package("tiny", "1.5", "conda", "py_0", name),
    )
    assert measured.drift == ()
    assert set(measured.files()) == {"environment.yml", "explicit.txt"}


def test_the_lock_is_read_by_rattler_and_gives_the_same_environment(prefix, channel, records, tmp_path):
    measured = measure(prefix)
    lines = measured.lock.splitlines()
    specs = [line[4:] for line in lines[lines.index("dependencies:") + 1 :]]
    listed = [json.loads(line[4:]) for line in lines if line.startswith('  - "')]
    assert listed == [channel]
    specs = [rattler.MatchSpec(spec) for spec in specs]
    for spec in specs:
        assert sum(spec.matches(record) for record in records) == 1
    again = _install(_solve(listed[0], *specs), tmp_path / "again")
    assert difference(measured, measure(again)) == []
    assert measure(again).digest == measured.digest


def test_the_explicit_list_is_read_by_rattler_in_an_order_that_can_be_linked(prefix, records):
    lines = measure(prefix).files()["explicit.txt"].splitlines()
    addresses = lines[lines.index("@EXPLICIT") + 1 :]
    found = [rattler.MatchSpec.from_url(line.partition("#")[0]) for line in addresses]
    assert [spec.name.normalized for spec in found] == ["python", "other", "tiny"]
    md5 = {record.url: record.md5.hex() for record in records}
    assert dict(line.split("#") for line in addresses) == md5


def test_what_differs_is_said(prefix, channel, tmp_path):
    other = _install(_solve(channel, "python", "other"), tmp_path / "other")
    assert difference(measure(prefix), measure(other)) == ["only recorded: tiny 1.5 (py_0 conda)"]


def test_a_channel_with_a_name_is_the_same_in_each_spelling():
    address = "https://conda.anaconda.org/conda-forge"
    file = f"{address}/{SUBDIR}/python-3.11.7-h0.conda"
    for written in (address, f"{address}/", f"{address}/{SUBDIR}", "conda-forge", "conda-forge/noarch", ""):
        assert channel_of({"url": file, "channel": written}) == "conda-forge"
        assert channel_of({"url": "", "channel": written}) == ("conda-forge" if written else "")
    assert rattler.Channel("conda-forge").base_url.rstrip("/") == address


# --- pixi.lock -------------------------------------------------------------------------------------------------------


@pytest.fixture
def workspace(channel, records, tmp_path):
    """A pixi workspace whose default environment is installed from its lock."""
    folder = tmp_path / "work 'space'"
    folder.mkdir()
    (folder / "pixi.toml").write_text(f'[workspace]\nchannels = ["{channel}"]\nplatforms = ["{SUBDIR}"]\n')
    platform = LockPlatform(SUBDIR)
    lock = LockFile([platform])
    lock.set_channels("default", [LockChannel(f"https://me:s3cret@conda.example.org:8443/t/s3cret/{SUBDIR}")])
    lock.set_channels("test", [LockChannel(channel)])
    for record in records:
        lock.add_conda_package("default", platform, record)
        lock.add_conda_package("test", platform, record)
    lock.add_pypi_package("test", platform, "ase", "3.25.0", "https://files.example.org/ase-3.25.0-py3-none-any.whl")
    lock.add_pypi_package("test", platform, "mine", "0.1", "./mine")
    lock.to_path(folder / "pixi.lock")
    for name in ("default", "test"):
        _install(records, folder / ".pixi" / "envs" / name)
    return folder


def test_a_real_lock_is_read_and_can_be_read_back(workspace, tmp_path):
    measured = measure(workspace / ".pixi" / "envs" / "default")
    assert (measured.manager, measured.lock_name, measured.toml_format) == ("pixi", "pixi.lock", "pixi.toml")
    assert measured.drift == ()
    assert "s3cret" in (workspace / "pixi.lock").read_text()
    assert "s3cret" not in str(measured.to_json())
    (tmp_path / "pixi.lock").write_text(measured.lock)
    back = LockFile.from_path(tmp_path / "pixi.lock")
    packages = back.default_environment().packages(back.platforms()[0])
    assert {package.name for package in packages} == {package.name for package in measured.packages}


def test_drift_from_a_real_lock(workspace):
    prefix = workspace / ".pixi" / "envs" / "test"
    assert measure(prefix).drift == (
        "ase 3.25.0 is in pixi.lock but not installed",
        "mine 0.1 is in pixi.lock but not installed",
    )
    site = prefix / prefixes.SITE
    for name, version in (("ase", "3.24.0"), ("mine", "0.1"), ("extra", "7")):
        (site / f"{name}-{version}.dist-info").mkdir()
        (site / f"{name}-{version}.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
        (site / f"{name}-{version}.dist-info" / "INSTALLER").write_text("uv-pixi")
    meta = prefix / "conda-meta" / "tiny-1.5-py_0.json"
    meta.write_text(meta.read_text().replace('"py_0"', '"py_9"'))
    assert measure(prefix).drift == (
        "ase 3.24.0 is installed, pixi.lock says 3.25.0",
        "extra 7 is installed but not in pixi.lock",
        "tiny 1.5 (py_9) is installed, pixi.lock says py_0",
    )


@pytest.mark.parametrize("kept", range(0, 100, 7))
def test_a_lock_that_was_cut_short_is_drift(workspace, kept):
    """At any place of the part that matters: never an error, never nothing said."""
    lock = workspace / "pixi.lock"
    text = lock.read_text()
    lock.write_text(text[: text.index("\n- conda") * kept // 100])
    assert measure(workspace / ".pixi" / "envs" / "default").drift
