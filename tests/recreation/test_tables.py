"""Pickled tables: read when asked for, and by an unpickler that makes tables only."""

from __future__ import annotations

import os
import pickle
import sys

import pytest

from mlipcluster.errors import InputError, RecordError
from mlipcluster.recreation import found
from mlipcluster.recreation.tables import ADMITTED

NAME = "Cu4-0123"


@pytest.fixture
def table(tmp_path, make_sealed, write_record):
    """A table as a run gives it, in the run's folder."""
    from mlipcluster.outputs.table import to_dataframe

    write_record(make_sealed(), tmp_path / "outputs" / "a.json")
    return to_dataframe(
        [
            {"name": "Al-1", "file": None, "slot": "a/0//0", "scores": {"energy": 1.5, "barrier": None}, "seeds": [1]},
            {"name": NAME, "file": "outputs/a.json", "slot": "b/0//0", "scores": {"energy": -2.0, "note": "ü"}},
        ]
    )


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_table_in_every_compression(table, tmp_path, suffix, protocol):
    path = tmp_path / f"scores.pkl{suffix}"
    table.to_pickle(path, protocol=protocol)
    assert found.in_scorefile(path, NAME, pandas_secure=True)["instance"]
    with pytest.raises(InputError, match=r"--pandas-secure"):
        found.in_scorefile(path, NAME)


def test_a_table_with_an_index_or_few_columns(table, tmp_path):
    path = tmp_path / "scores.pkl"
    table.set_index("step").to_pickle(path)
    assert found.in_scorefile(path, NAME, pandas_secure=True)["instance"]
    table[["name", "energy"]].to_pickle(path)
    with pytest.raises(InputError, match=r"no column file.*ledger\.jsonl"):
        found.in_scorefile(path, NAME, pandas_secure=True)


def test_rows_and_files_that_are_not_there(table, tmp_path):
    path = tmp_path / "scores.pkl"
    table.to_pickle(path)
    with pytest.raises(InputError, match=r"no row 'Cu'; it has for example 'Al-1'"):
        found.in_scorefile(path, "Cu", pandas_secure=True)
    with pytest.raises(InputError, match="names no file"):
        found.in_scorefile(path, "Al-1", pandas_secure=True)
    (tmp_path / "elsewhere").mkdir()
    table.to_pickle(tmp_path / "elsewhere" / "scores.pkl")
    with pytest.raises(InputError, match="put the table into the run's folder"):
        found.in_scorefile(tmp_path / "elsewhere" / "scores.pkl", NAME, pandas_secure=True)


def test_a_table_cannot_name_a_file_outside(table, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "secret.json").write_text("{}")
    table["file"] = "../secret.json"
    table.to_pickle(tmp_path / "run" / "scores.pkl")
    with pytest.raises(RecordError, match="no file in its folder"):
        found.in_scorefile(tmp_path / "run" / "scores.pkl", NAME, pandas_secure=True)


class Evil:
    def __init__(self, call, *arguments):
        self.call = call, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "evil",
    [Evil(os.system, "touch evil"), Evil(eval, "open('evil', 'w')"), Evil(open, "evil", "w"), Evil(getattr, 1, "x")],
)
def test_a_pickle_runs_nothing(tmp_path, monkeypatch, evil):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scores.pkl").write_bytes(pickle.dumps(evil))
    with pytest.raises(RecordError, match="which no table needs"):
        found.in_scorefile(tmp_path / "scores.pkl", NAME, pandas_secure=True)
    assert not (tmp_path / "evil").exists()


def test_what_is_admitted_calls_nothing_that_a_name_could_choose():
    """Neither attributes of admitted objects nor functions that read files or run text."""
    names = {name for names in ADMITTED.values() for name in names}
    assert not names & {"eval", "exec", "getattr", "__import__", "open", "read_pickle", "loads", "system"}
    assert not any("." in name for name in names)


@pytest.mark.parametrize("data", [b"\x80\x05", b"\x80\x05N.", b"\x80\xff.", b"\x80\x04]q\x00."])
def test_damaged_pickles(tmp_path, data):
    (tmp_path / "scores.pkl").write_bytes(data)
    with pytest.raises(RecordError, match=r"ledger\.jsonl"):
        found.in_scorefile(tmp_path / "scores.pkl", NAME, pandas_secure=True)


def test_without_pandas_the_alternatives_are_named(table, tmp_path, monkeypatch):
    table.to_pickle(tmp_path / "scores.pkl")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match=r"which this Python lacks.*ledger\.jsonl"):
        found.in_scorefile(tmp_path / "scores.pkl", NAME, pandas_secure=True)
