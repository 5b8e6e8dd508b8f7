from __future__ import annotations

import hashlib
import math
import os
import pickle
import signal
import sys
import threading
import time
from dataclasses import replace

import cloudpickle
import pytest
from ase.build import bulk
from distributed import Client

from mlipcluster import MLIPCluster, transit
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.calls import Call, Job, TaskInfo
from mlipcluster.checkpoint import HOME_SECONDS
from mlipcluster.deploy.crew import Crew
from mlipcluster.deploy.deployment import Place
from mlipcluster.deploy.local import Local, local_cluster
from mlipcluster.errors import CalculatorStartError, InputError, RunError
from mlipcluster.options import Compute
from mlipcluster.schedule import Step
from mlipcluster.workers import LIFE_SHARE, Workers

pytestmark = pytest.mark.filterwarnings("ignore:.*uncommitted changes:UserWarning")

CU = bulk("Cu")


def same(atoms):
    return atoms


def slow(atoms):
    time.sleep(60)
    return atoms


def job(protocol, run="run"):
    blob = cloudpickle.dumps((protocol, None))
    return Job(run, blob, hashlib.sha256(blob).hexdigest(), {}, 7)


def calls(count=1):
    return tuple(Call(TaskInfo(f"{n:032x}", "task", 0, 0, (), "p"), pickle.dumps(CU), {}) for n in range(count))


@pytest.fixture
def place(tmp_path):
    return lambda number: Place("token", number, tmp_path / "logs", tmp_path / "private", tmp_path / "jobs.jsonl")


@pytest.fixture
def workers(client, place):
    workers = Workers([client], place)
    yield workers
    workers.close(abort=True)


def test_chunks_come_back(workers):
    for number in range(3):
        workers.submit(number, "same", Step(), 0, job(same), calls(2))
    came = {}
    while len(came) < 3:
        came.update({returned.number: returned.result for returned in workers.wait(30)})
    assert sorted(came) == [0, 1, 2]
    for result in came.values():
        assert [transit.unpack(packed).failure for packed in result.results] == [None, None]


def test_waiting_ends_when_nothing_comes(workers):
    assert list(workers.wait(0.01)) == []


def test_what_was_given_up_never_comes_back_as_something_else(workers):
    workers.submit(1, "slow", Step(), 0, job(slow, run="first"), calls())
    workers.close(abort=True)
    workers.submit(1, "same", Step(), 0, job(same, run="second"), calls())
    returned = []
    while not returned:
        returned = list(workers.wait(30))
    assert [r.number for r in returned] == [1]
    assert transit.unpack(returned[0].result.results[0]).failure is None


def test_slots_are_the_threads_of_ones_own_workers(workers, client):
    workers.start()
    assert workers.slots() == [sum(client.nthreads().values())]
    assert workers.slots_if_due() is not None
    assert workers.slots_if_due() is None  # too soon


def test_a_calculator_that_cannot_start_is_told_as_itself(workers):
    asking = Job.asking({"": CalculatorSpec("nowhere:Calculator")})
    with pytest.raises(CalculatorStartError, match="nowhere"):
        workers.introduce(asking, Step())


def brief(atoms):
    time.sleep(4)
    return atoms


def test_a_result_that_is_lost_with_its_worker_is_waited_for_without_holding_up_others(place, monkeypatch):
    monkeypatch.setattr("mlipcluster.workers.FETCH_SECONDS", 0.5)
    workers = Workers([Local(max_workers=1)], place)
    try:
        workers.submit(1, "brief", Step(), 0, job(brief), calls())
        (client,) = workers._clients
        client.wait_for_workers(1, timeout=60)
        pids = client.run(os.getpid)
        while not (has := client.run_on_scheduler(holders)):
            time.sleep(0.1)
        os.kill(pids[has[0]], signal.SIGKILL)
        came = [list(workers.wait(0.1)) for _ in range(3)]
        assert came == [[], [], []]
        while not (returned := list(workers.wait(1))):
            pass
        assert [one.number for one in returned] == [1]
        assert transit.unpack(returned[0].result.results[0]).failure is None
    finally:
        workers.close(abort=True)


def holders(dask_scheduler):
    """The workers that have a result."""
    return [worker.address for task in dask_scheduler.tasks.values() for worker in task.who_has or ()]


def test_what_dask_cannot_do_is_an_error_that_says_what_to_do(workers, monkeypatch):
    monkeypatch.setattr("mlipcluster.workers.run_chunk", lambda job, payload: 1 / 0)
    workers.submit(1, "broken", Step(), 0, job(same), calls())
    with pytest.raises(RunError, match=r"ZeroDivisionError.*run the same again to go on"):
        list(workers.wait(60))


@pytest.mark.parametrize("memory", ["lots", "4 Gib apples", 3.5j])
def test_memory_that_is_no_amount(memory):
    with pytest.raises(InputError, match="is not an amount"):
        Compute(memory=memory)


def test_workers_that_cannot_start_end_the_run_with_their_last_words(tmp_path, monkeypatch):
    code = "raise SystemExit('no license')"
    monkeypatch.setattr("mlipcluster.deploy.local.python_command", lambda *_: [sys.executable, "-c", code])
    run = MLIPCluster(CU, output_path=tmp_path / "run", max_workers=1, progress=False)
    with pytest.raises(RunError, match=r"(?s)end soon after each start.*no license.*run the same again"):
        run.distribute(same)


