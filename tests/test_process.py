from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlipcluster import process
from mlipcluster.process import find_program, run_logged


def _python(code, *arguments):
    return [sys.executable, "-c", code, *map(str, arguments)]


def _gone(pid):
    for _ in range(200):
        try:
            # A zombie that nobody has waited for yet is as good as gone.
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_lines_come_while_the_command_runs(tmp_path):
    mark, seen = tmp_path / "mark", []
    code = (
        "import os, sys, time\n"
        "print('out', flush=True)\n"
        "while not os.path.exists(sys.argv[1]): time.sleep(0.01)\n"
        "print('err', file=sys.stderr); sys.exit(3)\n"
    )

    def log(line):
        seen.append(line)
        mark.touch()

    assert run_logged(_python(code, mark), timeout=60, log=log) == (3, "out\nerr\n")
    assert seen == ["out", "err"]


def test_progress_bars_bytes_that_are_no_text_and_a_last_line_without_an_end():
    code = r"import sys; sys.stdout.buffer.write(b'1%\r2%\r\n\r\n\xc3\xa9\xff\nend')"
    seen = []
    assert run_logged(_python(code), timeout=60, log=seen.append)[0] == 0
    assert seen == ["1%", "2%", "", "é\\xff", "end"]


def test_only_the_last_words_are_kept_and_endless_lines_are_cut():
    seen = []
    status, tail = run_logged(_python("print('x' * 300_000); print('last')"), timeout=60, log=seen.append)
    assert (status, len(tail), tail[-6:]) == (0, process.LAST_WORDS, "\nlast\n"[-6:])
    assert "".join(seen) == "x" * 300_000 + "last"
    assert max(map(len, seen)) < 300_000


_PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
if sys.argv[1] == "wait": time.sleep(600)
if sys.argv[1] == "close": os.close(1); os.close(2); time.sleep(600)
"""


@pytest.mark.parametrize("how", ["wait", "close"])
def test_past_its_time_the_whole_group_is_ended(how):
    seen = []
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        run_logged(_python(_PARENT, how), timeout=1.5, log=seen.append)
    assert caught.value.output == f"{seen[0]}\n"
    assert _gone(int(seen[0]))


def test_what_a_command_leaves_running_neither_holds_up_nor_stays():
    seen = []
    assert run_logged(_python(_PARENT, "leave"), timeout=60, log=seen.append)[0] == 0
    assert _gone(int(seen[0]))


def test_an_interrupt_ends_the_whole_group():
    seen = []

    def log(line):
        seen.append(line)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_logged(_python(_PARENT, "wait"), timeout=60, log=log)
    assert _gone(int(seen[0]))


def test_folder_and_variables_are_handed_on_and_nothing_is_read(tmp_path):
    code = "import os, sys; print(os.getcwd(), os.environ['A'], repr(sys.stdin.read()))"
    folder = tmp_path / "a 'folder'"
    folder.mkdir()
    seen = []
    run_logged(_python(code), timeout=60, cwd=folder, env={"A": "b\nc"}, log=seen.append)
    assert "\n".join(seen) == f"{os.path.realpath(folder)} b\nc ''"


def test_a_program_that_is_not_there_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        run_logged([str(tmp_path / "nothing")], timeout=1, log=print)


def _program(path):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return os.fspath(path)


def test_a_program_is_found_by_its_variable_on_the_path_and_beside_python(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    monkeypatch.delenv("CONDA_EXE", raising=False)
    assert find_program(["conda"]) == find_program([]) == ""
    beside = _program(tmp_path / "bin" / "conda")
    monkeypatch.setattr(sys, "executable", os.fspath(tmp_path / "bin" / "python"))
    assert find_program(["mamba", "conda"]) == beside
    on_path = _program(tmp_path / "conda")
    assert find_program(["conda"]) == on_path
    told = _program(tmp_path / "opt" / "conda")
    monkeypatch.setenv("CONDA_EXE", told)
    assert find_program(["conda"]) == told
    monkeypatch.setenv("CONDA_EXE", "/no/such")
    assert find_program(["conda"]) == on_path
