from __future__ import annotations

import math

import pytest

from mlipcluster.errors import RecordError
from mlipcluster.outputs.failure import read_failure, write_failure
from mlipcluster.records.packing import decode, encode

PAYLOAD = {
    "error": {"type": "ValueError", "message": "é\n\ud800", "traceback": "Traceback …"},
    "printed": "…",
    "attempts": 2,
    "record": {"scores": {"x": float("nan")}},
}


def test_everything_comes_back(tmp_path, rich):
    payload = {**PAYLOAD, "input": {"structure": encode(rich), "kwargs": encode({"a": (1, 2)})}}
    path = write_failure(tmp_path / "failures", "Cu4-01", payload)
    assert path == tmp_path / "failures" / "Cu4-01.json"
    found = read_failure(path)
    assert found["name"] == "Cu4-01"
    assert found["error"] == PAYLOAD["error"]
    assert math.isnan(found["record"]["scores"]["x"])
    assert decode(found["input"]["kwargs"]) == {"a": (1, 2)}
    assert decode(found["input"]["structure"]).get_chemical_formula() == rich.get_chemical_formula()


def test_values_that_json_cannot_hold_are_packed(tmp_path, rich):
    found = read_failure(write_failure(tmp_path, "x", {"input": {"structure": rich, "size": 1j}}))
    assert (decode(found["input"]["structure"]).positions == rich.positions).all()
    assert decode(found["input"]["size"]) == 1j


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "", "new\nline", "x" * 500, "é"])
def test_no_name_leaves_the_folder(tmp_path, name):
    path = write_failure(tmp_path / "failures", name, PAYLOAD)
    assert path.parent == tmp_path / "failures"
    assert path.is_file()
    assert read_failure(path)["name"] == name


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff"])
def test_what_is_no_failure_is_told(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"x\.json"):
        read_failure(path)


def test_no_file_is_told(tmp_path):
    with pytest.raises(RecordError, match="run the task again"):
        read_failure(tmp_path / "none.json")
