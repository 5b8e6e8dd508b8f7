"""What every test gets: a home of its own, no silent skips in CI, a few structures and paths."""

from __future__ import annotations

import fnmatch
import os
import shutil
import sys
import tempfile
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


# --- workers ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def client(tmp_path_factory):
    """A client of two Dask workers on this machine, for all tests that leave them alive."""
    from distributed import Client

    from mlipcluster.deploy.local import Local

    log = tmp_path_factory.mktemp("workers") / "workers.log"
    with Local(2, log=log).start() as cluster, Client(cluster, set_as_default=False) as client:
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
