from __future__ import annotations

import json

import pytest

from mlipcluster.errors import RunFolderError
from mlipcluster.outputs.extxyz import EXTXYZ
from mlipcluster.outputs.output import problems, read_output
from mlipcluster.outputs.parent import forget_record, parent_of
from mlipcluster.outputs.rendering import Renderer
from mlipcluster.records import canonical
from mlipcluster.records.record import check, seal


def record_in(data):
    """The record's text in the bytes of an extended XYZ file."""
    _, embedded, _ = EXTXYZ.split(data.decode())
    return EXTXYZ.unescape(embedded)


def test_the_text_in_the_file_is_the_canonical_text_of_the_sealed_record(atoms, make):
    text = record_in(Renderer().render(atoms, make(atoms)))
    record = json.loads(text)
    assert text == canonical.canonical(record)
    assert canonical.canonical(seal(record)) == text
    assert check(record) is not None


def test_pieces_that_are_kept_give_the_same_bytes(atoms, make):
    record = make(atoms)
    kept = Renderer(constants=[record["metadata"]["protocols"], record["instance"]["calculators"]])
    first = kept.render(atoms, record)
    assert kept.render(atoms, record) == first == Renderer().render(atoms, record)


def test_long_texts_and_constants_are_written_out_once(atoms, make, monkeypatch):
    record = make(atoms)
    renderer = Renderer(constants=[record["metadata"]["protocols"]])
    renderer.render(atoms, record)
    seen = []
    monkeypatch.setattr("mlipcluster.outputs.rendering.canonical", lambda v: seen.append(v) or canonical.canonical(v))
    renderer.render(atoms, record)
    assert record["instance"]["environment"] not in seen
    assert record["metadata"]["protocols"] not in seen
    assert record["metadata"]["times"] in seen


def test_an_equal_object_that_is_not_the_constant_is_written_anew(atoms, make):
    record = make(atoms)
    renderer = Renderer(constants=[record["metadata"]["protocols"]])
    renderer.render(atoms, record)
    record["metadata"]["protocols"] = [{"text": "other"}]
    assert json.loads(record_in(renderer.render(atoms, record)))["metadata"]["protocols"] == [{"text": "other"}]


def test_not_too_many_texts_are_kept(atoms, make):
    record = make(atoms)
    renderer = Renderer()
    for number in range(200):
        record["metadata"]["toml"] = f"{number}" * 1000
        renderer.render(atoms, record)
    assert len(renderer._texts) <= 64


def test_a_frame_made_elsewhere_gives_the_same_bytes(atoms, make):
    renderer = Renderer()
    assert renderer.render(renderer.format.frame(atoms), make(atoms)) == renderer.render(atoms, make(atoms))


def test_what_an_earlier_seal_said_is_replaced(tmp_path, atoms, make):
    record = {**seal(make(atoms)), "digest": "wrong"}
    record["metadata"] = {**record["metadata"], "not_in_text": ["lies"], "text_sha256": "lies"}
    path = Renderer().write(tmp_path, atoms, record)
    assert problems(path) == []
    assert "not_in_text" not in read_output(path).record["metadata"]


def test_durable_files_are_flushed_to_disk(tmp_path, atoms, make, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fsync", synced.append)
    Renderer().write(tmp_path, atoms, make(atoms))
    assert synced == []
    Renderer(durable=True).write(tmp_path, atoms, make(atoms))
    assert synced


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, atoms, make, monkeypatch):
    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunFolderError, match=r"No space left on device; make room"):
        Renderer(durable=True).write(tmp_path, atoms, make(atoms))
    assert list(tmp_path.iterdir()) == []


def test_keys_that_are_numbers_become_text(atoms, make):
    record = make(atoms)
    record["scores"] = {10: 1.0, 9: 2.0}
    found = check(json.loads(record_in(Renderer().render(atoms, record))))
    assert found["scores"] == {"10": 1.0, "9": 2.0}


def test_of_an_earlier_record_only_name_and_digest_are_kept(atoms):
    atoms.info["mlipcluster"] = {
        "digest": "d",
        "metadata": {"output_name": "n"},
        "instance": {"environment": "x" * 9999},
    }
    plain = forget_record(atoms)
    assert plain.info["mlipcluster"] == {"output_name": "n", "digest": "d"} == parent_of(plain)
    assert plain.calc is atoms.calc
    assert forget_record(plain).info == plain.info


@pytest.mark.parametrize("value", ["text", 3, None, [1]])
def test_what_is_no_record_is_no_parent(atoms, value):
    atoms.info["mlipcluster"] = value
    assert parent_of(atoms) is None
    assert "mlipcluster" not in forget_record(atoms).info


def test_without_a_record_nothing_is_copied(atoms):
    assert forget_record(atoms) is atoms
