from __future__ import annotations

import inspect
import pickle
import subprocess
import sys

import pytest

from mlipcluster import errors
from mlipcluster.errors import MLIPClusterError

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, MLIPClusterError)]
ROUND_TRIP = """
import distributed, inspect, pickle  # it has tracebacks pickled along, and exceptions by other means than Python's own
from mlipcluster import errors
for name, kind in inspect.getmembers(errors, inspect.isclass):
    for error in (kind("text"), kind(f"{name} is told at length, with ümlauts")):
        try:
            raise error
        except Exception as caught:
            again = pickle.loads(pickle.dumps(caught))
            assert type(again) is kind and str(again) == str(error), name
print("all")
"""


@pytest.mark.parametrize("kind", ALL)
def test_each_travels(kind):
    again = pickle.loads(pickle.dumps(kind("text")))
    assert (type(again), str(again)) == (kind, "text")


def test_each_travels_where_dask_has_been_imported():
    said = subprocess.run([sys.executable, "-c", ROUND_TRIP], capture_output=True, text=True, check=False)
    assert (said.stdout, said.stderr) == ("all\n", "")


@pytest.mark.parametrize("kind", ALL)
def test_each_is_also_the_built_in_error_that_a_caller_expects(kind):
    assert kind is MLIPClusterError or issubclass(kind, (ValueError, RuntimeError, TypeError, TimeoutError))


@pytest.mark.parametrize("kind", ALL)
def test_the_tree_in_the_docstring_is_the_tree(kind):
    assert kind.__name__ in errors.__doc__
