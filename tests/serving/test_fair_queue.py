"""Clients take turns."""

from __future__ import annotations

import math

from mlipcluster.serving.fair_queue import FairQueue, Request


def filled(*asked):
    queue = FairQueue()
    for number, client in enumerate(asked):
        queue.put(Request(client, number, "a", arrived=float(number)))
    return queue


def order(queue):
    return [queue.get().id for _ in range(len(queue))]


def test_a_client_with_many_requests_keeps_nobody_waiting():
    assert order(filled(1, 1, 1, 1, 2, 3, 3)) == [0, 4, 5, 1, 6, 2, 3]


def test_what_is_put_back_is_next():
    queue = filled(1, 2, 1)
    first = queue.get()
    queue.put_back(first)
    assert order(queue) == [0, 1, 2]
    assert len(queue) == 0


def test_a_client_that_goes_takes_its_requests_along():
    queue = filled(1, 2, 1, 3)
    queue.drop(1)
    queue.drop(7)
    assert len(queue) == 2
    assert order(queue) == [1, 3]


def test_the_oldest():
    assert filled(2, 1, 1).oldest == 0.0
    assert FairQueue().oldest == math.inf


def test_clear_gives_all():
    queue = filled(1, 2, 1)
    assert sorted(request.id for request in queue.clear()) == [0, 1, 2]
    assert len(queue) == 0
