from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mlipcluster.checkpoint import needed
from mlipcluster.durations import Durations
from mlipcluster.schedule import (
    CHUNKS_A_SLOT,
    LARGEST_CHUNK,
    LONG_SECONDS,
    LOST_AT_MOST,
    OUTLASTED_AT_MOST,
    TARGET_SECONDS,
    Loss,
    Schedule,
    Step,
)


def drained(schedule):
    chunks = []
    while (chunk := schedule.take()) is not None:
        chunks.append(chunk)
    return chunks


class Driver(RuleBasedStateMachine):
    """A driver that hands in tasks, takes chunks and tells what became of them, in any order."""

    @initialize(data=st.data())
    def begin(self, data):
        clients = data.draw(st.integers(1, 3))
        self.slots = data.draw(st.lists(st.integers(1, 4), min_size=clients, max_size=clients))
        steps = [
            Step(priority=data.draw(st.none() | st.integers(-2, 2)), client=data.draw(st.integers(0, clients - 1)))
            for _ in range(data.draw(st.integers(1, 3)))
        ]
        self.schedule = Schedule(steps, self.slots)
        self.flying = {}
        self.here = Counter()
        self.added = 0
        self.over = 0
        self.lost = Counter()
        for step in range(len(steps)):  # the sizes that quick calls grow to, 4 or 16, are where most can go wrong
            for _ in range(data.draw(st.integers(0, 2))):
                self.schedule.add(step, None)
                self.schedule.finished(self.schedule.take().number, 1e-6)

    def add(self, step):
        item = (step, self.added)
        self.added += 1
        self.here[item] += 1
        self.schedule.add(step, item)

    @rule()
    def read_tasks(self):
        for _ in range(1000):
            if not self.schedule.hungry:
                return
            self.add(0)
        raise AssertionError("never satisfied")

    @rule()
    def run_out_of_tasks(self):
        self.schedule.exhausted = True

    @rule()
    def take(self):
        before = {number: chunk.step for number, chunk in self.flying.items()}
        chunk = self.schedule.take()
        if chunk is None:
            for step, _ in self.here:
                assert self.room(step, before) <= 0, "a worker is left idle"
            return
        assert chunk.number not in self.flying
        assert 1 <= len(chunk.items) <= LARGEST_CHUNK
        assert all(item[0] == chunk.step for item in chunk.items)
        assert self.room(chunk.step, before) > 0, "more in flight than the window holds"
        better = [s for s, _ in self.here if self.room(s, before) > 0]
        assert self.schedule.priority(chunk.step) == max(map(self.schedule.priority, better))
        if any(self.lost[item] for item in chunk.items):
            assert len(chunk.items) == 1, "a call that may end workers is not alone"
        self.here -= Counter(chunk.items)
        self.flying[chunk.number] = chunk

    def room(self, step, flying):
        client = self.schedule.steps[step].client
        used = sum(self.schedule.steps[s].client == client for s in flying.values())
        return CHUNKS_A_SLOT * self.slots[client] - used

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), seconds=st.sampled_from([0.0, 1e-9, 0.001, 0.3, 20.0, 1e6]), children=st.integers(0, 5))
    def finish(self, data, seconds, children):
        chunk = self.flying.pop(data.draw(st.sampled_from(sorted(self.flying))))
        self.schedule.finished(chunk.number, seconds)
        self.over += len(chunk.items)
        if chunk.step + 1 < len(self.schedule.steps):
            for _ in range(children):
                self.add(chunk.step + 1)

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def lose(self, data):
        chunk = self.flying.pop(data.draw(st.sampled_from(sorted(self.flying))))
        hopeless = self.schedule.lost(chunk.number)
        self.lost.update(chunk.items)
        assert set(hopeless) <= set(chunk.items)
        if hopeless:
            assert len(chunk.items) == 1
            assert self.lost[chunk.items[0]] >= LOST_AT_MOST
        elif len(chunk.items) == 1:
            assert self.lost[chunk.items[0]] < LOST_AT_MOST
        self.over += len(hopeless)
        self.here += Counter(set(chunk.items) - set(hopeless))

    @rule(data=st.data())
    def workers_come_and_go(self, data):
        client = data.draw(st.integers(0, len(self.slots) - 1))
        count = data.draw(st.integers(0, 4))
        self.schedule.set_slots(client, count)
        self.slots[client] = max(1, count)

    @invariant()
    def nothing_is_lost_or_doubled(self):
        if not hasattr(self, "schedule"):
            return
        flying = [item for chunk in self.flying.values() for item in chunk.items]
        assert len(set(flying)) == len(flying) == self.schedule.flying
        assert sum(self.here.values()) == self.schedule.waiting
        assert self.added == len(flying) + sum(self.here.values()) + self.over
        assert self.schedule.idle == (not flying and not self.here)

    def teardown(self):
        """From wherever it stands, the driver comes to an end."""
        if not hasattr(self, "schedule"):
            return
        self.schedule.exhausted = True
        for _ in range(10_000):
            self.take()
            if not self.flying:
                break
            self.schedule.finished(next(iter(self.flying)), 0.1)
            self.over += len(self.flying.pop(next(iter(self.flying))).items)
        assert self.schedule.idle


