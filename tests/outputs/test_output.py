from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re

import numpy as np
import pytest
from ase import Atoms
from ase.io import read
from hypothesis import given
from hypothesis import strategies as st

from mlipcluster.errors import InputError, RecordError
from mlipcluster.outputs.output import problems, read_output, write_output
from mlipcluster.outputs.parent import forget_record
from mlipcluster.records.record import SCHEMA, check, seal

FORMATS = ["extxyz", "json"]
COMPRESSIONS = ["", "gz", "bz2", "xz"]
OPENERS = {"": open, "gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}


@pytest.fixture(params=[(f, c) for f in FORMATS for c in COMPRESSIONS], ids=".".join)
def written(request, tmp_path, atoms, make):
    form, compression = request.param
    return write_output(tmp_path / "a b\n'c\"", atoms, make(atoms), format=form, compression=compression)


def test_the_exact_structure_comes_back(written, atoms):
    output = read_output(written)
    assert output.name == "Cu4-0123"
    assert output.path == written
    assert output.scores["energy"] == -1.5
    assert np.isnan(output.scores["barrier"])
    for name, array in atoms.arrays.items():
        assert output.atoms.arrays[name].tobytes() == array.tobytes()
    assert output.atoms.cell.array.tobytes() == atoms.cell.array.tobytes()
    assert output.atoms.info == {"barrier": 0.25}
    for name, value in atoms.calc.results.items():
        assert np.asarray(output.atoms.calc.results[name]).tobytes() == np.asarray(value).tobytes()
    assert problems(written) == []


def test_plain_ase_reads_energy_forces_and_stress(written, atoms):
    seen = read(written)
    assert seen.get_potential_energy() == atoms.get_potential_energy()
    np.testing.assert_allclose(seen.get_forces(), atoms.get_forces(), atol=1e-8)
    np.testing.assert_allclose(seen.get_stress(), atoms.get_stress(), atol=1e-12)
    assert seen.pbc.all()


def test_plain_ase_reads_the_record(tmp_path, atoms, make):
    seen = read(write_output(tmp_path, atoms, make(atoms)))
    assert seen.info["barrier"] == 0.25
    record = check(seen.info["mlipcluster"])
    assert record["instance"]["author"] == 'Zoë \\ "Q" <z@example.org>'
    assert record["instance"]["environment"].startswith("numpy==2.4.6 \\\n    --hash")


def test_a_person_finds_the_lock_text_in_a_text_editor(tmp_path, atoms, make):
    text = write_output(tmp_path, atoms, make(atoms)).read_text()
    assert "numpy==2.4.6" in text
    assert "--hash=sha256:0123" in text
    assert "__blosc" not in text.partition("environment")[2].partition("environment_digest")[0]


def test_a_bare_python_finds_the_record(tmp_path, atoms, make):
    """The few lines that docs/outputs.md gives to people who have nothing of ours."""
    line = write_output(tmp_path, atoms, make(atoms)).read_text().splitlines()[1]
    quoted = re.search(r' mlipcluster="_JSON (.*)"$', line).group(1)
    record = json.loads(re.sub(r"\\(.)", r"\1", quoted))
    assert record["instance"]["sha1"] == "a" * 40


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_equal_outputs_are_equal_files(tmp_path, atoms, make, form, compression):
    a = write_output(tmp_path / "a", atoms, make(atoms), format=form, compression=compression)
    b = write_output(tmp_path / "b", atoms, make(atoms), format=form, compression=compression)
    assert a.read_bytes() == b.read_bytes()
    assert a.name == f"Cu4-0123.{form}" + (f".{compression}" if compression else "")


def test_the_content_tells_the_format_not_the_name(written, tmp_path, atoms):
    other = tmp_path / "renamed.dat"
    other.write_bytes(written.read_bytes())
    np.testing.assert_array_equal(read_output(other).atoms.positions, atoms.positions)
    assert problems(other) == []


def test_a_record_without_a_packed_structure_gives_the_one_that_is_seen(tmp_path, atoms, make):
    record = make(atoms)
    record["metadata"]["result"] = None
    path = write_output(tmp_path, atoms, record)
    np.testing.assert_allclose(read_output(path).atoms.positions, atoms.positions, atol=1e-8)
    assert problems(path) == []


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\0b", "x" * 300, ".hidden"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path, atoms, make, name):
    with pytest.raises(InputError, match="not a plain file name"):
        write_output(tmp_path, atoms, make(atoms, name))


def test_the_record_handed_in_stays_as_it_was(tmp_path, atoms, make):
    record = make(atoms)
    before = json.dumps(record)
    write_output(tmp_path, atoms, record)
    assert json.dumps(record) == before


def test_a_pickle_is_loaded_only_on_trust(tmp_path, atoms, make):
    atoms.info["odd"] = Odd()
    path = write_output(tmp_path, atoms, make(atoms))
    assert problems(path) == []
    with pytest.raises(RecordError, match="trust=True"):
        read_output(path)
    assert read_output(path, trust=True).atoms.info["odd"] == Odd()
    assert read(path).info["mlipcluster"]["metadata"]["not_in_text"] == ["info 'odd'"]


class Odd:
    def __eq__(self, other):
        return type(self).__name__ == type(other).__name__

    __hash__ = None


# --- records of records ----------------------------------------------------------------------------------------------


def test_a_structure_read_from_an_output_brings_no_records_of_records(tmp_path, atoms, make):
    sizes = []
    digest = None
    for generation in range(4):
        path = write_output(tmp_path / str(generation), atoms, make(atoms, f"Cu4-{generation}"))
        record = read_output(path).record
        parent = record["metadata"].get("parent")
        assert parent == (digest and {"output_name": f"Cu4-{generation - 1}", "digest": digest})
        assert read(path).info["mlipcluster"]["metadata"]["output_name"] == f"Cu4-{generation}"
        digest = record["digest"]
        sizes.append(path.stat().st_size)
        atoms = forget_record(read(path))
    assert max(sizes[1:]) - min(sizes[1:]) < 200


# --- damage ----------------------------------------------------------------------------------------------------------


def rewrite(path, change):
    opener = OPENERS[path.suffix.removeprefix(".") if path.suffix[1:] in OPENERS else ""]
    with opener(path, "rb") as file:
        text = file.read().decode()
    changed = change(text)
    assert changed != text
    data = changed.encode()
    path.write_bytes(data)
    return path


def test_a_changed_position_is_told_of_the_text(tmp_path, atoms, make):
    path = write_output(tmp_path, atoms, make(atoms))
    rewrite(path, lambda text: text[:-10] + ("1" if text[-10] != "1" else "2") + text[-9:])
    assert problems(path) == ["structure text changed after it was written"]
    with pytest.raises(RecordError, match=r"structure text changed.*checks=False"):
        read_output(path)
    np.testing.assert_array_equal(read_output(path, checks=False).atoms.positions, atoms.positions)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("old", "new", "entry"),
    [
        ("a" * 40, "a" * 39 + "b", "instance.sha1"),
        ("numpy==2.4.6", "numpy==2.4.5", "instance.environment"),
        ("2026-01-01", "2026-01-02", "metadata.times"),
        ("pyproject.toml", "pyproject.tomk", "metadata.toml_format"),
        ("-1.5", "-1.6", "scores.energy"),
        ('"seeds":[3]', '"seeds":[4]', "instance.seeds"),
    ],
)
def test_a_changed_entry_of_the_record_is_named(tmp_path, atoms, make, form, old, new, entry):
    path = write_output(tmp_path, atoms, make(atoms), format=form)
    if form == "extxyz":
        old, new = (text.replace('"', '\\"') for text in (old, new))
    rewrite(path, lambda text: text.replace(old, new, 1))
    assert problems(path) == [f"record changed ({entry})"]
    with pytest.raises(RecordError, match=re.escape(entry)):
        read_output(path)


