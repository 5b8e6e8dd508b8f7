from __future__ import annotations

import sys
import time

import pytest

from mlipcluster.calculators.foreign_code import ForeignCode
from mlipcluster.errors import CalculatorStartError


def test_a_megabyte_of_output_neither_stops_it_nor_is_kept():
    code = ForeignCode([sys.executable, "-c", "import sys; print('x' * (1 << 20)); sys.exit('the end')"])
    assert code.wait() == 0
    told = code.how_it_ended()
    assert "exit status 1" in told
    assert told.rstrip().endswith("the end")
    assert len(told) < 40_000


def test_ends_with_what_it_started(monkeypatch, tmp_path):
    monkeypatch.setattr("mlipcluster.calculators.foreign_code.GRACE", 0.2)
    code = ForeignCode(["sh", "-c", "trap '' TERM; sleep 600 & echo $! > child; wait; wait"], tmp_path)
    child = _when(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text().strip())
    code.wait()
    assert code.poll() == -9
    assert "signal SIGKILL" in code.how_it_ended()
    assert _when(lambda: not _runs(int(child)))


def test_ends_when_nobody_has_it_any_more(tmp_path):
    code = ForeignCode(["sh", "-c", "echo $$ > pid; exec sleep 600"], tmp_path)
    pid = int(_when(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip()))
    assert _runs(pid)
    del code
    assert _when(lambda: not _runs(pid))


@pytest.mark.parametrize(("command", "cwd"), [(["no-such-code"], None), ([sys.executable], "/no/such/folder")])
def test_cannot_be_run(command, cwd):
    with pytest.raises(CalculatorStartError, match=r"cannot be run.*correct"):
        ForeignCode(command, cwd)


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _when(true):
    """Wait until something is so."""
    deadline = time.monotonic() + 60
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found