TestSchedule = Driver.TestCase
TestSchedule.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_chunks_grow_until_one_takes_about_the_target():
    schedule = Schedule([Step()], [1])
    sizes = []
    for _ in range(8):
        while schedule.hungry:
            schedule.add(0, "call")
        chunk = schedule.take()
        sizes.append(len(chunk.items))
        schedule.finished(chunk.number, len(chunk.items) * TARGET_SECONDS / 100)
    assert sizes[0] == 1
    assert all(b <= 4 * a for a, b in itertools.pairwise(sizes))
    assert sizes[-1] in (99, 100)


def test_chunks_of_slow_calls_stay_single():
    schedule = Schedule([Step()], [1])
    schedule.add(0, "call")
    schedule.finished(schedule.take().number, 100.0)
    for _ in range(5):
        schedule.add(0, "call")
    assert [len(c.items) for c in drained(schedule)] == [1, 1]


def test_the_last_calls_are_shared_among_the_workers():
    schedule = Schedule([Step()], [4])
    schedule.add(0, 0)
    schedule.finished(schedule.take().number, 1e-6)
    schedule.add(0, 0)
    schedule.finished(schedule.take().number, 1e-6)
    for number in range(8):
        schedule.add(0, number)
    schedule.exhausted = True
    assert [len(c.items) for c in drained(schedule)] == [2, 2, 1, 1, 1, 1]


def test_how_much_is_ready_does_not_matter_to_what_a_chunk_costs(monkeypatch):
    """One call may give a hundred thousand structures."""
    looked = []
    monkeypatch.setattr(Durations, "mean", lambda *_: looked.append(1) or 1.0)
    schedule = Schedule([Step(), Step()], [4])
    schedule.add(1, 0)
    schedule.finished(schedule.take().number, 1.0)
    for number in range(1000):
        schedule.add(1, number)
    assert [len(c.items) for c in drained(schedule)] == [1] * 8
    assert len(looked) <= 8 * 10


def test_later_protocols_go_first_unless_the_user_says_otherwise():
    for priorities, expected in (((None, None), [1, 0]), ((5, None), [0, 1]), ((None, -1), [0, 1])):
        schedule = Schedule([Step(priority=p) for p in priorities], [1])
        schedule.add(0, "first")
        schedule.add(1, "second")
        assert [chunk.step for chunk in drained(schedule)] == expected


def test_a_slow_second_client_holds_the_first_back():
    """What waits for it stays bounded, however many tasks there are."""
    schedule = Schedule([Step(client=0), Step(client=1)], [1, 1])
    longest = 0
    for _ in range(200):
        while schedule.hungry:
            schedule.add(0, "task")
        for chunk in drained(schedule):
            if chunk.step == 0:
                schedule.finished(chunk.number, 1e-3)
                for _ in chunk.items:
                    schedule.add(1, "child")
        longest = max(longest, schedule.waiting)
    assert longest < 2 * LARGEST_CHUNK
    assert schedule.flying == CHUNKS_A_SLOT


# --- workers that end ------------------------------------------------------------------------------------------------


def one_ready(size=1, **options):
    schedule = Schedule([Step()], [1], **options)
    schedule.add(0, "call", size)
    return schedule


def test_mixed_sizes_make_even_chunks():
    schedule = Schedule([Step()], [2])
    for size, seconds in ((4, 0.01), (64, 0.3)):
        for _ in range(6):
            schedule.add(0, None, size)
            schedule.finished(schedule.take().number, seconds)
    for n in range(40):
        schedule.add(0, n, 64 if n % 10 == 0 else 4)
    expected = {0: 0.3, 1: 0.01}
    sums = [sum(expected[n % 10 > 0] for n in chunk.items) for chunk in drained(schedule)]
    assert sums
    assert all(0.25 < each <= TARGET_SECONDS + 1e-6 for each in sums)


