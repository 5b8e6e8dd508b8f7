"""Records are found in every file that a run leaves, and in no other."""

from __future__ import annotations

import json
import os
import pickle

import pytest

from mlipcluster.errors import InputError, RecordError
from mlipcluster.recreation import found

NAME = "Cu4-0123"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory, make_sealed):
    """One output of each format and compression, as a run writes them."""
    import numpy as np
    from ase import Atoms

    from mlipcluster.outputs.output import write_output
    from mlipcluster.records.packing import encode

    folder = tmp_path_factory.mktemp("outputs 'q' \n")
    atoms = Atoms("Cu", positions=np.zeros((1, 3)), info={"note": 'a "quoted\\" text'})
    record = make_sealed()
    record["metadata"]["result"] = {"atoms": encode(atoms), "digest": ""}
    kinds = [(form, compression) for form in ("extxyz", "json") for compression in ("", "gz", "bz2", "xz")]
    return {
        kind: write_output(folder / "-".join(kind), atoms, record, format=kind[0], compression=kind[1])
        for kind in kinds
    }


def test_every_format_and_compression(outputs):
    records = [found.in_file(path) for path in outputs.values()]
    assert len(records) == 8
    for record in records:
        assert record["instance"]["environment"] == "six==1.17.0\n"
        assert record["metadata"]["output_name"] == NAME


def test_formats_of_the_floor_above_are_all_known(outputs):
    from mlipcluster.outputs.compression import COMPRESSIONS
    from mlipcluster.outputs.formats import FORMATS

    assert set(outputs) == {(form, compression) for form in FORMATS for compression in COMPRESSIONS}


def test_a_failure(tmp_path, make_sealed):
    from mlipcluster.outputs.failure import write_failure

    path = write_failure(tmp_path, NAME, {"record": make_sealed()})
    assert found.in_file(path)["instance"]["environment"]


def test_an_environment_alone(tmp_path, make_environment_json):
    path = tmp_path / "environment.json"
    path.write_text(json.dumps(make_environment_json(), indent=1))
    assert found.in_file(path)["packages"]


def test_a_record_alone(tmp_path, make_sealed):
    """As ``mlipcluster show --json`` prints it."""
    path = tmp_path / "record.json"
    path.write_text(json.dumps(make_sealed(), indent=2))
    assert found.in_file(path)["metadata"]["output_name"] == NAME


def ledger(folder, *lines):
    path = folder / "ledger.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def line(name=NAME, status="output", **more):
    return {"status": status, "name": name, "slot": "a/0//0", **more}


def test_a_ledger_names_the_file(tmp_path, make_sealed, write_record):
    write_record(make_sealed(), tmp_path / "outputs" / "0000" / "a.json")
    path = ledger(tmp_path, line("other", file="x"), line(file="outputs/0000/a.json"))
    assert found.in_scorefile(path, NAME)["instance"]
    assert found.in_scorefile(tmp_path, NAME)["instance"]  # the run's folder


def test_the_last_line_of_a_name_holds_and_another_format_will_do(tmp_path, make_sealed, write_record):
    write_record(make_sealed(), tmp_path / "b.json")
    path = ledger(tmp_path, line(file="old.json"), line(file="gone.extxyz", more_files={"b.json": 3}))
    assert found.in_scorefile(path, NAME)["instance"]


def test_a_failed_line_names_the_failure(tmp_path, make_sealed):
    from mlipcluster.outputs.failure import write_failure

    write_failure(tmp_path / "failures", NAME, {"record": make_sealed()})
    path = ledger(tmp_path, line(status="failed", file=None, error={"file": f"failures/{NAME}.json"}))
    assert found.in_scorefile(path, NAME)["instance"]


def test_a_record_in_the_line(tmp_path, make_sealed):
    assert found.in_scorefile(ledger(tmp_path, line(record=make_sealed())), NAME)["instance"]


def test_a_compressed_ledger(tmp_path, make_sealed):
    import gzip

    path = ledger(tmp_path, line(record=make_sealed()))
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert found.in_scorefile(path, NAME)["instance"]


@pytest.mark.parametrize("name", ["../secret.json", "/etc/passwd", "link/secret.json", "a\0b", "..", 7, ["x"]])
def test_a_line_cannot_name_a_file_outside(tmp_path, name, make_sealed, write_record):
    run = tmp_path / "run"
    run.mkdir()
    write_record(make_sealed(), tmp_path / "secret.json")
    os.symlink(tmp_path, run / "link")
    with pytest.raises(RecordError, match="no file in its folder"):
        found.in_scorefile(ledger(run, line(file=name)), NAME)


def test_a_name_that_is_not_there_is_told_with_one_that_is_like_it(tmp_path):
    path = ledger(tmp_path, line("Al4-77"), line("Cu4-0124"))
    with pytest.raises(InputError, match=r"no output 'Cu4-0123'; it has for example 'Cu4-0124'"):
        found.in_scorefile(path, NAME)
    path.write_text("")
    with pytest.raises(InputError, match="no ledger, or an empty one"):
        found.in_scorefile(path, NAME)


def test_an_output_whose_files_are_gone(tmp_path):
    with pytest.raises(InputError, match=r"gone\.json.*environments/<digest>"):
        found.in_scorefile(ledger(tmp_path, line(file="gone.json")), NAME)
    with pytest.raises(RecordError, match="neither a record"):
        found.in_scorefile(ledger(tmp_path, line(file=None)), NAME)


def test_a_damaged_line_is_named_and_a_torn_one_left_out(tmp_path, make_sealed):
    path = ledger(tmp_path, line(record=make_sealed()))
    whole = path.read_text()
    path.write_text(whole + whole[:60])
    assert found.in_scorefile(path, NAME)["instance"]
    path.write_text(whole + whole[:60] + "\n")
    with pytest.raises(RecordError, match="line 2 cannot be read"):
        found.in_scorefile(path, NAME)


@pytest.mark.parametrize("text", ["", "3\n", "hello", "[]", "{}", '{"a": 1}', "1\nLattice=1\nCu 0 0 0\n"])
def test_files_without_a_record(tmp_path, text):
    (tmp_path / "file").write_text(text)
    with pytest.raises(InputError, match="holds no record"):
        found.in_file(tmp_path / "file")


def test_files_that_are_something_else(tmp_path, make_sealed):
    (tmp_path / "image").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InputError, match="is no text"):
        found.in_file(tmp_path / "image")
    for lines in ([line()], [line(), line()]):
        with pytest.raises(InputError, match=r"is a ledger.*--output_name"):
            found.in_file(ledger(tmp_path, *lines))
    (tmp_path / "table").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(InputError, match=r"pickled table.*--pandas-secure"):
        found.in_file(tmp_path / "table")


@pytest.mark.parametrize("text", ['{"a"', "{" + '"a":{' * 200_000, '{"a": ' + "9" * 5000 + ",}"])
def test_broken_json(tmp_path, text):
    (tmp_path / "file").write_text(text)
    with pytest.raises(RecordError, match="cannot be read"):
        found.in_file(tmp_path / "file")


def test_a_broken_record_in_extended_xyz(tmp_path):
    (tmp_path / "file").write_text('1\nProperties=species:S:1 mlipcluster="_JSON {\\"a\\": }"\nCu\n')
    with pytest.raises(RecordError, match=r"record in .* cannot be read"):
        found.in_file(tmp_path / "file")
