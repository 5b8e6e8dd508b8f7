from __future__ import annotations

import json
import platform
from dataclasses import replace

import pytest
from distributed.versions import get_versions

from mlipcluster.deploy import handshake
from mlipcluster.deploy.handshake import WIRE, Facts, check, compare, facts_from_dask, facts_here, facts_once, told
from mlipcluster.environments.measure import measure
from mlipcluster.errors import MismatchError

DRIVER = Facts("3.11.4", dict.fromkeys(WIRE, "1.0"), "a" * 64, "login", "/env/bin/python")


def with_version(**versions):
    return replace(DRIVER, packages={**DRIVER.packages, **versions})


def test_this_process_says_what_it_is():
    facts = facts_here()
    assert facts.python == platform.python_version()
    assert all(facts.packages[name] for name in WIRE)
    assert facts.environment == measure(lock=False).digest
    assert facts_here(environment=False).environment == ""


def test_what_is_said_travels_as_json():
    facts = facts_here()
    assert Facts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


def test_the_same_differs_in_nothing():
    assert compare(DRIVER, DRIVER) == ()
    assert check(DRIVER, DRIVER, "worker", same_versions=True, environment="aaaa") == ()


def test_where_it_runs_is_no_difference():
    assert compare(DRIVER, replace(DRIVER, host="node", interpreter="/other/bin/python")) == ()


@pytest.mark.parametrize("python", ["3.12.0", "3.1.4", "3.110.4", "4.11.4"])
def test_another_python_is_refused(python):
    with pytest.raises(MismatchError, match=rf"^tcp://n1 runs Python {python} \(/p\), this process 3\.11\.4") as caught:
        check(DRIVER, replace(DRIVER, python=python, interpreter="/p"), "tcp://n1")
    assert caught.value.differences == (f"python: 3.11.4 -> {python}",)


def test_a_patch_release_is_told():
    (difference,) = check(DRIVER, replace(DRIVER, python="3.11.9"), "worker")
    assert (str(difference), difference.fatal) == ("python: 3.11.4 -> 3.11.9", False)


@pytest.mark.parametrize("name", WIRE)
def test_what_is_missing_is_refused(name):
    with pytest.raises(MismatchError, match=rf"worker has no {name}.*Install it there"):
        check(DRIVER, with_version(**{name: ""}), "worker")


def test_another_version_of_ours_is_refused():
    with pytest.raises(MismatchError, match=r"worker has mlipcluster 0\.9.*this process 1\.0.*the same in both"):
        check(DRIVER, with_version(mlipcluster="0.9"), "worker")


def test_other_versions_are_told_or_refused_as_asked():
    worker = with_version(numpy="0.9", ase="1.1")
    assert told(check(DRIVER, worker, "worker")) == "numpy: 1.0 -> 0.9, ase: 1.0 -> 1.1"
    with pytest.raises(MismatchError, match=r"numpy: 1\.0 -> 0\.9, ase: 1\.0 -> 1\.1\. Install the same") as caught:
        check(DRIVER, worker, "worker", same_versions=True)
    assert caught.value.differences == ("numpy: 1.0 -> 0.9", "ase: 1.0 -> 1.1")


def test_the_worst_is_named_first():
    worker = replace(with_version(numpy="0.9", blosc=""), python="3.11.9")
    assert [one.name for one in compare(DRIVER, worker)] == ["blosc", "python", "numpy"]


def test_another_environment_is_told_also_where_versions_must_be_the_same():
    worker = replace(DRIVER, environment="b" * 64)
    (difference,) = check(DRIVER, worker, "worker", same_versions=True)
    assert str(difference) == f"environment: {'a' * 16} -> {'b' * 16}"


def test_an_environment_that_was_not_measured_differs_from_none():
    assert compare(DRIVER, replace(DRIVER, environment="")) == ()


@pytest.mark.parametrize("wanted", ["b", "", "a" * 65])
def test_an_environment_may_be_asked_for(wanted):
    with pytest.raises(MismatchError, match=r"digest aaaaaaaaaaaaaaaa…, not '.*' as asked"):
        check(DRIVER, DRIVER, "worker", environment=wanted)


def test_a_worker_measures_its_environment_once(monkeypatch):
    first = facts_once()
    monkeypatch.setattr(handshake, "measure", lambda **_: pytest.fail("measured again"))
    assert facts_once() == first


def test_dask_tells_the_same_of_a_worker_that_has_nothing_of_ours():
    assert facts_from_dask(get_versions(WIRE)) == replace(facts_here(environment=False), host="", interpreter="")
    assert facts_from_dask(get_versions()).packages["mlipcluster"] == ""
