from __future__ import annotations

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given

from mlipcluster.environments.environment import Environment, Package, difference
from mlipcluster.errors import RecordError

_TEXT = st.text(max_size=8)
_PACKAGES = st.lists(st.builds(Package, _TEXT, _TEXT, _TEXT, _TEXT, _TEXT), max_size=5).map(lambda p: tuple(sorted(p)))
_FILES = st.dictionaries(_TEXT, _TEXT, max_size=3).map(lambda files: tuple(sorted(files.items())))
_ENVIRONMENTS = st.builds(
    Environment, _TEXT, _TEXT, _TEXT, _TEXT, _PACKAGES, _TEXT, _TEXT, _TEXT, _TEXT, st.tuples(_TEXT), _FILES
)


def _environment(*packages, **more):
    return Environment(
        **{"manager": "uv", "prefix": "/a", "python": "3.11.7", "platform": "linux-x86_64"} | more,
        packages=tuple(Package(*package) for package in packages),
    )


@given(_ENVIRONMENTS)
def test_json_round_trip(environment):
    back = Environment.from_json(json.loads(json.dumps(environment.to_json())))
    assert back.digest == environment.digest
    assert back == environment


@given(_ENVIRONMENTS, _ENVIRONMENTS)
def test_a_difference_has_lines_exactly_where_digests_differ(one, other):
    assert bool(difference(one, other)) == (one.digest != other.digest)
    assert difference(one, one) == []


def test_place_manager_and_lock_are_not_in_the_digest():
    one = _environment(("a", "1"), ("b", "2"))
    other = _environment(("b", "2"), ("a", "1"), prefix="/b", manager="pip", lock="x", drift=("y",))
    assert one.digest == other.digest


def test_readable_lines():
    recorded = _environment(
        ("numpy", "2.4.6"), ("torch", "2.4"), ("same", "1"), ("git", "1", "git+u@a"), ("c", "1", "conda", "h0")
    )
    here = _environment(
        ("numpy", "2.4.5"),
        ("blosc", "1.11"),
        ("same", "1"),
        ("git", "1", "git+u@b"),
        ("c", "1", "conda", "h1"),
        python="3.11.9",
    )
    assert difference(recorded, here) == [
        "python 3.11.7 -> 3.11.9",
        "only here: blosc 1.11",
        "c 1: h0 -> h1",
        "git 1: git+u@a -> git+u@b",
        "numpy 2.4.6 -> 2.4.5",
        "only recorded: torch 2.4",
    ]


def test_files_are_named_as_managers_name_them_or_refused():
    files = (("explicit.txt", "@EXPLICIT\n"), ("requirements.txt", ""))
    one = _environment(lock="a", lock_name="environment.yml", toml_format="pixi.toml", more_files=files)
    assert one.files() == {"environment.yml": "a", "explicit.txt": "@EXPLICIT\n"}
    assert one.digest == _environment().digest
    for name in ("../pixi.toml", "/etc/passwd", "pixi.toml\n", "run.json", "\ud800"):
        for damaged in ({"lock_name": name}, {"toml": "b", "toml_format": name}, {"more_files": ((name, "x"),)}):
            with pytest.raises(RecordError, match=r"is no file of an environment; known: uv\.lock"):
                _environment(**{"lock": "a", **damaged}).files()


@pytest.mark.parametrize("packed", [{}, [], None, {"packages": 3}, {"packages": [3]}, {"packages": [{"name": "x"}]}])
def test_what_is_no_environment_is_a_record_error(packed):
    with pytest.raises(RecordError, match="not an environment"):
        Environment.from_json(packed)
