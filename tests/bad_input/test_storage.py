"""Folders, disks and files that fail: an error that names them, and nothing lost."""

from __future__ import annotations

import json
import subprocess

import pytest
from ase.build import bulk

from mlipcluster import Results, read_output, reproduce
from mlipcluster.errors import RecordError, RunFolderError
from mlipcluster.outputs.output import problems

METALS = [bulk(name) for name in ("Cu", "Ag", "Au", "Ni")]


def same(atoms):
    return atoms


def padded(atoms, rng):
    atoms.info["padding"] = rng.bytes(100_000).hex()
    return atoms


# --- folders ---------------------------------------------------------------------------------------------------------


def test_a_file_in_the_way(run, run_folder):
    run_folder.write_text("a file")
    with pytest.raises(RunFolderError, match=f"output_path {run_folder} cannot be written"):
        run(METALS, same)
    assert run_folder.read_text() == "a file"


def test_a_file_in_the_way_further_up(run, tmp_path):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(RunFolderError, match="cannot be written"):
        run(METALS, same, output_path=tmp_path / "file" / "run")


def mounted(folder, size):
    folder.mkdir()
    answer = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if answer.returncode:
        pytest.skip(f"needs the right to mount: {answer.stderr.strip()}")
    return folder


@pytest.fixture
def small_disk(tmp_path):
    folder = mounted(tmp_path / "disk", "1500k")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def read_only(tmp_path):
    folder = mounted(tmp_path / "disk", "1500k")
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_folder_that_cannot_be_written(run, read_only):
    with pytest.raises(RunFolderError, match=f"output_path {read_only}/run cannot be written: Read-only file system"):
        run(METALS, same, output_path=read_only / "run")


def test_a_full_disk_keeps_what_is_finished_and_goes_on_when_there_is_room(run, small_disk):
    path = small_disk / "run"
    tasks = [bulk("Cu", a=3.6 + 0.01 * n) for n in range(20)]
    (small_disk / "ballast").write_bytes(bytes(200_000))
    with pytest.raises((RunFolderError, OSError)) as caught:
        run(tasks, padded, output_path=path)
    assert "No space left on device" in str(caught.value)
    assert str(small_disk) in str(caught.value)
    before = Results.open(path)
    assert 0 < len(before) < 20
    for output in before:
        assert problems(output.path) == []
    subprocess.run(["mount", "-o", "remount,size=50m", small_disk], check=True)
    results = run(tasks, padded, output_path=path)
    assert len(results) == 20
    done = {entry["slot"]: entry["finished"] for entry in results.entries}
    assert all(done[entry["slot"]] == entry["finished"] for entry in before.entries)
    assert [p for output in results for p in problems(output.path)] == []
    written = [p for p in (path / "outputs").rglob("*") if p.is_file()]
    assert len(written) == 20


# --- the ledger ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ledger.jsonl", "intermediate.jsonl"])
@pytest.mark.parametrize("cut", [1, 40])
def test_a_last_line_that_was_cut(run, name, cut):
    first = run(METALS, same, padded)
    path = first.root / name
    text = path.read_bytes()
    path.write_bytes(text[:-cut])
    again = run(METALS, same, padded)
    assert {(e["slot"], e["result_digest"]) for e in again.entries} == {
        (e["slot"], e["result_digest"]) for e in first.entries
    }
    for line in path.read_text().splitlines():
        json.loads(line)
    if cut > 1:
        assert (first.root / f"{name}.torn").exists()


def test_a_line_damaged_in_the_middle_is_named(run):
    results = run(METALS, same)
    path = results.root / "ledger.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    lines[1] = lines[1][:50] + "\n"
    path.write_text("".join(lines))
    with pytest.raises(RecordError, match=r"ledger\.jsonl, line 2 cannot be read"):
        run(METALS, same)
    path.write_text("".join([lines[0], *lines[2:]]))
    assert len(run(METALS, same)) == 4


def test_a_ledger_that_is_gone(run):
    first = run(METALS, same)
    (first.root / "ledger.jsonl").unlink()
    again = run(METALS, same)
    assert {e["result_digest"] for e in again.entries} == {e["result_digest"] for e in first.entries}
    files = [p for p in (first.root / "outputs").rglob("*") if p.is_file()]
    assert len(files) == 4


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 99, "seed": 7}', "{}"])
def test_a_damaged_run_file_is_named(run, text):
    results = run(METALS, same)
    (results.root / "run.json").write_text(text)
    with pytest.raises(RunFolderError, match=r"run\.json"):
        run(METALS, same)


# --- outputs ---------------------------------------------------------------------------------------------------------


def test_an_output_with_a_damaged_record(run):
    results = run(METALS, same)
    path = next(iter(results)).path
    text = path.read_text()
    path.write_text(text.replace("task_key", "task_kex", 1))
    with pytest.raises(RecordError) as caught:
        read_output(path)
    assert str(path) in str(caught.value)
    assert "record changed" in str(caught.value)
    with pytest.raises(RecordError, match="record changed"):
        reproduce(input_file=path)
    path.write_text(text)
    assert problems(path) == []


def test_an_output_that_was_cut_is_made_again(run):
    results = run(METALS, same)
    victim = next(iter(results))
    text = victim.path.read_bytes()
    victim.path.write_bytes(text[: len(text) // 2])
    again = run(METALS, same)
    assert len(again) == 4
    assert all(problems(output.path) == [] for output in again)


def test_what_a_killed_driver_left_beside_the_outputs_is_cleared_away(run):
    results = run(METALS, same)
    output = next(iter(results))
    (output.path.parent / f".{output.path.name}.0123abcd.part").write_text("half")
    run(METALS, same)
    assert sorted(p.name for p in output.path.parent.iterdir()) == sorted(o.path.name for o in results)


# --- a calculators' cache that is no use -----------------------------------------------------------------------------


def test_a_damaged_cache_is_no_harm(run, emt):
    from mlipcluster.protocols import single_point

    first = run(METALS, single_point, calculator=emt)
    (first.root / "calculators.json").write_text("{")
    again = run(METALS, single_point, calculator=emt)
    assert [e["finished"] for e in again.entries] == [e["finished"] for e in first.entries]
