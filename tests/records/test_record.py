from __future__ import annotations

import copy
import json
import math

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from mlipcluster.errors import InputError, RecordError
from mlipcluster.records import record as records
from mlipcluster.records.record import REQUIRED, SCHEMA, build, changes, check, from_text, migrate, seal, to_text


def _record(**scores):
    instance = {
        "tasks": {"structure": None, "kwargs": {"x": 1.5}, "source": "Cu.cif#0"},
        "replicate": 0,
        "seed": 3,
        "seeds": [7],
        "output_ids": [0],
        "protocols": ["mine:relax"],
        "calculators": {},
        "calculator": "",
        "sha1": "",
        "environment": "numpy==2.0\nase==3.25\n",
        "environment_digest": "ab",
    }
    metadata = {
        "output_name": "Cu-1",
        "step": 0,
        "identity": "f" * 32,
        "toml": "",
        "toml_format": "",
        "environment_manager": "uv",
        "environment": {"packages": []},
        "calculators": {},
        "protocols": [{"module": "mine", "name": "relax", "text": "def relax(atoms): ...", "digest": "cd"}],
        "machine": {},
        "result": {"atoms": None, "digest": ""},
        "times": {"seconds": [0.25]},
    }
    return build(instance, metadata, scores or {"energy": -1.0})


def test_a_sealed_record_passes_and_survives_text():
    record = _record(energy=math.nan, high=math.inf, low=-math.inf, tiny=5e-324, minus=-0.0)
    back = from_text(to_text(record))
    assert check(back) == check(record) or math.isnan(back["scores"]["energy"])
    assert back["digest"] == record["digest"]
    assert math.isnan(back["scores"]["energy"])
    assert back["scores"]["high"] == math.inf
    assert math.copysign(1, back["scores"]["minus"]) == -1
    assert "numpy==2.0" in to_text(record)


def test_the_order_of_keys_does_not_matter():
    record = _record()
    assert check(json.loads(json.dumps(record, sort_keys=True)))["digest"] == record["digest"]
    assert seal(dict(reversed(list(record.items()))))["digest"] == record["digest"]


def test_sealing_again_changes_nothing():
    record = _record()
    assert seal(record) == record


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        (("instance", "seeds"), [8], "instance.seeds"),
        (("metadata", "times", "seconds"), [0.2500001], "metadata.times"),
        (("metadata", "note"), "added", "metadata.note"),
        (("scores", "energy"), -1, "scores.energy"),
        (("extra",), 1, "extra"),
    ],
)
def test_what_was_changed_is_named(place, value, named):
    record = copy.deepcopy(dict(_record()))
    *path, last = place
    inner = record
    for key in path:
        inner = inner[key]
    inner[last] = value
    assert changes(record) == [named]
    with pytest.raises(RecordError, match=named.replace(".", r"\.")):
        check(record)


def test_a_changed_digest_is_noticed():
    record = dict(_record())
    record["digest"] = "0" * 64
    with pytest.raises(RecordError, match="changed after it was written"):
        check(record)


@pytest.mark.parametrize("part", REQUIRED)
def test_a_missing_part_is_named(part):
    record = {key: value for key, value in _record().items() if key != part}
    with pytest.raises(RecordError, match=part):
        check(seal(record))


@pytest.mark.parametrize(("part", "name"), [(part, name) for part, names in REQUIRED.items() for name in names])
def test_a_missing_entry_is_named(part, name):
    record = copy.deepcopy(dict(_record()))
    del record[part][name]
    with pytest.raises(RecordError, match=rf"{part}\.{name}"):
        check(seal(record))


@pytest.mark.parametrize("name", ["module", "name", "text", "digest"])
def test_a_protocol_without_a_part_is_named(name):
    record = copy.deepcopy(dict(_record()))
    del record["metadata"]["protocols"][0][name]
    with pytest.raises(RecordError, match=rf"metadata\.protocols\[0\]\.{name}"):
        check(seal(record))


@pytest.mark.parametrize("name", ["structure", "kwargs"])
def test_a_task_without_a_part_is_named(name):
    record = copy.deepcopy(dict(_record()))
    del record["instance"]["tasks"][name]
    with pytest.raises(RecordError, match=rf"instance\.tasks\.{name}"):
        check(seal(record))


def test_a_newer_schema_is_refused_and_says_what_to_do():
    with pytest.raises(RecordError, match="install a newer mlipcluster"):
        check(seal({**_record(), "schema": SCHEMA + 1}))


@pytest.mark.parametrize("schema", [None, "1", 1.0, True, [1]])
def test_a_schema_that_is_no_integer_is_refused(schema):
    with pytest.raises(RecordError, match="schema"):
        check({**_record(), "schema": schema})


def test_an_older_record_is_brought_up(monkeypatch):
    def from_0(record):
        instance = {key: value for key, value in record["instance"].items() if key != "seed_list"}
        return {**record, "instance": {**instance, "seeds": record["instance"]["seed_list"]}}

    old = copy.deepcopy(dict(_record()))
    old["instance"]["seed_list"] = old["instance"].pop("seeds")
    old = seal({**old, "schema": 0})
    with pytest.raises(RecordError, match="take the mlipcluster that wrote it"):
        check(old)
    monkeypatch.setitem(records.MIGRATIONS, 0, from_0)
    new = check(old)
    assert new["schema"] == SCHEMA
    assert new["instance"]["seeds"] == [7]
    assert check(new) == new
    assert migrate(old) == new


def test_an_older_record_that_was_changed_is_not_brought_up(monkeypatch):
    monkeypatch.setitem(records.MIGRATIONS, 0, lambda record: record)
    old = dict(seal({**_record(), "schema": 0}))
    old["scores"] = {"energy": -2.0}
    with pytest.raises(RecordError, match=r"scores\.energy"):
        check(old)


def test_what_is_not_json_cannot_be_sealed_or_written():
    with pytest.raises(InputError, match=r"packing\.encode"):
        seal({**_record(), "scores": {"x": object()}})
    with pytest.raises(InputError, match=r"packing\.encode"):
        to_text({"x": object()})


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"a": 1', "null", "[" * 100_000, b"\xff\xfe", "1" * 5000])
def test_what_is_no_object_is_a_record_error(text):
    with pytest.raises(RecordError):
        from_text(text)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_KEYS = st.sampled_from(["schema", "digest", "digests", "instance", "metadata", "scores"]) | st.text()


@given(_JSON | st.dictionaries(_KEYS, _JSON))
def test_hostile_records_raise_record_errors_only(record):
    with pytest.raises(RecordError):
        check(record)


@given(st.sampled_from(["schema", "digest", "digests", "instance", "metadata", "scores"]), _JSON)
def test_a_record_with_one_part_replaced_never_passes_unnoticed(part, value):
    good = _record()
    record = {**good, part: value}
    if json.dumps(record, sort_keys=True) == json.dumps(good, sort_keys=True):
        return
    with pytest.raises(RecordError):
        check(record)


@settings(max_examples=50)
@given(_JSON, _JSON)
def test_any_json_survives(a, b):
    record = seal({**_record(), "scores": {"a": a}, "metadata": {**_record()["metadata"], "b": b}})
    assert check(from_text(to_text(record)))["digest"] == record["digest"]
