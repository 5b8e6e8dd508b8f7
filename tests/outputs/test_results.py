from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from mlipcluster.errors import InputError, RecordError, RunFolderError
from mlipcluster.outputs.failure import write_failure
from mlipcluster.outputs.ledger import Ledger
from mlipcluster.outputs.output import write_output
from mlipcluster.outputs.results import Results
from mlipcluster.records.record import seal


@pytest.fixture
def run(tmp_path, atoms, make):
    """A run of three outputs in two files of a source, a failure and an empty call, as its driver leaves it."""
    root = tmp_path / "run"
    entries = []
    for number, energy in ((10, -1.0), (2, -3.0), (1, float("nan"))):
        record = make(atoms, f"Cu4-{number}")
        record["scores"] = {"formula": "Cu4", "natoms": 4, "energy": energy, "max_force": 0.5, "gap": number}
        path = write_output(root / "outputs" / "0000", atoms, record)
        entries.append(
            {
                "status": "output",
                "name": f"Cu4-{number}",
                "identity": f"{number:032x}",
                "slot": f"{number:032x}/0//0",
                "step": 0,
                "output": [0, 1],
                "file": path.relative_to(root).as_posix(),
                "source": f"Cu{number}.cif#0",
                "replicate": 0,
                "calculator": "",
                "protocols": ["relax"],
                "seeds": [number],
                "scores": record["scores"],
                "seconds": 0.25,
            }
        )
    path = write_failure(
        root / "failures", "bad", {"error": {"traceback": "Traceback: deep\n"}, "printed": "last words"}
    )
    error = {"type": "ValueError", "message": "<b>no</b> & never", "file": "failures/bad.json", "attempts": 3}
    shared = {"output": None, "file": None, "replicate": 0, "calculator": "", "protocols": ["relax"], "scores": {}}
    entries.append({**shared, "status": "failed", "name": "bad", "slot": "f/0//0", "source": "z.cif#0", "error": error})
    entries.append({**shared, "status": "empty", "name": "none", "slot": "e/0//0", "source": "y.cif#0"})
    with Ledger(root / "ledger.jsonl", sync=False) as ledger:
        ledger.append(entries)
    return root


def test_outputs_are_read_lazily_in_a_fixed_order(run, atoms):
    results = Results.open(run)
    assert len(results) == 3
    assert [output.name for output in results] == ["Cu4-1", "Cu4-2", "Cu4-10"]
    assert results.outputs[1].scores["energy"] == -3.0
    assert results.outputs[-1].path == run / "outputs" / "0000" / "Cu4-10.extxyz"
    assert [output.name for output in results.outputs[:2]] == ["Cu4-1", "Cu4-2"]
    np.testing.assert_array_equal(results.outputs[0].atoms.positions, atoms.positions)
    with pytest.raises(IndexError):
        results.outputs[3]
    (run / "outputs" / "0000" / "Cu4-10.extxyz").unlink()
    assert len(results.outputs) == 3  # only reading that one would tell
    with pytest.raises(RecordError, match="Cu4-10"):
        list(results)


def test_a_damaged_output_is_named_and_the_others_can_be_read(run):
    results = Results.open(run)
    path = results.outputs[1].path
    path.write_text(path.read_text().replace('\\"instance\\":', '\\"instance\\"', 1))
    with pytest.raises(RecordError, match=r"Cu4-2\.extxyz: the record is not readable"):
        list(results)
    assert [results.outputs[number].name for number in (0, 2)] == ["Cu4-1", "Cu4-10"]


def test_a_ledger_or_its_folder_may_be_opened(run):
    assert len(Results.open(run / "ledger.jsonl")) == len(Results.open(run)) == 3


def test_no_run_is_told(tmp_path):
    with pytest.raises(RunFolderError, match="holds no run"):
        Results.open(tmp_path)


def test_failures_are_values_with_everything(run):
    (failure,) = Results.open(run).failures
    assert (failure.name, failure.type, failure.attempts, failure.source) == ("bad", "ValueError", 3, "z.cif#0")
    assert failure.message == "<b>no</b> & never"
    assert failure.traceback == "Traceback: deep\n"
    assert failure.printed == "last words"
    assert failure.path == run / "failures" / "bad.json"
    failure.path.unlink()
    (gone,) = Results.open(run).failures
    assert gone.traceback == ""


def test_counts(run):
    assert Results.open(run).counts == {"output": 3, "failed": 1, "empty": 1}


def test_reduce_hands_over_one_list(run):
    best = Results.open(run).reduce(
        lambda outputs: min(outputs, key=lambda o: np.nan_to_num(o.scores["energy"], nan=9))
    )
    assert best.name == "Cu4-2"
    assert Results([], run).reduce(len) == 0


def test_an_output_that_stands_in_the_ledger_alone_is_read_from_there(run, atoms, make):
    record = dict(seal(make(atoms)))
    entry = {"status": "output", "name": "n", "slot": "a/0//0", "output": [0, 1], "file": None, "record": record}
    (output,) = Results([entry], run)
    assert output.path is None
    np.testing.assert_array_equal(output.atoms.positions, atoms.positions)
    record["metadata"]["result"]["atoms"] = {"__atoms__": {}}
    with pytest.raises(RecordError, match=r"output 'n' in the ledger of .*run: a packed value is damaged"):
        list(Results([entry], run))
    with pytest.raises(InputError, match="was not saved"):
        list(Results([{**entry, "record": {"metadata": {}}}], run))


def test_outputs_that_were_not_saved_are_counted_but_not_listed(run):
    results = Results([{"status": "output", "name": "n", "slot": "a/0//0", "output": [0, 1], "file": None}], run)
    assert len(results) == 1
    assert list(results) == []


def test_pandas_is_imported_only_for_tables(run):
    script = (
        "import sys; from mlipcluster.outputs.results import Results; r = Results.open(sys.argv[1]); repr(r); "
        "r._repr_html_(); print('pandas' in sys.modules, 'dask' in sys.modules); r.to_dataframe(); "
        "print('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(run)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "True"]
