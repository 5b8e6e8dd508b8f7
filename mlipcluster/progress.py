"""What a person sees while a run goes on: a bar in a terminal or a notebook, plain lines elsewhere."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass, replace
from html import escape
from types import TracebackType
from typing import Any, Protocol


@dataclass(frozen=True)
class Counts:
    """How far a run is, in calls of protocols.

    Attributes
    ----------
    done : int
        Finished now, failures among them.
    failed : int
    running : int
        In flight.
    earlier : int
        Found finished in the run folder.
    total : int, optional
        Calls in all, as far as they are known; None while tasks are still being read.
    waiting : str
        What is waited for; ``""`` when all is as it should be.
    """

    done: int = 0
    failed: int = 0
    running: int = 0
    earlier: int = 0
    total: int | None = None
    waiting: str = ""


FIRST_LINE = 5.0
"""Seconds in which nobody needs a line."""


class View(Protocol):
    """One way of showing progress."""

    def show(self, counts: Counts, seconds: float) -> None:
        """Show the counts; *seconds* have passed since the start."""

    def say(self, text: str) -> None:
        """Show a line beside the counts."""

    def close(self, counts: Counts, seconds: float) -> None:
        """Show the counts a last time."""


class Progress:
    """Shows counts, a few times a second, in the way that fits where we are.

    Parameters
    ----------
    title : str
    shown : bool
        False shows nothing.
    """

    def __init__(self, title: str, *, shown: bool = True) -> None:
        self._title = title
        self._shown = shown
        self._view: View | None = None
        self._last = 0.0
        self._start = time.monotonic()
        self._counts = Counts()

    def __enter__(self) -> Progress:
        self._start = time.monotonic()
        if self._shown:
            self._view = _view(self._title)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._view is not None:
            self._view.close(self._counts, time.monotonic() - self._start)

    def say(self, text: str) -> None:
        """A line that stays, such as the dashboard's address."""
        if self._view is not None:
            self._view.say(text)

    def wait(self, what: str) -> None:
        """Show what is waited for before the first call; the time until then does not count."""
        self.update(replace(self._counts, waiting=what))

    def begin(self) -> None:
        """Count the time from now on."""
        self._start = time.monotonic()

    def update(self, counts: Counts) -> None:
        """Note the counts; they are shown if the last time is long enough ago."""
        self._counts = counts
        now = time.monotonic()
        if self._view is not None and now - self._last > 0.2:
            self._last = now
            self._view.show(counts, now - self._start)


def describe(counts: Counts, seconds: float) -> str:
    """The counts as one line: done, failed, running, rate, time left.

    >>> describe(Counts(done=30, failed=1, running=4, total=90), 60.0)
    '30/90 done, 1 failed, 4 running, 30/min, 2 min left'
    """
    every = counts.earlier + counts.done
    text = f"{every}/{counts.total} done" if counts.total is not None else f"{every} done"
    if counts.earlier:
        text += f" ({counts.earlier} earlier)"
    text += f", {counts.failed} failed, {counts.running} running"
    if counts.done and seconds > 0:
        rate = counts.done / seconds
        text += f", {rate:.3g}/s" if rate > 1 else f", {rate * 60:.3g}/min"
        if counts.total is not None and counts.total > every:
            text += f", {_duration((counts.total - every) / rate)} left"
    return f"{text}; {counts.waiting}" if counts.waiting else text


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size or (unit == "min" and seconds >= size):
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _view(title: str) -> View:
    if _in_notebook():
        return _NotebookView(title)
    if sys.stderr.isatty():
        return _RichView(title)
    return _PlainView(title)


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    instance = shell.get_ipython() if shell is not None else None
    return type(instance).__name__ == "ZMQInteractiveShell"


class _PlainView:
    """Lines, further apart the longer it takes, so that a log file stays short; and when what is waited for changes."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._next = FIRST_LINE
        self._waiting = ""
        self._seen = 0.0

    def show(self, counts: Counts, seconds: float) -> None:
        if seconds < self._seen:  # the time was set back: what was waited for is there
            self._next = FIRST_LINE
        self._seen = seconds
        news = counts.waiting != self._waiting and seconds >= FIRST_LINE
        if news or seconds >= self._next:
            self._next = max(seconds + 5, seconds * 1.3)
            self._waiting = counts.waiting
            self._write(counts, seconds)

    def say(self, text: str) -> None:
        sys.stderr.write(f"{text}\n")

    def close(self, counts: Counts, seconds: float) -> None:
        if replace(counts, waiting="") != Counts():  # it ended before it began: the error says why
            self._write(counts, seconds)

    def _write(self, counts: Counts, seconds: float) -> None:
        sys.stderr.write(f"{self._title}: {describe(counts, seconds)}\n")
        sys.stderr.flush()


class _RichView:
    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        # Without markup: what users call things may hold brackets.
        texts = [TextColumn(form, markup=False) for form in ("{task.description}", "{task.fields[told]}")]
        columns = (SpinnerColumn(), texts[0], BarColumn(), texts[1])
        self._bar = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True))
        self._task = self._bar.add_task(title, total=None, told="starting")
        self._bar.start()

    def say(self, text: str) -> None:
        self._bar.console.print(text, highlight=False, markup=False)

    def show(self, counts: Counts, seconds: float) -> None:
        self._bar.update(
            self._task,
            total=counts.total,
            completed=counts.earlier + counts.done,
            told=describe(counts, seconds),
        )

    def close(self, counts: Counts, seconds: float) -> None:
        self.show(counts, seconds)
        self._bar.stop()


class _NotebookView:
    """One display that is updated; nothing goes to stderr, which notebooks show as if it were an error."""

    def __init__(self, title: str) -> None:
        from IPython.display import HTML, display

        self._html = HTML
        self._title = title
        self._said: list[str] = []
        self._last = (Counts(), 0.0)
        self._handle: Any = display(HTML(self._render()), display_id=True)

    def say(self, text: str) -> None:
        self._said.append(text)
        self._handle.update(self._html(self._render()))

    def show(self, counts: Counts, seconds: float) -> None:
        self._last = (counts, seconds)
        self._handle.update(self._html(self._render()))

    def close(self, counts: Counts, seconds: float) -> None:
        self.show(counts, seconds)

    def _render(self) -> str:
        counts, _ = self._last
        value = f' value="{counts.earlier + counts.done}" max="{max(counts.total, 1)}"' if counts.total else ""
        bar = f'<progress{value} style="width: 20em"></progress>'
        said = "".join(f'<div style="opacity: 0.7">{_linked(text)}</div>' for text in self._said)
        return f"<div>{escape(self._title)} {bar} {escape(describe(*self._last))}</div>{said}"


def _linked(text: str) -> str:
    """Text as HTML, its addresses as links."""
    return re.sub(r"https?://[^\s<>&]+", r'<a href="\g<0>" target="_blank">\g<0></a>', escape(text))
