from __future__ import annotations

import io
import sys
import types

import pytest

from mlipcluster.progress import Counts, Progress, describe


@pytest.mark.parametrize(
    ("counts", "seconds", "text"),
    [
        (Counts(), 0.0, "0 done, 0 failed, 0 running"),
        (Counts(total=5), 0.0, "0/5 done, 0 failed, 0 running"),
        (Counts(done=30, failed=1, running=4, total=90), 60.0, "30/90 done, 1 failed, 4 running, 30/min, 2 min left"),
        (Counts(done=30, total=30), 10.0, "30/30 done, 0 failed, 0 running, 3/s"),
        (
            Counts(done=10, earlier=20, total=40),
            10.0,
            "30/40 done (20 earlier), 0 failed, 0 running, 60/min, 10 s left",
        ),
        (Counts(earlier=3, total=3), 1.0, "3/3 done (3 earlier), 0 failed, 0 running"),
        (Counts(done=1, total=100_001), 10.0, "1/100001 done, 0 failed, 0 running, 6/min, 12 d left"),
        (Counts(done=1, total=1001), 10.0, "1/1001 done, 0 failed, 0 running, 6/min, 3 h left"),
    ],
)
def test_one_line_says_it_all(counts, seconds, text):
    assert describe(counts, seconds) == text


class Clock:
    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("mlipcluster.progress.time.monotonic", lambda: self.now)


def test_plain_lines_are_few_and_the_last_is_there(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with Progress("relax") as progress:
        for second in range(3600):
            clock.now = float(second)
            progress.update(Counts(done=second, total=3600))
        progress.update(Counts(done=3600, total=3600))
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("relax: 3600/3600 done")
    assert 5 < len(lines) < 40


def test_a_quick_run_is_one_line(capsys):
    with Progress("relax") as progress:
        progress.update(Counts(done=3, failed=1, total=3))
    assert capsys.readouterr().err.splitlines()[0].startswith("relax: 3/3 done, 1 failed")


def test_switched_off_nothing_is_said(capsys):
    with Progress("relax", shown=False) as progress:
        progress.say("Dask dashboard")
        progress.update(Counts(done=3))
    assert capsys.readouterr() == ("", "")


def test_the_last_counts_are_shown_after_an_error_too(capsys):
    progress = Progress("relax")
    progress.__enter__()
    progress.update(Counts(done=1, total=3))
    progress.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert "1/3 done" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_in_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    with Progress("relax [red]a[/red]") as progress:
        progress.say("Dask dashboard: http://127.0.0.1:1/status [/nothing]")
        progress.update(Counts(done=2, failed=1, running=1, total=4))
    text = terminal.getvalue()
    assert "2/4 done, 1 failed, 1 running" in text
    assert "http://127.0.0.1:1/status" in text
    assert "[red]a[/red]" in text  # a title is text, not markup


class Handle:
    def __init__(self):
        self.pages = []

    def update(self, page):
        self.pages.append(page)


def test_a_bar_in_a_notebook(monkeypatch, capsys):
    handle = Handle()
    ipython = types.ModuleType("IPython")
    shell = type("ZMQInteractiveShell", (), {})()
    ipython.get_ipython = lambda: shell
    ipython.display = types.ModuleType("IPython.display")
    ipython.display.HTML = str
    ipython.display.display = lambda page, display_id: handle
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    with Progress("a < b") as progress:
        progress.say("Dask dashboard: http://127.0.0.1:1/status?a <b>")
        progress.update(Counts(done=2, earlier=1, total=4))
    assert capsys.readouterr() == ("", "")
    last = handle.pages[-1]
    assert '<progress value="3" max="4"' in last
    assert "3/4 done (1 earlier)" in last
    assert "a &lt; b" in last
    assert 'Dask dashboard: <a href="http://127.0.0.1:1/status?a" target="_blank">' in last
    assert "&lt;b&gt;" in last


def test_in_a_notebook_what_is_unknown_has_no_length(monkeypatch):
    handle = Handle()
    from mlipcluster import progress

    view = progress._NotebookView.__new__(progress._NotebookView)
    view._title, view._handle, view._html, view._said = "relax", handle, str, []
    view.show(Counts(done=2), 1.0)
    assert "<progress style" in handle.pages[-1]


def test_what_is_waited_for_is_said_when_it_changes(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with Progress("relax") as progress:
        for second in range(200):
            clock.now = float(second)
            progress.wait("3 jobs wait: Resources" if second < 100 else "2 jobs wait: Priority")
        clock.now = 201.0
        progress.begin()
        for second in range(201, 206):
            clock.now = float(second)
            progress.update(Counts(done=second - 200, total=10))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "relax: 0 done, 0 failed, 0 running; 3 jobs wait: Resources"
    assert sum("Priority" in line for line in lines) < 5
    changed = next(line for line in lines if "Priority" in line)
    assert changed == "relax: 0 done, 0 failed, 0 running; 2 jobs wait: Priority"
    assert lines[-1] == "relax: 5/10 done, 0 failed, 0 running, 1.25/s, 4 s left"


def test_what_ends_before_it_begins_shows_no_counts(capsys):
    with Progress("relax") as progress:
        progress.wait("no workers")
    assert capsys.readouterr().err == ""
