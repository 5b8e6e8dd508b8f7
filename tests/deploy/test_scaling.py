from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlipcluster.deploy.deployment import Demand, Range
from mlipcluster.deploy.scaling import (
    DEATHS,
    LEAVING,
    PATIENCE,
    PENDING,
    STARTING,
    WORKING,
    JobView,
    Plan,
    Rules,
    Scaling,
)


def scaling(least=0, most=10, **rules):
    return Scaling(Rules(Range(least, most), **rules))


def jobs(**counts):
    return [JobView(f"{state}{i}", state) for state, count in counts.items() for i in range(count)]


@pytest.mark.parametrize(
    ("demand", "submitted"),
    [
        (Demand(0), 0),
        (Demand(1), 1),
        (Demand(7), 7),
        (Demand(math.inf), 10),
        (Demand(1000, 10.0), 1),  # not worth a second worker's start
        (Demand(1000, 95.0), 4),
        (Demand(2, 7200.0), 2),  # two calls cannot keep three workers at work
        (Demand(1000, 1e6), 10),
    ],
)
def test_as_many_workers_as_there_is_work_for(demand, submitted):
    assert scaling().plan(demand, [], 0.0).submit == submitted


def test_at_least_as_many_as_was_said_whatever_there_is_to_do():
    assert scaling(least=3).plan(Demand(), [], 0.0).submit == 3


def test_workers_come_in_whole_jobs_and_never_more_than_was_said():
    assert scaling(most=10, processes=4).plan(Demand(5), [], 0.0).submit == 2
    assert scaling(most=10, processes=4).plan(Demand(1000), [], 0.0).submit == 2
    assert scaling(most=3, processes=4).plan(Demand(1000), [], 0.0).submit == 1


def test_what_is_on_its_way_is_not_submitted_again():
    here = jobs(pending=2, starting=1, working=1)
    assert scaling().plan(Demand(7), here, 0.0).submit == 3


def test_what_leaves_is_replaced():
    assert scaling(most=2).plan(Demand(7), jobs(working=1, leaving=1), 0.0).submit == 1


def test_only_so_many_jobs_wait_at_a_time():
    limited = scaling(max_queued=3)
    assert limited.plan(Demand(10), [], 0.0).submit == 3
    assert limited.plan(Demand(10), jobs(pending=3), 0.0).submit == 0
    assert limited.plan(Demand(10), jobs(pending=1, working=4), 0.0).submit == 2


def test_a_job_is_replaced_before_its_end_by_as_much_as_a_start_takes():
    one = scaling(most=1, walltime=600.0)
    one.joined(40.0)
    assert one.plan(Demand(5), [JobView("a", WORKING, left=60.0)], 0.0).submit == 0
    assert one.plan(Demand(5), [JobView("a", WORKING, left=39.0)], 0.0).submit == 1
    assert one.plan(Demand(5), [JobView("a", WORKING, left=39.0), JobView("b", PENDING)], 0.0).submit == 0


def test_short_jobs_are_not_replaced_as_soon_as_they_begin():
    short = scaling(most=1, walltime=30.0)
    short.joined(300.0)
    assert short.lead == pytest.approx(10.0)


def test_no_replacement_for_what_the_job_will_still_do_itself():
    one = scaling(most=1, walltime=600.0)
    one.joined(40.0)
    ends = [JobView("a", WORKING, left=30.0)]
    assert one.plan(Demand(10, 20.0), ends, 0.0).submit == 0
    assert one.plan(Demand(10, 50.0), ends, 0.0).submit == 1
    assert one.plan(Demand(1, 50.0), ends, 0.0).submit == 1  # a call of 50 s does not fit


def test_jobs_that_wait_without_need_are_taken_back_after_a_while():
    calm = scaling()
    waits = jobs(pending=4)
    assert calm.plan(Demand(1), waits, 0.0).cancel == ()
    assert calm.plan(Demand(1), waits, PATIENCE - 1).cancel == ()
    assert len(calm.plan(Demand(1), waits, PATIENCE + 1).cancel) == 3


def test_a_moment_of_need_begins_the_while_anew():
    calm = scaling()
    waits = jobs(pending=4)
    calm.plan(Demand(1), waits, 0.0)
    calm.plan(Demand(4), waits, PATIENCE - 1)
    assert calm.plan(Demand(1), waits, PATIENCE + 1).cancel == ()


def test_only_idle_jobs_are_given_back_and_only_those_too_many():
    idle = [JobView("a", WORKING, idle=100.0), JobView("b", WORKING, idle=0.0), JobView("c", WORKING, idle=70.0)]
    assert scaling().plan(Demand(), idle, 0.0).retire == ("a", "c")
    assert scaling().plan(Demand(2), idle, 0.0).retire == ("a",)
    assert scaling().plan(Demand(3), idle, 0.0).retire == ()
    assert scaling(idle_timeout=80.0).plan(Demand(), idle, 0.0).retire == ("a",)


