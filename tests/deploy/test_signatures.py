from __future__ import annotations

import inspect
import sys

import pytest
from dask_kubernetes.operator import KubeCluster
from distributed.deploy.cluster import Cluster

from mlipcluster.deploy.clouds import Kubernetes
from mlipcluster.deploy.signatures import NEVER, accepted

LIBRARY = """
from distributed import SpecCluster

class Above(SpecCluster):
    def __init__(self, size=1, *, security=True, **kwargs):
        ...

class Below(Above):
    pi = 3
    def __init__(self, spot: bool = False, asynchronous=False, **kwargs):
        ...

class Closed(Above):
    def __init__(self, spot=False):
        ...

class Bare(Above):
    ...
"""


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A library that cannot be imported."""
    folder = tmp_path / "a_cloud_library"
    folder.mkdir()
    (folder / "__init__.py").write_text("import no_such_provider\n")
    (folder / "vm.py").write_text("import no_such_provider\n" + LIBRARY)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "a_cloud_library"


def test_what_a_class_takes_is_read_without_importing_it(library):
    found = accepted(library, ["vm.py:Below", "vm.py:Above"])
    assert {"spot", "size", "silence_logs", "shutdown_on_close"} <= found
    assert not found & NEVER
    assert library not in sys.modules


def test_a_class_without_more_arguments_hands_none_on(library):
    assert accepted(library, ["vm.py:Closed", "vm.py:Above"]) == {"spot"}


def test_a_library_that_is_not_there():
    assert accepted("no_such_library", ["vm.py:Below"]) is None


@pytest.mark.parametrize("name", ["Nobody", "Bare"])
def test_a_class_that_the_library_does_not_have_any_more_is_no_silence(library, name):
    with pytest.raises(LookupError, match=f"has no class {name}"):
        accepted(library, [f"vm.py:{name}"])


def test_the_same_is_read_as_python_itself_tells():
    real = set(inspect.signature(KubeCluster).parameters) | set(inspect.signature(Cluster).parameters)
    assert accepted(Kubernetes.package, Kubernetes.classes) == real - NEVER