def test_every_error_of_a_file_has_its_name(tmp_path, atoms, make):
    atoms.info["odd"] = Odd()
    path = write_output(tmp_path, atoms, make(atoms))
    with pytest.raises(RecordError, match=r"Cu4-0123\.extxyz: .*trust=True"):
        read_output(path)
    rewrite(path, lambda text: text.replace(r"\"instance\":", r"\"instance\"", 1))
    for checks in (True, False):
        with pytest.raises(RecordError, match=r"Cu4-0123\.extxyz: the record is not readable.*restore the file"):
            read_output(path, checks=checks)


def test_a_structure_that_ase_cannot_read_is_told_of_its_file(tmp_path, atoms, make):
    record = make(atoms)
    record["metadata"]["result"] = None
    path = rewrite(write_output(tmp_path, atoms, record), lambda text: text.replace("\nCu ", "\nXx ", 1))
    with pytest.raises(RecordError, match=r"Cu4-0123\.extxyz: structure text is not readable: KeyError"):
        read_output(path, checks=False)


def test_a_text_and_record_changed_together_do_not_match_the_result(tmp_path, atoms, make):
    """Somebody moves an atom and makes all digests right again."""
    moved = atoms.copy()
    moved.calc = atoms.calc
    record = make(atoms)
    moved.positions[0, 0] += 0.1
    path = write_output(tmp_path, moved, record)
    assert problems(path) == ["result arrays do not match the text (positions)"]


