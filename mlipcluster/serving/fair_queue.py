"""Requests that wait for one calculator: clients take turns, and each client's come in its own order."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Request:
    """A client's request for a calculator.

    Attributes
    ----------
    client : int
        Who asks.
    id : int
        The client's own number of it.
    name : str
        The calculator.
    frame : bytearray
        What it sent, whole.
    arrived : float
        When, monotonic s.
    is_calculation : bool
        Not a question about the calculator, which counts for nothing.
    withdrawn : bool
        Nobody waits for the answer any more.
    """

    client: int
    id: int
    name: str
    frame: bytearray = field(default_factory=bytearray)
    arrived: float = 0.0
    is_calculation: bool = True
    withdrawn: bool = False


class FairQueue:
    """The queue; a client with a thousand requests does not keep one with a single request waiting."""

    def __init__(self) -> None:
        self._of: OrderedDict[int, deque[Request]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def oldest(self) -> float:
        """When the request arrived that waits longest, monotonic s; ``inf`` when none waits."""
        return min((waiting[0].arrived for waiting in self._of.values()), default=float("inf"))

    def put(self, request: Request) -> None:
        """Add a request at the end of its client's."""
        self._of.setdefault(request.client, deque()).append(request)
        self._count += 1

    def put_back(self, request: Request) -> None:
        """Add a request that was given out already: it is the very next one."""
        self._of.setdefault(request.client, deque()).appendleft(request)
        self._of.move_to_end(request.client, last=False)
        self._count += 1

    def get(self) -> Request:
        """Take the next request; its client is the last in turn after that."""
        client, waiting = next(iter(self._of.items()))
        request = waiting.popleft()
        self._count -= 1
        if waiting:
            self._of.move_to_end(client)
        else:
            del self._of[client]
        return request

    def drop(self, client: int) -> None:
        """Forget a client's requests."""
        self._count -= len(self._of.pop(client, ()))

    def clear(self) -> list[Request]:
        """Forget all, and give them."""
        found: list[Any] = [request for waiting in self._of.values() for request in waiting]
        self._of.clear()
        self._count = 0
        return found
