from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlipcluster.errors import RecordError, RunFolderError
from mlipcluster.outputs.ledger import Ledger

ENTRIES = [
    {"status": "output", "slot": "aa/0//0", "output": [0, 1], "scores": {"energy": float("nan"), "gap": 0.1}},
    {"status": "failed", "slot": "bb/0//0", "error": {"type": "ValueError", "message": "é\n\u2028x"}},
    {"status": "empty", "slot": "cc/0//0"},
]


def same(a, b):
    return json.dumps(a) == json.dumps(b)  # NaN equals NaN as text


def test_what_is_appended_is_read_back_with_nan(tmp_path):
    with Ledger(tmp_path / "run" / "ledger.jsonl") as ledger:
        ledger.append(ENTRIES[:2])
        ledger.append(ENTRIES[2:])
        ledger.append([])
    assert same(list(Ledger(tmp_path / "run" / "ledger.jsonl")), ENTRIES)
    assert math.isnan(next(ledger.entries())["scores"]["energy"])


def test_one_append_is_one_write_of_whole_lines(tmp_path, monkeypatch):
    writes = []
    write = os.write
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        monkeypatch.setattr(os, "write", lambda fd, data: writes.append(data) or write(fd, data))
        ledger.append(ENTRIES)
    assert len(writes) == 1
    assert writes[0].endswith(b"\n")
    assert writes[0].count(b"\n") == len(ENTRIES)


@pytest.mark.parametrize("sync", [True, False])
def test_fsync_only_when_asked(tmp_path, monkeypatch, sync):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with Ledger(tmp_path / "ledger.jsonl", sync=sync) as ledger:
        ledger.append(ENTRIES)
    assert bool(synced) is sync


def test_numpy_numbers_and_paths_are_taken(tmp_path):
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        ledger.append([{"a": np.float32(0.5), "b": np.arange(2), "c": np.bool_(True), "d": tmp_path}])
        assert list(ledger) == [{"a": 0.5, "b": [0, 1], "c": True, "d": str(tmp_path)}]


def test_an_entry_that_json_cannot_hold_leaves_nothing_of_its_batch(tmp_path):
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        ledger.append(ENTRIES[:1])
        with pytest.raises(TypeError, match="cannot hold the object"):
            ledger.append([ENTRIES[1], {"x": object()}])
        assert same(list(ledger), ENTRIES[:1])


@given(cut=st.integers(1, 10_000))
def test_a_ledger_cut_anywhere_loses_only_the_torn_line(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "ledger.jsonl"
    with Ledger(path, sync=False) as ledger:
        ledger.append(ENTRIES)
    data = path.read_bytes()
    kept = data[: len(data) - cut % len(data)]
    path.write_bytes(kept)
    whole = [json.loads(line) for line in data.splitlines() if kept.count(line)]
    assert same(list(Ledger(path)), whole)
    with Ledger(path, sync=False) as ledger:
        ledger.append([{"new": 1}])
    assert same(list(Ledger(path)), [*whole, {"new": 1}])
    torn = ledger.torn_path.read_bytes() if ledger.torn_path.exists() else b""
    tail = kept.rpartition(b"\n")[2]
    assert torn == (tail + b"\n" if tail and len(whole) == kept.count(b"\n") else b"")


def test_a_long_torn_tail_is_kept_whole(tmp_path):
    path = tmp_path / "ledger.jsonl"
    tail = b'{"record":"' + b"x" * 200_000
    path.write_bytes(b'{"a":1}\n' + tail)
    with Ledger(path):
        assert path.read_bytes() == b'{"a":1}\n'
    assert (tmp_path / "ledger.jsonl.torn").read_bytes() == tail + b"\n"


def test_zeros_after_a_power_cut_are_a_torn_tail(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b'{"a":1}\n' + b"\0" * 4096)
    with Ledger(path) as ledger:
        assert list(ledger) == [{"a": 1}]


@pytest.mark.parametrize("damage", [b'{"a":', b"[1]", b"\0\0", b"\xff\xfe", b""])
def test_damage_in_the_middle_is_named_by_its_line_with_the_remedy(tmp_path, damage):
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b'{"a":1}\n' + damage + b'\n{"b":2}\n')
    with pytest.raises(RecordError, match=r"ledger\.jsonl, line 2 .*sed -i '2d' ledger\.jsonl.*run again"):
        list(Ledger(path))
    assert list(Ledger(path).entries(strict=False)) == [{"a": 1}, {"b": 2}]


def test_positions_find_single_entries_again(tmp_path):
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        ledger.append(ENTRIES)
        found = dict(ledger.positions())
        assert [same(ledger.read(position), entry) for position, entry in found.items()] == [True] * 3
        with pytest.raises(RecordError, match="no entry at byte 3"):
            ledger.read(3)


def test_no_file_is_an_empty_ledger(tmp_path):
    assert list(Ledger(tmp_path / "none.jsonl")) == []


def test_a_write_that_fails_leaves_the_ledger_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "ledger.jsonl"
    write = os.write

    def full(fd, data):
        if len(data) < 40:
            raise OSError(28, "No space left on device")
        return write(fd, data[:40])

    with Ledger(path) as ledger:
        ledger.append(ENTRIES[:1])
        before = path.read_bytes()
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(RunFolderError, match=r"No space left.*make room"):
            ledger.append(ENTRIES)
        monkeypatch.undo()
        assert path.read_bytes() == before
        ledger.append(ENTRIES[1:])
    assert same(list(Ledger(path)), ENTRIES)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="choose another output_path"):
        Ledger(tmp_path / "file" / "ledger.jsonl").open()


def test_every_line_survives_sigkill(tmp_path):
    script = (
        "import os, signal, sys\n"
        "from mlipcluster.outputs.ledger import Ledger\n"
        "ledger = Ledger(sys.argv[1])\n"
        "for i in range(100): ledger.append([{'i': i}])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "ledger.jsonl"
    subprocess.run([sys.executable, "-c", script, os.fspath(path)], check=False)
    with Ledger(path) as ledger:  # the lock died with its holder
        assert [entry["i"] for entry in ledger] == list(range(100))
