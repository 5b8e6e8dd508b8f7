"""Importing mlipcluster changes nothing in the world, and brings little with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import mlipcluster

PACKAGE = Path(mlipcluster.__file__).parent
MODULES = sorted(
    ".".join(("mlipcluster", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
)
HEAVY = ("ase", "dask", "distributed", "git", "matplotlib", "numpy", "pandas", "rich", "torch", "typer")

LOOK = """
import json, logging, os, signal, sys, threading, warnings

def look():
    loggers = [logging.root, *(l for l in logging.root.manager.loggerDict.values() if isinstance(l, logging.Logger))]
    return {
        "signals": {s.name: repr(signal.getsignal(s)) for s in signal.Signals},
        "loggers": {l.name: [l.level, l.disabled, len(l.handlers)] for l in loggers if l.level or l.handlers},
        "warnings": [repr(f) for f in warnings.filters],
        "environment": dict(os.environ),
        "path": list(sys.path),
        "hooks": [repr(h) for h in (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.displayhook)],
        "threads": [t.name for t in threading.enumerate()],
        "folder": os.getcwd(),
        "umask": [os.umask(0o22), os.umask(0o22)][0],
        "recursion": sys.getrecursionlimit(),
        "digits": sys.get_int_max_str_digits(),
    }
"""


@pytest.fixture
def fresh(tmp_path):
    """Run code in a Python of its own, in an empty folder that is its home; return what it prints, as JSON."""

    def run(code):
        done = subprocess.run(
            [sys.executable, "-c", LOOK + textwrap.dedent(code)],
            cwd=tmp_path,
            env={**os.environ, "HOME": os.fspath(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert list(tmp_path.iterdir()) == []
        return json.loads(done.stdout)

    return run


def test_the_package_alone_imports_nothing_heavy_and_changes_nothing(fresh):
    found = fresh(
        """
        before = look()
        import mlipcluster
        print(json.dumps({"before": before, "after": look(), "modules": sorted(sys.modules)}))
        """
    )
    assert found["after"] == found["before"]
    assert not set(HEAVY) & set(found["modules"])


def test_every_module_changes_nothing(fresh):
    """Third parties first, for what they change is theirs; then all of ours."""
    found = fresh(
        f"""
        import ase, ase.io, ase.md.langevinbaoab, ase.optimize, ase.spacegroup, blosc, cloudpickle, dask, distributed
        import git, numpy, rich, typer
        import scipy.linalg, scipy.optimize
        before, changed = look(), {{}}
        import importlib
        for name in {MODULES!r}:
            importlib.import_module(name)
            if (after := look()) != before:
                changed[name] = {{k: [before[k], after[k]] for k in after if after[k] != before[k]}}
                before = after
        print(json.dumps(changed))
        """
    )
    assert found == {}


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("mlipcluster.errors", HEAVY),
        ("mlipcluster.files", HEAVY),
        ("mlipcluster.process", HEAVY),
        ("mlipcluster.calculators.spec", ("dask", "distributed", "pandas", "torch")),
        ("mlipcluster.calculators.socket_calculator", ("dask", "distributed", "pandas", "torch")),
        ("mlipcluster.environments.measure", ("dask", "distributed", "pandas", "torch", "ase")),
        ("mlipcluster.outputs.output", ("dask", "distributed", "pandas", "torch")),
        ("mlipcluster.outputs.results", ("dask", "distributed", "pandas", "torch")),
        ("mlipcluster.protocols", ("dask", "distributed", "pandas", "torch", "rich", "typer")),
        ("mlipcluster.front", ("pandas", "torch", "dask_jobqueue", "IPython", "ipywidgets")),
        ("mlipcluster.cli.app", ("dask", "distributed", "pandas", "torch", "ase")),
    ],
)
def test_a_module_brings_only_what_it_needs(fresh, module, forbidden):
    found = fresh(f"import {module}\nprint(json.dumps(sorted(sys.modules)))")
    assert not set(forbidden) & set(found)


@pytest.mark.parametrize("name", mlipcluster.__all__)
def test_public_names_exist_and_are_documented(name):
    assert getattr(mlipcluster, name).__doc__
    assert name in dir(mlipcluster)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(AttributeError, match=r"no attribute 'MLIPCLuster'.*MLIPCluster"):
        mlipcluster.MLIPCLuster  # noqa: B018
