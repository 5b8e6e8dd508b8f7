"""What calls print, kept apart: marks between them travel in the stream itself.

Text and results come by different ways, so when a result arrives nobody knows which of the text was printed before it.
The process therefore writes a mark behind the text of each call, before it sends the result.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import deque

KEPT = 1 << 16
"""Bytes kept of what a call prints: the last ones."""

_MARK = b"\0\x1ecall\x1e"  # no end of it is a beginning of it: it is found whatever stands before
_BEGIN, _END = b"B", b"E"


class Marker:
    """The printing process's side; its stream is the one that is file descriptor 1 now, whatever becomes of that."""

    def __init__(self) -> None:
        self._fd = os.dup(1)

    def begin(self) -> None:
        """What was printed so far belongs to no call."""
        self._write(_BEGIN)

    def end(self) -> None:
        """What was printed since belongs to the call that has just ended."""
        self._write(_END)

    def _write(self, kind: bytes) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # a protocol may have closed or replaced them
                stream.flush()
        os.write(self._fd, _MARK + kind)


class PrintedText:
    """The reading side: keeps the end of what each call printed.

    Parameters
    ----------
    fd : int
        Reading end of the pipe; it is made non-blocking.
    """

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.is_open = True
        self._text = bytearray()
        self._calls: deque[bytes] = deque()

    def read(self) -> bool:
        """Read what is there; whether that was anything.

        A bounded amount at a time: a process that prints without end must still meet its deadline.
        """
        for count in range(64):
            try:
                block = os.read(self.fd, KEPT)
            except BlockingIOError:
                return count > 0
            if not block:
                self.is_open = False  # from now on always "ready"
                return count > 0
            self._take(block)
        return True

    def of_finished(self) -> str:
        """The text of the next call whose result has arrived."""
        while not self._calls and self.read():
            pass
        return _decoded(self._calls.popleft()) if self._calls else ""

    def of_unfinished(self) -> str:
        """The text of the call during which the process ended."""
        self.read()
        return _decoded(self._calls[-1] if self._calls else bytes(self._text[-KEPT:]))

    def _take(self, block: bytes) -> None:
        self._text += block
        while 0 <= (at := self._text.find(_MARK)) < len(self._text) - len(_MARK):
            after = at + len(_MARK) + 1
            if self._text[after - 1 : after] == _END:
                self._calls.append(bytes(self._text[max(0, at - KEPT) : at]))
            del self._text[:after]
        if len(self._text) > 2 * KEPT:
            del self._text[:-KEPT]


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "replace")
