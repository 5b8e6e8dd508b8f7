"""Inputs over which workers end: they are tried again, but not for ever."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from mlipcluster.serving.fair_queue import Request

#: Workers that may end over the same input before that is refused.
MAX_DEATHS = 3
REMEMBERED = 1000
ENDED_EARLY = "Run this calculation alone to see why, or leave the structure out"


class Deaths:
    """How many workers have ended over which inputs, whoever asked; the last so many inputs are remembered."""

    def __init__(self) -> None:
        self._of: OrderedDict[bytes, tuple[int, str]] = OrderedDict()

    def add(self, request: Request, how: str) -> None:
        """One more worker has ended over a request."""
        key = _digest(request)
        count, _ = self._of.pop(key, (0, ""))
        self._of[key] = count + 1, how
        if len(self._of) > REMEMBERED:
            self._of.popitem(last=False)

    def survived(self, request: Request) -> None:
        """A worker has answered a request."""
        if self._of:
            self._of.pop(_digest(request), None)

    def verdict(self, request: Request) -> str:
        """Why a request is refused; empty unless it is."""
        count, how = self._of.get(_digest(request), (0, "")) if self._of else (0, "")
        if count < MAX_DEATHS:
            return ""
        return (
            f"{count} processes of calculator {request.name!r} have ended over this input, which is refused from now"
            f" on; the last one ended with {how}. {ENDED_EARLY}"
        )


def _digest(request: Request) -> bytes:
    """Of the calculator and the input, whoever asks: all of the frame but its id."""
    frame = memoryview(request.frame)
    return hashlib.blake2b(b"".join([request.name.encode("utf-8", "surrogatepass"), frame[:24], frame[32:]])).digest()