def test_a_recompressed_file_is_intact_but_told(tmp_path, atoms, make):
    path = write_output(tmp_path, atoms, make(atoms), compression="gz")
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())))
    assert problems(path) == ["gz container changed after it was written; its content is what was written"]
    assert read_output(path).name == "Cu4-0123"


def test_a_newer_schema_is_refused(tmp_path, atoms, make):
    record = make(atoms)
    record["schema"] = SCHEMA + 1
    path = write_output(tmp_path, atoms, record)
    assert problems(path) == [
        f"record has schema {SCHEMA + 1}, and this mlipcluster knows up to {SCHEMA}; install a newer mlipcluster"
    ]
    with pytest.raises(RecordError, match="install a newer mlipcluster"):
        read_output(path)


@pytest.mark.parametrize(
    "content", [b"", b"4\n", b"\xff\xfe", b"\0" * 100, b"{}", b"\x1f\x8b", b"not an output\nat all\n"]
)
def test_what_is_no_output_is_not_readable(tmp_path, content):
    path = tmp_path / "x.extxyz"
    path.write_bytes(content)
    assert "not readable" in problems(path)[0]
    with pytest.raises(RecordError, match="not readable"):
        read_output(path)


def test_no_file_is_not_readable(tmp_path):
    assert "not readable" in problems(tmp_path / "none.extxyz")[0]


@pytest.mark.parametrize("suffix", [f"{f}{'.' if c else ''}{c}" for f in FORMATS for c in COMPRESSIONS])
@given(data=st.data())
def test_any_changed_byte_is_told(small_outputs, suffix, data):
    path, raw = small_outputs[suffix]
    position = data.draw(st.integers(0, len(raw) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != raw[position]))
    changed = path.with_name("changed")
    changed.write_bytes(raw[:position] + bytes([value]) + raw[position + 1 :])
    found = problems(changed)
    assert found
    assert all(
        re.search("not readable|structure text changed|record changed|container changed", line) for line in found
    )


@pytest.mark.parametrize("suffix", [f"{f}{'.' if c else ''}{c}" for f in FORMATS for c in COMPRESSIONS])
@given(data=st.data())
def test_a_file_cut_anywhere_is_told(small_outputs, suffix, data):
    path, raw = small_outputs[suffix]
    cut = path.with_name("cut")
    cut.write_bytes(raw[: data.draw(st.integers(0, len(raw) - 1))])
    assert problems(cut)
    with pytest.raises(RecordError):
        read_output(cut)


@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data())
def test_any_added_character_is_told(small_outputs, form, data):
    path, raw = small_outputs[form]
    position = data.draw(st.integers(0, len(raw)))
    added = data.draw(st.sampled_from([b" ", b"\n", b"\r", b"\0", b"0", b"\\", b'"', b"}", b"a"]))
    changed = path.with_name("added")
    changed.write_bytes(raw[:position] + added + raw[position:])
    assert problems(changed)


def test_every_byte_of_a_small_plain_file_is_watched(small_outputs):
    """Not a sample: each byte, changed to what a disk, an editor or a careless hand would make of it."""
    path, raw = small_outputs["extxyz"]
    changed = path.with_name("each")
    silent = []
    for position in range(len(raw)):
        changed.write_bytes(raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :])
        if not problems(changed):
            silent.append(position)
    assert silent == []


def test_sealed_again_by_the_record_s_own_seal_it_is_the_same(small_outputs):
    record = read_output(small_outputs["extxyz"][0]).record
    assert seal(record) == record


def test_empty_structures_are_outputs_too(tmp_path, make):
    path = write_output(tmp_path, Atoms(), make(Atoms()))
    assert problems(path) == []
    assert len(read_output(path).atoms) == 0
    assert len(read(path)) == 0


@pytest.mark.parametrize("form", ["extxyz", "json"])
def test_a_stress_of_three_by_three_is_no_damage(tmp_path, atoms, make, form):
    # CHGNet gives such a stress in float32, and not quite symmetric; ASE's reader gives six components of it.
    stress = np.arange(9, dtype=np.float32).reshape(3, 3) * 1e-3
    atoms.calc.results["stress"] = stress
    path = write_output(tmp_path, atoms, make(atoms), format=form)
    assert problems(path) == []
    assert read_output(path).atoms.calc.results["stress"].tobytes() == stress.tobytes()