def test_what_waits_goes_before_what_is_idle():
    here = [JobView("a", WORKING, idle=100.0), JobView("b", PENDING)]
    plan = scaling().plan(Demand(1), here, 0.0)
    assert plan.retire == ()


def test_after_a_death_the_next_job_waits_longer_each_time():
    unlucky = scaling(most=1)
    unlucky.died(0.0)
    assert unlucky.plan(Demand(1), [], 1.0).submit == 0
    assert unlucky.plan(Demand(1), [], 2.0).submit == 1
    unlucky.died(2.0)
    assert unlucky.plan(Demand(1), [], 5.0).submit == 0
    assert unlucky.plan(Demand(1), [], 6.0).submit == 1


def test_after_so_many_deaths_it_is_hopeless_unless_one_worked_meanwhile():
    unlucky = scaling()
    for _ in range(DEATHS - 1):
        unlucky.died(0.0)
    unlucky.worked()
    unlucky.died(0.0)
    assert not unlucky.hopeless
    for _ in range(DEATHS - 1):
        unlucky.died(0.0)
    assert unlucky.hopeless
    assert unlucky.plan(Demand(5), [], 1e6).submit == 0


def test_a_queue_that_refuses_is_not_asked_at_once_again():
    full = scaling()
    full.refused(0.0)
    assert full.plan(Demand(5), jobs(working=1), 5.0).submit == 0
    assert full.plan(Demand(5), jobs(working=1), 40.0).submit == 4


demands = st.builds(Demand, st.integers(0, 50).map(float), st.none() | st.floats(0, 5000))
views = st.builds(
    JobView,
    st.uuids().map(str),
    st.sampled_from([PENDING, STARTING, WORKING, LEAVING]),
    st.floats(0, 200),
    st.floats(0, 1000),
)


@given(demands, st.lists(views, max_size=8), st.integers(0, 4), st.integers(0, 6), st.integers(1, 3))
def test_whatever_happens(demand, here, least, more, processes):
    rules = Rules(Range(least, max(1, least + more)), processes, 600.0)
    follows = Scaling(rules)
    follows.plan(demand, here, 0.0)
    plan = follows.plan(demand, here, PATIENCE + 1)
    by_tag = {job.tag: job for job in here}
    lasting = [job for job in here if job.state != LEAVING and not (job.state == WORKING and job.left <= follows.lead)]
    assert not (plan.submit and (plan.cancel or plan.retire)), "never both ways at once"
    assert len(lasting) + plan.submit <= max(len(lasting), 1, rules.workers.most // processes)
    assert all(by_tag[tag].state == PENDING for tag in plan.cancel)
    assert all(by_tag[tag].state == WORKING and by_tag[tag].idle >= rules.idle_timeout for tag in plan.retire)
    left = [job for job in here if job.state != LEAVING and job.tag not in (*plan.cancel, *plan.retire)]
    if plan.cancel or plan.retire:
        assert len(left) * processes >= min(least, processes * max(1, rules.workers.most // processes))


@given(st.lists(demands, min_size=5, max_size=60), st.integers(1, 3))
def test_a_twitching_demand_moves_nothing_back_and_forth(twitches, processes):
    """What was submitted is not taken back before it had its patience, and never submitted again meanwhile."""
    follows = Scaling(Rules(Range(0, 12), processes))
    here: list[JobView] = []
    for second, demand in enumerate(twitches):
        plan = follows.plan(demand, here, float(second) / 2)
        assert not plan.cancel
        assert not plan.retire
        here += [JobView(f"{second}-{i}", PENDING) for i in range(plan.submit)]
    assert len(here) <= max(1, 12 // processes)


def test_an_idle_job_with_too_little_time_for_what_is_to_do_is_replaced():
    hours = scaling(most=1, idle_timeout=60.0)
    for need in (21600.0, math.inf):
        demand = Demand(1, 21600.0, need)
        plan = hours.plan(demand, [JobView("a", WORKING, idle=60.0, left=7200.0)], 0.0)
        assert (plan.retire, plan.submit) == (("a",), 1)
        assert hours.plan(demand, [JobView("a", WORKING, idle=59.0, left=7200.0)], 0.0) == Plan()
        assert hours.plan(demand, [JobView("a", LEAVING, left=7200.0), JobView("b", PENDING)], 0.0) == Plan()
    assert hours.plan(Demand(1, 21600.0, 3600.0), [JobView("a", WORKING, idle=60.0, left=7200.0)], 0.0) == Plan()
