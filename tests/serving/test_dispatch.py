"""The state machine that shares out work: whatever happens, in whatever order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mlipcluster.serving.deaths import MAX_DEATHS
from mlipcluster.serving.dispatch import (
    PRESSED_SECONDS,
    RETRY_SECONDS,
    STARVED_SECONDS,
    Dispatch,
    End,
    Give,
    Limits,
    Refuse,
    Start,
)
from mlipcluster.serving.fair_queue import Request
from mlipcluster.serving.pools import BUSY, IDLE, STARTING

FRAME = b"x" * 64


def request(number, client=1, name="a", frame=None):
    return Request(client, number, name, bytearray(frame or number.to_bytes(64, "little")), 0.0)


def only(kind, instructions):
    return [one for one in instructions if isinstance(one, kind)]


def started(dispatch, now=0.0, name="a"):
    """A pool with one idle worker; its number."""
    (start,) = only(Start, dispatch.request(now, request(1000, client=99, name=name)))
    dispatch.ready(now, start.worker)
    dispatch.answered(now, start.worker)
    return start.worker


def test_the_first_request_starts_a_worker_and_is_given_to_it():
    dispatch = Dispatch(Limits())
    (start,) = dispatch.request(0.0, asked := request(1))
    assert start == Start(start.worker, "a")
    assert dispatch.ready(1.0, start.worker) == [Give(start.worker, asked)]
    assert dispatch.answered(2.0, start.worker) == []
    assert dispatch.workers[start.worker].state == IDLE
    assert dispatch.pools["a"].seconds == 1.0


def test_what_is_no_calculation_counts_as_no_call():
    dispatch = Dispatch(Limits())
    worker = started(dispatch)
    calls = dispatch.workers[worker].calls
    question = Request(1, 1, "a", bytearray(FRAME), is_calculation=False)
    assert only(Give, dispatch.request(1.0, question))
    dispatch.answered(9.0, worker)
    assert (dispatch.workers[worker].calls, dispatch.pools["a"].calls) == (calls, calls)


def test_more_workers_start_when_requests_wait_without_a_break():
    dispatch = Dispatch(Limits(max_workers=3))
    worker = started(dispatch)
    assert only(Give, dispatch.request(0.0, request(1)))[0].worker == worker
    assert dispatch.request(0.0, request(2, client=2)) == []
    assert dispatch.tick(PRESSED_SECONDS / 2) == []
    assert len(only(Start, dispatch.tick(PRESSED_SECONDS))) == 1
    assert only(Start, dispatch.tick(2 * PRESSED_SECONDS)) == []  # one is under way, and one request waits


def test_the_least_recently_used_is_next():
    dispatch = Dispatch(Limits(max_workers=2))
    first = started(dispatch)
    second = dispatch.joined(0.5, "a")
    dispatch.ready(0.5, second)
    (give,) = dispatch.request(1.0, request(1))
    assert give.worker == first
    dispatch.answered(2.0, first)
    (give,) = dispatch.request(3.0, request(2))
    assert give.worker == second


def test_the_idle_clock_starts_when_work_ends():
    dispatch = Dispatch(Limits(idle_timeout=10.0))
    worker = started(dispatch)
    dispatch.request(9.0, request(1))
    assert dispatch.tick(50.0) == []  # it works
    dispatch.answered(60.0, worker)
    assert dispatch.tick(69.0) == []
    assert dispatch.tick(70.0) == [End(worker)]
    assert dispatch.gone(70.0, worker) == []
    assert dispatch.workers == {}


def test_a_death_is_tried_again_and_too_many_are_an_error():
    dispatch = Dispatch(Limits())
    worker = started(dispatch)
    dispatch.request(0.0, asked := request(1, frame=FRAME))
    for _ in range(MAX_DEATHS - 1):
        (start,) = dispatch.died(1.0, worker, "signal SIGSEGV")
        worker = start.worker
        assert dispatch.ready(1.0, worker) == [Give(worker, asked)]
    (refused,) = dispatch.died(1.0, worker, "signal SIGSEGV")
    assert (refused.request, refused.error) == (asked, "WorkerDiedError")
    assert "SIGSEGV" in refused.message
    (again,) = dispatch.request(2.0, request(7, client=3, frame=FRAME[:24] + b"12345678" + FRAME[32:]))
    assert isinstance(again, Refuse)  # another id, the same input
    assert only(Start, dispatch.request(2.0, request(8)))


def test_an_answer_clears_what_deaths_came_before():
    dispatch = Dispatch(Limits())
    worker = started(dispatch)
    for _ in range(3 * MAX_DEATHS):
        dispatch.request(0.0, request(1, frame=FRAME))
        (start,) = dispatch.died(1.0, worker, "signal SIGKILL")
        assert only(Give, dispatch.ready(1.0, start.worker))
        dispatch.answered(1.0, start.worker)
        worker = start.worker


def test_a_start_that_fails_refuses_those_who_wait_unless_there_are_others():
    dispatch = Dispatch(Limits(max_workers=2))
    (start,) = dispatch.request(0.0, asked := request(1))
    assert dispatch.start_failed(1.0, start.worker, "CalculatorStartError", "why") == [
        Refuse(asked, "CalculatorStartError", "why")
    ]
    worker = started(dispatch)
    dispatch.request(2.0, request(2))
    dispatch.request(2.0, request(3, client=2))
    (start,) = only(Start, dispatch.tick(3.0))
    assert dispatch.start_failed(3.0, start.worker, "CalculatorStartError", "why") != [worker]
    assert only(Give, dispatch.answered(4.0, worker))


def test_room_is_made_by_who_was_idle_longest():
    dispatch = Dispatch(Limits(max_workers=2))
    first, second = started(dispatch, 0.0, "a"), started(dispatch, 1.0, "b")
    assert dispatch.request(2.0, request(1, name="c")) == [End(first)]
    assert dispatch.tick(3.0) == []  # it is under way
    (start,) = dispatch.gone(4.0, first)
    assert start.name == "c"
    assert dispatch.workers[second].state == IDLE


def test_room_is_made_by_who_is_busy_after_a_while_and_its_call_is_finished():
    dispatch = Dispatch(Limits(max_workers=1))
    worker = started(dispatch)
    dispatch.request(0.0, request(1))
    other = request(2, client=2, name="b")
    other.arrived = 0.0
    assert dispatch.request(0.0, other) == []
    assert dispatch.tick(STARVED_SECONDS - 1) == []
    assert dispatch.tick(STARVED_SECONDS) == [End(worker)]
    assert dispatch.answered(6.0, worker) == []
    (start,) = dispatch.gone(7.0, worker)
    assert start.name == "b"


def waiting(number, client, name="a", arrived=0.0):
    found = request(number, client, name)
    found.arrived = arrived
    return found


def test_calculators_take_turns_in_the_room_that_is_made():
    """However many ask for the one that has it."""
    dispatch, names, now = Dispatch(Limits(max_workers=1)), [], 0.0
    for client in range(1, 4):
        dispatch.request(now, waiting(client, client, "a"))
    for client in range(4, 6):
        dispatch.request(now, waiting(client, client, "b"))
    (worker,) = dispatch.workers
    for number in range(6, 12):
        name = dispatch.workers[worker].name
        names.append(name)
        told = dispatch.ready(now, worker)
        now += STARVED_SECONDS + 1.0
        assert End(worker) in [*told, *dispatch.tick(now)]
        dispatch.request(now, waiting(number, number, name, now))  # its clients never stop asking
        dispatch.answered(now, worker)
        (start,) = only(Start, dispatch.gone(now, worker))
        worker = start.worker
    assert names == ["a", "b", "a", "b", "a", "b"]


def test_room_is_made_by_who_is_idle_while_another_finishes_a_long_call():
    dispatch = Dispatch(Limits(max_workers=2))
    first = started(dispatch)
    dispatch.request(0.0, request(1))
    dispatch.request(0.0, request(2, client=2))
    (start,) = only(Start, dispatch.tick(PRESSED_SECONDS))
    dispatch.ready(1.0, start.worker)
    dispatch.request(1.0, waiting(3, 3, "b", 1.0))
    assert dispatch.tick(1.0 + STARVED_SECONDS) == [End(first)]  # which takes an hour
    dispatch.answered(10.0, start.worker)
    assert dispatch.tick(10.1) == [End(start.worker)]
    (start,) = only(Start, dispatch.gone(10.2, start.worker))
    assert start.name == "b"


def test_the_end_refuses_what_waits_and_waits_for_what_runs():
    dispatch = Dispatch(Limits(max_workers=1))
    worker = started(dispatch)
    dispatch.request(0.0, request(1))
    dispatch.request(0.0, waiting := request(2, client=2))
    (refused,) = dispatch.stop(1.0)
    assert (refused.request, refused.error) == (waiting, "ServerGoneError")
    assert isinstance(dispatch.request(1.0, request(3))[0], Refuse)
    assert dispatch.answered(2.0, worker) == [End(worker)]


def test_a_call_is_given_up_after_its_time_also_of_a_worker_that_is_to_end():
    dispatch = Dispatch(Limits(max_workers=1))
    worker = started(dispatch)
    dispatch.workers[worker].call_timeout = 10.0
    dispatch.request(0.0, asked := request(1))
    dispatch.retired(5.0, worker)
    assert dispatch.tick(9.0) == []
    refused, end = dispatch.tick(10.5)
    assert (refused.request, refused.error, end) == (asked, "CallTimeoutError", End(worker, at_once=True))
    dispatch.gone(11.0, worker)
    assert dispatch.answered(12.0, worker) == []  # too late, and nobody's


def test_a_start_that_fails_while_the_last_worker_ends_is_told():
    dispatch = Dispatch(Limits(max_workers=2))
    worker = started(dispatch)
    dispatch.retired(0.0, worker)
    (start,) = dispatch.request(0.0, asked := request(1))
    assert dispatch.start_failed(0.0, start.worker, "CalculatorStartError", "why") == [
        Refuse(asked, "CalculatorStartError", "why")
    ]


def test_who_joined_by_itself_is_not_ended_with_the_server():
    dispatch = Dispatch(Limits())
    dispatch.ready(0.0, by_hand := dispatch.joined(0.0, "a"))
    assert dispatch.stop(1.0) == []
    assert not dispatch.has_work
    assert dispatch.workers[by_hand].state == IDLE


class Anything(RuleBasedStateMachine):
    """Events in any order; each request gets exactly one end."""

    def __init__(self):
        super().__init__()
        self.dispatch = Dispatch(Limits(max_workers=2, idle_timeout=5.0))
        self.now = 0.0
        self.asked, self.given, self.ended, self.ids = {}, {}, set(), 0

    def carry_out(self, instructions):
        for one in instructions:
            if isinstance(one, Give):
                assert one.worker not in self.given
                assert one.request.id not in self.ended
                assert not one.request.withdrawn
                self.given[one.worker] = one.request
            elif isinstance(one, Refuse):
                self.end(one.request)

    def end(self, done):
        assert done.id not in self.ended
        self.ended.add(done.id)

    def in_state(self, *states):
        return [number for number, worker in self.dispatch.workers.items() if worker.state in states]

    @rule(client=st.integers(1, 3), name=st.sampled_from("ab"), same=st.booleans())
    def request(self, client, name, same):
        self.ids += 1
        asked = request(self.ids, client, name, FRAME if same else None)
        asked.arrived = self.now
        self.asked[self.ids] = asked
        self.carry_out(self.dispatch.request(self.now, asked))

    @rule(seconds=st.floats(0.01, 4.0))
    def time_passes(self, seconds):
        self.now += seconds
        self.carry_out(self.dispatch.tick(self.now))

    @precondition(lambda self: self.in_state(STARTING))
    @rule(data=st.data(), fine=st.booleans())
    def starts(self, data, fine):
        worker = data.draw(st.sampled_from(self.in_state(STARTING)))
        if fine:
            self.carry_out(self.dispatch.ready(self.now, worker))
        else:
            self.carry_out(self.dispatch.start_failed(self.now, worker, "CalculatorStartError", "why"))

    @rule(name=st.sampled_from("ab"))
    def joins(self, name):
        self.carry_out(self.dispatch.ready(self.now, self.dispatch.joined(self.now, name)))

    @precondition(lambda self: self.given)
    @rule(data=st.data(), fine=st.booleans())
    def works(self, data, fine):
        worker = data.draw(st.sampled_from(sorted(self.given)))
        done = self.given.pop(worker)
        if fine:
            if not done.withdrawn:
                self.end(done)
            self.carry_out(self.dispatch.answered(self.now, worker))
        else:
            self.carry_out(self.dispatch.died(self.now, worker, "signal SIGKILL"))

    @precondition(lambda self: self.in_state("ending", IDLE))
    @rule(data=st.data())
    def is_gone(self, data):
        worker = data.draw(st.sampled_from(self.in_state("ending", IDLE)))
        if worker not in self.given:
            self.carry_out(self.dispatch.gone(self.now, worker))

    @rule(client=st.integers(1, 3))
    def goes_away(self, client):
        self.dispatch.withdrawn(client)
        for asked in self.asked.values():
            if asked.client == client and asked.id not in self.ended:
                asked.withdrawn = True
                self.ended.add(asked.id)

    @invariant()
    def nobody_waits_while_a_worker_is_free(self):
        for pool in self.dispatch.pools.values():
            assert not (pool.waiting and pool.idle)

    @invariant()
    def no_more_than_allowed(self):
        assert sum(worker.ours for worker in self.dispatch.workers.values()) <= 2

    @invariant()
    def every_request_is_somewhere(self):
        waiting = sum(len(pool.waiting) for pool in self.dispatch.pools.values())
        at_work = sum(not done.withdrawn for done in self.given.values())
        assert len(self.ended) + waiting + at_work == len(self.asked)

    @invariant()
    def books_agree(self):
        assert sorted(self.given) == sorted(
            number for number, worker in self.dispatch.workers.items() if worker.request is not None
        )
        for number in self.in_state(BUSY):
            assert number in self.given


Anything.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestAnything = Anything.TestCase


def test_a_start_that_failed_is_not_tried_again_at_once_while_others_are_there():
    dispatch = Dispatch(Limits(max_workers=3))
    worker = started(dispatch)
    dispatch.request(0.0, request(1))
    dispatch.request(0.0, request(2, client=2))
    (start,) = only(Start, dispatch.tick(PRESSED_SECONDS))
    assert dispatch.start_failed(1.0, start.worker, "CalculatorStartError", "no memory left") == []
    assert only(Start, dispatch.tick(1.0 + RETRY_SECONDS / 2)) == []
    assert len(only(Start, dispatch.tick(1.0 + RETRY_SECONDS))) == 1
    (give,) = dispatch.answered(20.0, worker)
    assert give.request.id == 2


def test_a_start_that_failed_is_tried_again_at_once_when_nobody_is_there():
    dispatch = Dispatch(Limits())
    (start,) = dispatch.request(0.0, request(1))
    assert len(only(Refuse, dispatch.start_failed(0.0, start.worker, "CalculatorStartError", "no"))) == 1
    assert len(only(Start, dispatch.request(0.0, request(2)))) == 1


def test_a_start_that_is_said_to_have_failed_when_it_works_loses_no_request():
    dispatch = Dispatch(Limits())
    (start,) = dispatch.request(0.0, asked := request(1))
    dispatch.ready(0.0, start.worker)
    (again,) = only(Start, dispatch.start_failed(1.0, start.worker, "CalculatorStartError", "its command ended"))
    assert dispatch.ready(2.0, again.worker) == [Give(again.worker, asked)]


def test_what_is_left_to_others_is_waited_for():
    others = {"a"}
    dispatch = Dispatch(Limits(), others.__contains__)
    assert dispatch.request(0.0, asked := request(1)) == []
    assert dispatch.tick(1000.0) == []
    worker = dispatch.joined(1000.0, "a")
    assert dispatch.ready(1000.0, worker) == [Give(worker, asked)]
    dispatch.request(1000.0, request(2))
    dispatch.died(1001.0, worker, "signal SIGKILL")
    others.clear()
    assert only(Start, dispatch.tick(1002.0))  # of which the server knows why it cannot be