def test_what_a_call_needs_is_learned_by_its_size():
    schedule = one_ready()
    assert schedule.take().needs == (0.0,)
    schedule.finished(1, 8.0)
    schedule.add(0, "call", 1)
    schedule.add(0, "call", 4)
    assert [chunk.needs[0] for chunk in drained(schedule)] == pytest.approx([10.0, 40.0])


def test_the_demand_tells_what_the_shortest_call_that_was_submitted_needs():
    schedule = Schedule([Step(), Step(client=1)], [2, 1])
    assert schedule.demands(0.0)[0].need == 0.0
    for size in (1, 4):
        schedule.add(0, "call", size)
        schedule.finished(schedule.take().number, 8.0 * size)
    for step, size in ((0, 4), (0, 1), (1, 1)):
        schedule.add(step, "call", size)
    assert schedule.demands(0.0)[0].need == 0.0
    schedule.take()
    schedule.take()
    assert [demand.need for demand in schedule.demands(0.0)] == pytest.approx([40.0, 0.0])
    drained(schedule)
    assert [demand.need for demand in schedule.demands(0.0)] == pytest.approx([10.0, 0.0])


def test_a_call_that_saves_itself_needs_only_to_reach_a_save():
    schedule = one_ready()
    schedule.strode(0, 1, 2.0)
    (need,) = schedule.take().needs
    assert need == pytest.approx(needed(2.0 * 1.25))
    schedule.finished(1, 0.5)
    schedule.add(0, "call", 1)
    assert schedule.take().needs[0] < 1, "unless it takes less altogether"


def test_long_calls_do_not_wait_at_workers_that_end():
    for timed, flying in ((), CHUNKS_A_SLOT), ((0,), 1):
        schedule = one_ready(timed=timed)
        schedule.take()
        schedule.finished(1, 2 * LONG_SECONDS)
        for _ in range(5):
            schedule.add(0, "call", 1)
        assert len(drained(schedule)) == flying


def test_what_was_not_begun_and_what_goes_on_come_first():
    schedule = one_ready()
    schedule.take()
    schedule.finished(1, 1e-3)
    for n in range(6):
        schedule.add(0, n, 1)
    chunk = schedule.take()
    assert chunk.items == (0, 1, 2, 3)
    schedule.finished(chunk.number, 0.0, [1e-3, None])
    schedule.add_again(0, 1, 1)
    assert [item for c in drained(schedule) for item in c.items] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("step", [0, 1])
def test_who_waits_behind_a_call_that_ends_its_worker_is_not_judged_with_it(step):
    """A worker that is lost takes along what was queued at it, and Dask does not tell which of them it ran."""
    schedule = Schedule([Step(), Step()], [1])
    schedule.add(step, "ends its worker")
    schedule.add(0, "waits")
    judged = []
    while not schedule.idle:
        chunks = drained(schedule)
        for chunk in reversed(chunks):
            if any("ends its worker" in each.items for each in chunks):
                judged += schedule.lost(chunk.number)
            else:
                schedule.finished(chunk.number, 0.1)
    assert judged == ["ends its worker"]


def test_who_is_blameless_goes_to_a_fresh_worker_and_is_not_counted_as_lost():
    schedule = one_ready()
    for time in range(OUTLASTED_AT_MOST - 1):
        chunk = schedule.take()
        assert chunk.needs == (math.inf if time else 0.0,)
        assert schedule.lost(chunk.number, Loss(blameless=True)) == ()
    assert schedule.lost(schedule.take().number, Loss(blameless=True)) == ("call",), "but not for ever"
    assert schedule.idle


def test_who_had_a_whole_life_gets_no_other_unless_something_was_saved():
    schedule = one_ready()
    for _ in range(3 * OUTLASTED_AT_MOST):
        assert schedule.lost(schedule.take().number, Loss(blameless=True, saved={0}, whole_life=True)) == ()
    for _ in range(3 * LOST_AT_MOST):
        assert schedule.lost(schedule.take().number, Loss(saved={0})) == ()
    assert schedule.lost(schedule.take().number, Loss(blameless=True, whole_life=True)) == ("call",)


def test_siblings_of_what_outlasts_a_worker_are_not_judged_with_it():
    schedule = one_ready()
    schedule.take()
    schedule.finished(1, 1e-3)
    for n in range(4):
        schedule.add(0, n, 1)
    chunk = schedule.take()
    assert len(chunk.items) == 4
    assert schedule.lost(chunk.number, Loss(blameless=True, whole_life=True)) == ()
    assert [c.items for c in drained(schedule)] == [(0,), (1,)]
