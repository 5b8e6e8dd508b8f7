"""What every test gets: a home of its own, no silent skips in CI, a few structures and paths."""

from __future__ import annotations

import fnmatch
import os
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import hypothesis
import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytest_plugins = ["pytester"]

TESTS = Path(__file__).parent
GITCONFIG = "[user]\n\tname = Test\n\temail = test@example.org\n[init]\n\tdefaultBranch = main\n"
IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")
SKIPS = tomllib.loads((TESTS / "skips.toml").read_text(encoding="utf-8")).get("allowed", [])

# Slow machines are no failures, and CI tries the same examples each time.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if IN_CI else "here")


# --- a home of its own -----------------------------------------------------------------------------------------------


def _make_home() -> Path:
    """Point HOME, and what is derived from it, at an empty folder; nobody's files are read or written.

    It happens while this file is imported: Dask, Matplotlib and IPython look at HOME when they are imported.
    Caches of downloads stay where they are.
    """
    home = Path(tempfile.mkdtemp(prefix="mlipcluster-tests-home-"))
    real = Path(os.environ.get("HOME", "~")).expanduser()
    os.environ.setdefault("UV_CACHE_DIR", os.fspath(real / ".cache" / "uv"))
    (home / "gitconfig").write_text(GITCONFIG, encoding="utf-8")
    os.environ.update(
        HOME=os.fspath(home),
        GIT_CONFIG_GLOBAL=os.fspath(home / "gitconfig"),
        GIT_CONFIG_NOSYSTEM="1",
        # Matrices are small here: more threads only get in each other's way.
        OMP_NUM_THREADS="1",
        OPENBLAS_NUM_THREADS="1",
    )
    for name in [name for name in os.environ if name.startswith(("XDG_", "MLIPCLUSTER_")) and "_TEST_" not in name]:
        del os.environ[name]
    return home


HOME = _make_home()


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


