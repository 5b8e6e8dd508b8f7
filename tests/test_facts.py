from __future__ import annotations

import hashlib
import json
import site
import sys
from dataclasses import asdict, replace

import pytest

from mlipcluster.calculators.provenance import Provenance, Weight
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.calls import Introduction, Job
from mlipcluster.environments.measure import measure
from mlipcluster.execute import Executor
from mlipcluster.facts import CalculatorFacts, facts_from, facts_here, remember, remember_late

SPEC = CalculatorSpec("ase.calculators.emt:EMT")


def weight(path):
    data = path.read_bytes()
    return Weight(str(path), len(data), hashlib.sha256(data).hexdigest())


def introduction(*weights, scratch=()):
    here = measure()
    provenance = Provenance("3.11", "python", "prefix", weights=tuple(weights), scratch=tuple(scratch))
    said = {"provenance": json.loads(json.dumps(asdict(provenance))), "environment": {"digest": here.digest}}
    return Introduction("name", {}, {"digest": here.digest}, {"": said})


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "calculators.json"


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights")
    return path


def ask(cache, *weights, spec=SPEC):
    told = introduction(*weights)
    remember(told, {"": spec}, cache)
    return facts_from(told, {"": spec}, cache)


def test_what_was_asked_once_need_not_be_asked_again(cache, model):
    assert facts_here({"": SPEC}, cache) is None
    assert facts_here({"": SPEC}, cache) is None
    told = ask(cache, weight(model))
    assert facts_here({"": SPEC}, cache) == told


@pytest.mark.parametrize("change", ["weights", "gone", "spec", "interpreter"])
def test_it_is_asked_again_when_something_changed(cache, model, change):
    ask(cache, weight(model))
    spec = SPEC
    if change == "weights":
        model.write_bytes(b"weightz")
    if change == "gone":
        model.unlink()
    if change == "spec":
        spec = SPEC.replace(kwargs={"asap_cutoff": True})
    if change == "interpreter":
        spec = SPEC.replace(python="/another/python")
    assert facts_here({"": spec}, cache) is None


def test_one_byte_of_the_weights_makes_another_calculator(cache, model):
    before = ask(cache, weight(model))
    model.write_bytes(b"weightz")
    after = ask(cache, weight(model))
    assert before.calculators != after.calculators
    assert before.environment == after.environment


def test_weights_opened_late_count_when_they_change(cache, model):
    asked = ask(cache)
    remember_late(introduction(weight(model)), cache)
    assert facts_here({"": SPEC}, cache) == asked  # as in the run that met them
    model.write_bytes(b"weightz")
    changed = facts_here({"": SPEC}, cache)
    assert changed.calculators != asked.calculators
    model.write_bytes(b"weights")
    assert facts_here({"": SPEC}, cache) == asked


@pytest.mark.parametrize("early", [False, True])
def test_a_file_that_turned_out_to_be_scratch_counts_no_more(cache, model, early):
    asked = ask(cache, *([weight(model)] if early else []))
    remember_late(introduction(weight(model)), cache)
    model.write_bytes(b"another energy")
    remember_late(introduction(scratch=[str(model)]), cache)
    again = facts_here({"": SPEC}, cache)
    model.write_bytes(b"a third energy")
    assert facts_here({"": SPEC}, cache) == again
    assert (again == asked) == (not early)
    assert ask(cache, weight(model)) == again


def test_a_file_written_while_the_run_went_on_is_not_remembered(cache, model):
    asked = ask(cache)
    remember_late(introduction(weight(model)), cache, since=model.stat().st_mtime - 1)
    model.write_bytes(b"what an external program calculated next")
    assert facts_here({"": SPEC}, cache) == asked
    remember_late(introduction(weight(model)), cache, since=model.stat().st_mtime + 1)
    model.write_bytes(b"changed since")
    assert facts_here({"": SPEC}, cache) != asked


def test_a_late_file_that_could_not_be_hashed_is_not_remembered(cache, model):
    asked = ask(cache)
    remember_late(introduction(replace(weight(model), sha256="")), cache)
    assert facts_here({"": SPEC}, cache) == asked


@pytest.mark.parametrize("text", ["", "{", "[]", "7"])
def test_a_damaged_cache_is_as_good_as_none(cache, text):
    cache.write_text(text)
    assert facts_here({"": SPEC}, cache) is None
    ask(cache)
    assert facts_here({"": SPEC}, cache) is not None


def test_without_calculators_nothing_need_be_asked(cache):
    facts = facts_here({}, cache)
    assert facts == CalculatorFacts(measure().digest, {})


def test_a_call_depends_on_what_it_asks_for_alone():
    facts = CalculatorFacts("e", {"a": "1", "b": "2"})
    assert facts.for_call(frozenset(), "a") == ""
    assert facts.for_call(frozenset({"rng"}), "a") == ""
    assert facts.for_call(frozenset({"calc"}), "a") == "1"
    assert facts.for_call(frozenset({"calc"}), "b") == "2"
    both = facts.for_call(frozenset({"calculators"}), "a")
    assert both == facts.for_call(frozenset({"calculators", "calc"}), "a")
    assert both != CalculatorFacts("e", {"a": "1", "b": "3"}).for_call(frozenset({"calculators"}), "a")


class Pool:
    """Knows what every calculator says of itself."""

    def provenance(self, spec):
        return Provenance("3.11", "python", "prefix")


def test_a_worker_measures_a_calculators_environment_as_the_driver_does(cache, tmp_path, monkeypatch):
    """Calculators run without the user's own packages, also in the interpreter that has them elsewhere."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(site, "ENABLE_USER_SITE", True)
    version = ".".join(map(str, sys.version_info[:2]))
    packages = tmp_path / ".local" / "lib" / f"python{version}" / "site-packages" / "mine-1.0.dist-info"
    packages.mkdir(parents=True)
    (packages / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    job = Job("run", b"", "digest", {"": SPEC}, 7, last=False)
    told = Executor(Pool()).introduce(job, start=True)
    assert any(package["name"] == "mine" for package in told.environment["packages"])
    remember(told, {"": SPEC}, cache)
    assert facts_here({"": SPEC}, cache) == facts_from(told, {"": SPEC}, cache)
