"""Where workers sit, as the server sees them: how requests get there, and how a worker ends."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Any

from mlipcluster.calculators.host import WorkerHost
from mlipcluster.serving.fair_queue import Request
from mlipcluster.serving.stream import Stream
from mlipcluster.socket_worker import wire

#: How long the word is waited for of how a worker ended.
WORDS_SECONDS = 2.0


class Seat(ABC):
    """A worker's place.

    Attributes
    ----------
    number : int
        The worker's, in `mlipcluster.serving.dispatch`.
    name : str
        The calculator's.
    where : str
        For people: ``"here"``, ``"joined"``, a node's name.
    stream : Stream
        Requests go there, answers come from there.
    told : mapping
        What the worker said of itself.
    pid : int or None
        Of the worker's process, where it runs on this machine.
    request : Request or None
        The one that it has.
    id : int
        Under which number that was sent.
    ends : bool
        It was told to end, or will be as soon as it has answered.
    """

    where = "here"
    pid: int | None = None
    memory: int | None = None  # bytes, where only somebody else can see that
    blocks = True  # whether `end` takes its time

    def __init__(self, number: int, name: str, stream: Stream, told: dict[str, Any]) -> None:
        self.number = number
        self.name = name
        self.stream = stream
        self.told = told
        self.request: Request | None = None
        self.id = 0
        self.ends = False

    def give(self, request: Request) -> None:
        """Send a request on."""
        self.id += 1
        self.request = request
        wire.set_id(request.frame, self.id)
        self.stream.send([request.frame])

    @property
    def is_heard_alone(self) -> bool:
        """Whether nothing else comes over its connection, so that it can be closed with the worker's end."""
        return True

    @abstractmethod
    def end(self, *, at_once: bool) -> None:
        """End the worker."""

    @abstractmethod
    def how(self) -> str:
        """How it ended, and its last words; may take seconds."""


class HereSeat(Seat):
    """A worker that the server hosts.

    Parameters
    ----------
    host : WorkerHost
        It runs.
    """

    def __init__(self, number: int, name: str, host: WorkerHost) -> None:
        connection = host.connect()
        super().__init__(number, name, Stream(connection.socket), host.start().to_json())
        self._host, self._connection = host, connection
        self.pid = host.pid

    def end(self, *, at_once: bool) -> None:
        """End it."""
        if at_once:
            self._host.kill()
        else:
            self._host.stop()
        self._connection.close()

    def how(self) -> str:
        """Exit status or signal, and its last words."""
        said = self._host.how_it_ended()
        self._host.kill()
        return said


class JoinedSeat(Seat):
    """A worker that somebody else started and looks after, and that joined.

    Parameters
    ----------
    control : Stream
        The connection to whoever looks after it; the same as *stream* where that hands frames on.

    Attributes
    ----------
    words : str
        How it ended, as whoever looks after it said; empty as long as nobody did.
    """

    where = "joined"
    blocks = False

    def __init__(self, number: int, name: str, stream: Stream, told: dict[str, Any], control: Stream) -> None:
        super().__init__(number, name, stream, told)
        self.control = control
        self.words = ""
        self._said = threading.Event()

    def end(self, *, at_once: bool) -> None:
        """Ask whoever looks after it to end it."""
        self.control.send([wire.encode({"kind": "end", "at_once": at_once})])

    @property
    def is_heard_alone(self) -> bool:
        """Not where whoever looks after it hands frames on."""
        return self.stream is not self.control

    def said(self, words: str) -> None:
        """Whoever looks after it says how it ended; empty when that one is gone as well."""
        self.words = self.words or words
        self._said.set()

    def how(self) -> str:
        """What whoever looked after it said."""
        if self.is_heard_alone:  # otherwise the word would have come before the loss
            self._said.wait(WORDS_SECONDS)
        return self.words or "its connection lost; whoever looked after it said nothing"
