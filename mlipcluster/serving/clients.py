"""One client of the server, as the server knows it."""

from __future__ import annotations

import itertools

from mlipcluster.serving.seats import Seat
from mlipcluster.serving.stream import Stream

#: Requests of one client that are taken before the first of them is answered.
MOST_PENDING = 64
#: Bytes of them, from which on no more are taken.
MOST_HELD = 1 << 28
_NUMBERS = itertools.count(1)


class Client:
    """A connected client.

    Attributes
    ----------
    number : int
        Its own; never used again.
    stream : Stream
    since : float
        When it came, monotonic s.
    held : int
        Bytes of its requests that are not answered yet.
    pending : int
        How many of its requests are not answered yet.
    spare : bytearray
        Memory of a request that was answered, for the next one: to get as much anew takes longer than to copy it.
    seat : Seat or None
        That of the worker that it has become.
    """

    def __init__(self, stream: Stream, since: float = 0.0) -> None:
        self.since = since
        self.held = 0
        self.number = next(_NUMBERS)
        self.stream = stream
        self.pending = 0
        self.spare = bytearray()
        self.seat: Seat | None = None

    def copied(self, frame: memoryview) -> bytearray:
        """A copy of a frame that it has sent."""
        kept, self.spare = self.spare, bytearray()
        if len(kept) != len(frame):
            return bytearray(frame)
        kept[:] = frame
        return kept

    @property
    def reads(self) -> bool:
        """Whether more is taken from it: not while it has enough to wait for, or takes no answers."""
        return self.pending < MOST_PENDING and self.held < MOST_HELD and not self.stream.unsent
