"""Commands that start workers: what they get, what they say, and that nothing of them stays."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from mlipcluster.calculators.spawn import SpawnConfig
from mlipcluster.errors import CalculatorStartError
from mlipcluster.serving.server import Options
from mlipcluster.serving.spawned import ADDRESS_VARIABLE, WORKER_VARIABLE, Spawned

MEGABYTE = 1 << 20


def run(code, options=None, **fields):
    """Run Python code as the command of a worker: the process, and how it ended, once it has."""
    config = SpawnConfig("model", [sys.executable, "-c", code, "{name}", "{broker}", "{idle_timeout}"], **fields)
    spawned, said, ended = Spawned(config, 7, "/a/socket", options or Options(idle_timeout=60.0)), [], threading.Event()

    def end(words):
        said.append(words)
        ended.set()

    spawned.watch(end)
    return spawned, said, ended


def test_its_last_words_are_whole_whoever_was_first(until):
    """What it printed just before its end is there, however soon that came."""
    for _ in range(10):
        _, said, ended = run("import os\nfor _ in range(200): os.write(2, b'x' * 1000)\nos.write(1, b'last words')")
        assert ended.wait(60)
        assert said[0].rstrip().endswith("last words")


def test_what_it_prints_without_end_is_read_and_not_kept():
    code = f"import sys\nfor _ in range(64): sys.stderr.write('x' * {MEGABYTE})\nsys.exit('that was it')"
    _, said, ended = run(code)
    assert ended.wait(60)
    assert "exit status 1 before it joined" in said[0]
    assert "that was it" in said[0]
    assert len(said[0]) < 6000


def test_what_it_is_told(tmp_path):
    code = (
        "import os, sys\nprint(sys.argv[1:], os.getcwd(), os.environ['MODEL'], "
        f"os.environ[{ADDRESS_VARIABLE!r}], os.environ[{WORKER_VARIABLE!r}], sys.stdin.read())"
    )
    _, said, ended = run(code, env={"MODEL": "small"}, cwd=str(tmp_path))
    assert ended.wait(60)
    assert f"['model', '/a/socket', '60'] {tmp_path} small /a/socket 7" in said[0]


def test_what_it_started_ends_with_it(tmp_path, until):
    file = tmp_path / "pid"
    code = (
        "import subprocess, sys\nchild = subprocess.Popen(['sleep', '1000'])\n"
        f"open({str(file)!r}, 'w').write(str(child.pid))\nsys.exit(3)"
    )
    _, said, ended = run(code)
    assert ended.wait(60)
    assert "exit status 3" in said[0]
    until(lambda: not os.path.exists(f"/proc/{file.read_text()}"))


@pytest.mark.parametrize("joined", [False, True])
def test_it_is_given_up_unless_it_joins_in_time(joined, until):
    spawned, said, ended = run("import time\ntime.sleep(1000)", Options(start_timeout=0.5))
    spawned.joined = joined
    assert ended.wait(2.0 if joined else 60) is not joined
    if joined:
        spawned.kill()
        assert ended.wait(60)
        assert "signal SIGKILL" in said[0]
    else:
        assert "had not joined after start_timeout=0.5 s and was ended; it said nothing" in said[0]


@pytest.mark.parametrize("fields", [{"command": ["/no/such/program"]}, {"command": ["true"], "cwd": "/no/such/folder"}])
def test_what_cannot_be_run_is_said_at_once(fields):
    with pytest.raises(CalculatorStartError, match=r"cannot be run.*correct the command"):
        Spawned(SpawnConfig("model", **fields), 1, "/a/socket", Options())