# --- no silent skips in CI -------------------------------------------------------------------------------------------


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Under CI turn a skip into a failure unless ``tests/skips.toml`` allows it."""
    if not (IN_CI and report.skipped) or hasattr(report, "wasxfail"):
        return
    if any(fnmatch.fnmatchcase(report.nodeid, entry["test"]) for entry in SKIPS):
        return
    why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid}: not run in CI ({why}); provide what it needs or list it in tests/skips.toml"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    report = yield
    _forbid_skip(report)
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Several files at a time: those that take long first, or one is left alone at the end."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


# --- fixtures --------------------------------------------------------------------------------------------------------


@pytest.fixture
def cu():
    """Copper, 4 atoms, a little off its lattice: EMT knows it and its forces are not zero."""
    from ase.build import bulk

    atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
    atoms.rattle(0.05, seed=1)
    return atoms


@pytest.fixture
def emt():
    """Specification of the EMT calculator."""
    from mlipcluster.calculators.registry import resolve

    return resolve("emt")


@pytest.fixture
def run_folder(tmp_path):
    """Path of a run folder that does not exist yet."""
    return tmp_path / "run"


@pytest.fixture(scope="session")
def chgnet_python():
    """Interpreter of an environment that has CHGNet."""
    path = os.environ.get("MLIPCLUSTER_TEST_CHGNET_PYTHON", "")
    if not Path(path).is_file():
        pytest.skip(
            "needs CHGNet: `bash scripts/test.sh` builds an environment for it, "
            "or set MLIPCLUSTER_TEST_CHGNET_PYTHON to a Python that has it"
        )
    return path


@pytest.fixture(scope="session")
def examples():
    """The folder ``examples/structures``."""
    return TESTS.parent / "examples" / "structures"


# --- a root of environments ------------------------------------------------------------------------------------------


@pytest.fixture
def make_root(tmp_path):
    """Make a root of environments that count as built: ``make_root(emt_env=text, …) -> Store``.

    Their interpreter is that of a virtual environment without packages of its own, which sees those of this one.
    """
    from mlipcluster.store.layout import make_root
    from mlipcluster.store.store import Store

    def make(folder: str = "the root", **texts: str) -> Store:
        layout, _ = make_root(tmp_path / folder)
        store = Store(layout.root)
        for name, text in texts.items():
            (tmp_path / f"{name}.py").write_text(HEAD + text, encoding="utf-8")
            store.register(tmp_path / f"{name}.py")
            _build_by_hand(store, name)
        return store

    return make


@pytest.fixture
def build_by_hand():
    """``build_by_hand(store, name, unique)``: another build of an environment, as `make_root` makes them."""
    return _build_by_hand


HEAD = '# /// script\n# requires-python = ">=3.10"\n# dependencies = ["ase"]\n# ///\n'


def _build_by_hand(store, name: str, unique: str = "a"):
    """What a build would leave, without a build: the environment *name* of a root, switched in."""
    import hashlib
    import json
    import sysconfig

    from mlipcluster.store.store import BUILD_FILE, SCHEMA

    source = store.source(name)
    folder = store.layout.parts / f"{name}-{unique}"
    packages = folder / "env" / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "here.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    (folder / "env" / "bin").mkdir()
    base = Path(os.path.realpath(sys.executable))
    (folder / "env" / "bin" / "python").symlink_to(base)
    (folder / "env" / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    (folder / f"{source.module}.py").write_text(source.script)
    facts = {"schema": SCHEMA, "name": name, "source": asdict(source), "manager": "uv"}
    (folder / BUILD_FILE).write_text(json.dumps({**facts, "interpreter": "env/bin/python"}))
    digest = hashlib.sha256((name + source.text).encode()).hexdigest()
    store.layout.link(digest).unlink(missing_ok=True)
    store.layout.link(digest).symlink_to(folder.relative_to(store.layout.builds))
    build = store.build(digest)
    store.switch(build)
    return build


@pytest.fixture(scope="session")
def uv():
    """The uv program."""
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        pytest.skip("uv is not installed")
    return found


@pytest.fixture(scope="session")
def other_python():
    """A Python of another minor version, and the variables with which it finds this environment's Dask."""
    import subprocess
    import sysconfig

    named = os.environ.get("MLIPCLUSTER_TEST_OTHER_PYTHON", "")
    env = {"PYTHONPATH": sysconfig.get_paths()["purelib"]}
    code = "import sys, distributed; print('%d.%d' % sys.version_info[:2])"
    for python in filter(None, [named, *(shutil.which(f"python3.{minor}") for minor in range(10, 20))]):
        asked = [python, "-c", code]
        done = subprocess.run(asked, capture_output=True, text=True, env={**os.environ, **env}, check=False)
        if done.returncode == 0 and done.stdout.strip() != f"{sys.version_info[0]}.{sys.version_info[1]}":
            return python, env
    pytest.skip("needs a second Python >= 3.10: install one, or name it in MLIPCLUSTER_TEST_OTHER_PYTHON")


# --- workers ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def client(tmp_path_factory):
    """A client of two Dask workers on this machine, for all tests that leave them alive."""
    from distributed import Client

    from mlipcluster.deploy.local import local_cluster

    log = tmp_path_factory.mktemp("workers") / "workers.log"
    with local_cluster(2, log=log) as cluster, Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture
def run(client, tmp_path, monkeypatch):
    """Run protocols on the session's workers: ``run(tasks, *protocols, **options_of_both) -> Results``.

    The processes that run protocols stay warm from test to test, which runs would otherwise see to at both ends.
    """
    import warnings

    from mlipcluster import MLIPCluster

    for ending in ("abandon", "cool"):
        monkeypatch.setattr(f"mlipcluster.workers.{ending}", lambda *run: None)

    def run(tasks, *protocols, **options):
        told = {k: options.pop(k) for k in ("retries", "resources", "priorities", "clients_indices") if k in options}
        defaults = {"output_path": tmp_path / "run", "seed": 7, "progress": False, "client": client}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*uncommitted changes", category=UserWarning)
            return MLIPCluster(tasks, **{**defaults, **options}).distribute(*protocols, **told)

    return run


# --- wheels, and uv without a network --------------------------------------------------------------------------------


def _wheel(folder: Path, name: str, version: str, files: dict[str, str], requires: tuple[str, ...] = ()) -> Path:
    import zipfile

    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    files = {
        **files,
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)
        wheel.writestr(f"{info}/RECORD", "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD")))
    return path