def test_a_client_that_was_closed_meanwhile_hides_no_error(tmp_path):
    with local_cluster(1) as cluster, Client(cluster, set_as_default=False) as client:
        run = MLIPCluster([CU] * 3, client=client, output_path=tmp_path / "run", progress=False)
        threading.Timer(4.0, client.close).start()
        with pytest.raises(RunError, match="run the same again to go on"):
            run.distribute(slow)


def test_nothing_is_started_before_it_is_needed(place):
    workers = Workers([Local(3)], place)
    assert (workers.count, workers.interpreters, workers.dashboard_links) == (1, [sys.executable], [])
    assert not place(0).logs.exists()
    workers.close()


def test_workers_of_ones_own_count_before_they_are_there(place):
    workers = Workers([Local(3), Local(2, min_workers=0)], place)
    assert workers.slots() == [1, 1]
    assert workers.dashboard_links == []
    workers.start()
    assert workers.slots() == [3, 2]
    assert len(workers.dashboard_links) == 2
    workers.close()


# --- several clients, and resources ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    log = tmp_path_factory.mktemp("second") / "workers.log"
    with local_cluster(1, log=log) as cluster, Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=60)
        yield client


def port(atoms):
    import os

    atoms.info.setdefault("parents", []).append(os.getppid())
    return atoms


def test_each_protocol_goes_to_its_client(client, second, tmp_path):
    import os

    cluster = MLIPCluster([CU] * 1, clients=[client, second], output_path=tmp_path / "run", progress=False)
    (output,) = cluster.distribute(port, port, port, clients_indices=[0, 1, 0])
    first, other = set(client.run(os.getpid).values()), set(second.run(os.getpid).values())
    parents = output.atoms.info["parents"]
    assert [p in first for p in parents] == [True, False, True]
    assert [p in other for p in parents] == [False, True, False]


def test_clients_are_numbered_from_nought(client, second, tmp_path):
    cluster = MLIPCluster([CU], clients=[client, second], output_path=tmp_path / "run", progress=False)
    with pytest.raises(InputError, match="clients_indices=2, but there are 2 clients"):
        cluster.distribute(same, clients_indices=2)


def test_resources_choose_the_worker(tmp_path):
    import os
    import subprocess
    import sys

    with local_cluster(1) as cluster, Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=60)
        ordinary = set(client.run(os.getpid).values())
        command = [sys.executable, "-m", "dask", "worker", cluster.scheduler_address, "--resources", "GPU=1"]
        with subprocess.Popen([*command, "--no-dashboard", "--nthreads", "1", "--no-nanny"]) as special:
            client.wait_for_workers(2, timeout=60)
            run = MLIPCluster([CU, bulk("Ag")], client=client, output_path=tmp_path / "run", progress=False)
            results = run.distribute(port, port, resources=[{"GPU": 1}, None])
            parents = [output.atoms.info["parents"] for output in results]
            assert all(chosen == special.pid for chosen, _ in parents)
            assert {other for _, other in parents} <= ordinary | {special.pid}
            special.terminate()


def test_priorities_reach_dask(workers, client):
    workers.submit(5, "slow", Step(priority=3), 3, job(slow, run="a"), calls())
    future = workers._futures[5]
    while future.key not in client.run_on_scheduler(lambda dask_scheduler: set(dask_scheduler.tasks)):
        time.sleep(0.05)
    priority = client.run_on_scheduler(lambda dask_scheduler, key: dask_scheduler.tasks[key].priority, key=future.key)
    assert priority[0] == -3


class TimedCrew(Crew):
    """Workers that say how long they will be there, of which the last was seen with *seconds* before it."""

    timed = True
    seconds = 100.0

    def resources(self):
        return [{"seconds": self.seconds}, {"GPU": 1.0}]


def test_no_more_is_asked_of_workers_than_a_fresh_one_has(workers, client, monkeypatch):
    workers.start()
    workers._crews[0] = TimedCrew(client)
    assert workers.affordable(0, 5.0) == 0.0, "none was seen yet"
    workers.slots()
    assert workers.timed == [0]
    assert workers.affordable(0, 50.0) == 50.0
    assert workers.affordable(0, 0.0) == HOME_SECONDS
    assert workers.affordable(0, math.inf) == workers.affordable(0, 1e6) == pytest.approx(LIFE_SHARE * 100.0)
    monkeypatch.setattr(TimedCrew, "seconds", 10.0)
    workers.slots()
    assert workers.life(0) == 100.0, "the longest of all counts: others come fresh"


def test_workers_whose_end_nobody_knows_are_asked_for_nothing(workers):
    workers.slots()
    assert workers.timed == []
    assert workers.affordable(0, 50.0) == 0.0
    assert workers.life(0) == math.inf


def telling(atoms, checkpoint):
    checkpoint.save(atoms, "here")
    time.sleep(600)


def test_workers_tell_what_calls_have_saved(workers):
    call = replace(calls()[0], slot="a slot")
    workers.submit(1, "telling", Step(), 0, job(telling, run="telling"), (call,))
    told = []
    for _ in range(600):
        workers.ask("telling", {})
        told += [running for _, running in workers.told()]
        if told and told[-1].saved is not None:
            break
        time.sleep(0.1)
    assert (told[-1].slot, told[-1].saved.number) == ("a slot", 1)