@pytest.fixture
def make_wheel():
    """``make_wheel(folder, name, version, files, requires) -> Path``, a wheel of those files."""
    return _wheel


@pytest.fixture
def wheels(tmp_path, tmp_path_factory, monkeypatch):
    """A folder of wheels, all that uv can install from: a stand-in for ``ase``, ``whats_here``, ``tiny``."""
    import sysconfig

    folder = tmp_path / "wheels"
    folder.mkdir()
    _wheel(folder, "ase", "3.99.0", {"ase.py": "__version__ = '3.99.0'\n", "numpy.py": "__version__ = '9'\n"})
    _wheel(folder, "whats_here", "1.0", {"here.pth": sysconfig.get_paths()["purelib"] + "\n"})  # real ASE and NumPy
    _wheel(folder, "tiny", "1.0", {"tiny.py": "version = 1\n"}, ("lonely",))
    _wheel(folder, "lonely", "1.0", {"lonely.py": ""})
    (tmp_path / "no index").mkdir()
    monkeypatch.setenv("UV_DEFAULT_INDEX", (tmp_path / "no index").as_uri())
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "uv-cache"))
    return folder


@pytest.fixture
def write_source(tmp_path):
    """``write_source(name, *dependencies, more="", body=…) -> Path``, the source file of an environment."""

    def write(name: str, *dependencies: str, more: str = "", body: str = EMT_SETUP) -> Path:
        listed = ", ".join(f'"{dependency}"' for dependency in dependencies)
        block = f'requires-python = ">=3.9"\ndependencies = [{listed}]\n{more}'
        path = tmp_path / f"{name}.py"
        lines = "".join(f"# {line}".rstrip() + "\n" for line in block.splitlines())
        path.write_text(f"# /// script\n{lines}# ///\n{body}", encoding="utf-8")
        return path

    return write


EMT_SETUP = """
def setup(model, device="cpu"):
    from ase.calculators.emt import EMT

    return EMT()
"""


# --- records ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def make_environment_json():
    """An environment as records hold it: ``make_environment_json(packages={"numpy": "2.4.6"}, **fields)``."""
    import sysconfig

    from mlipcluster.environments.environment import Environment, Package

    def make(packages=None, **fields):
        listed = [
            Package(name, *(version if isinstance(version, tuple) else (version,)))
            for name, version in (packages or {"six": "1.17.0"}).items()
        ]
        usual = {
            "manager": "uv",
            "prefix": "/home/ada/env",
            "python": ".".join(map(str, sys.version_info[:3])),
            "platform": sysconfig.get_platform(),
            "lock": "".join(f"{package.name}=={package.version}\n" for package in listed),
        }
        return Environment(**{**usual, **fields}, packages=tuple(listed)).to_json()

    return make


@pytest.fixture(scope="session")
def make_sealed(make_environment_json):
    """A sealed record: ``make_sealed(environment=…, calculators={"name": environment}, git={…}, name=…)``."""
    from mlipcluster.records.record import seal

    def make(environment=None, calculators=None, git=None, name="Cu4-0123"):
        measured = dict(environment or make_environment_json())
        lock, toml = measured.pop("lock"), measured.pop("toml")
        return seal(
            {
                "schema": 1,
                "instance": {
                    "sha1": (git or {}).get("sha1", ""),
                    "environment": lock,
                    "environment_digest": measured["digest"],
                },
                "metadata": {
                    "output_name": name,
                    "toml": toml,
                    "toml_format": measured["toml_format"],
                    "environment_manager": measured["manager"],
                    "environment": measured,
                    "calculators": {
                        key: {"environment": said, "environment_digest": said.get("digest", "")}
                        for key, said in (calculators or {}).items()
                    },
                    "git": git,
                },
                "scores": {"energy": float("nan")},
            }
        )

    return make


@pytest.fixture
def write_record(tmp_path):
    """Write a record as a JSON output has it; the file."""
    import json

    def write(record, path=None):
        path = path or tmp_path / "output.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"1": {"numbers": [29]}, "ids": [1], "nextid": 2, "mlipcluster": record}))
        return path

    return write
