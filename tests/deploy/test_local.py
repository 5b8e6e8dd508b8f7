from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

import dask
import psutil
import pytest
from distributed import Client
from distributed.deploy.spec import SpecCluster
from distributed.security import Security

from mlipcluster.deploy import local
from mlipcluster.deploy.local import THREAD_VARIABLES, Local, local_cluster
from mlipcluster.errors import InputError


def gone(pids):
    for _ in range(900):
        if not any(psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE for p in pids):
            return True
        time.sleep(0.1)
    return False


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    log = tmp_path_factory.mktemp("local") / "workers.log"
    with local_cluster(2, threads=3, log=log) as cluster, Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=180)
        yield cluster, client, log


def test_workers_are_processes_with_one_thread_each(two):
    cluster, client, _ = two
    assert isinstance(cluster, SpecCluster)
    assert list(client.nthreads().values()) == [1, 1]
    pids = set(client.run(os.getpid).values())
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_their_arithmetic_has_as_many_threads_as_was_said(two):
    _, client, _ = two
    told = client.run(lambda: {name: os.environ.get(name) for name in THREAD_VARIABLES})
    assert all(variables == dict.fromkeys(THREAD_VARIABLES, "3") for variables in told.values())


def test_what_they_say_goes_to_the_log(two):
    _, client, log = two
    client.run(lambda: print("from a worker", flush=True))
    assert "from a worker" in log.read_text()


def test_nothing_listens_beyond_this_machine(two):
    cluster, client, _ = two
    assert cluster.scheduler_address.startswith("tcp://127.0.0.1:")
    assert all(address.startswith("tcp://127.0.0.1:") for address in client.nthreads())
    assert cluster.dashboard_link.startswith("http://localhost:")


def test_a_worker_that_dies_is_replaced(two):
    _, client, _ = two
    before = client.run(os.getpid)
    victim = next(iter(before.values()))
    os.kill(victim, 9)
    for _ in range(900):
        now = set(client.run(os.getpid, on_error="ignore").values())
        if len(now) == 2 and victim not in now:
            break
        time.sleep(0.1)
    assert len(now) == 2
    assert victim not in now


def test_a_worker_whose_nanny_dies_is_replaced(two):
    cluster, client, _ = two
    victim = next(iter(cluster.workers.values())).process.pid
    os.kill(victim, 9)
    before = set(client.run(os.getpid, on_error="ignore"))
    assert gone([victim])
    for _ in range(900):
        now = set(client.run(os.getpid, on_error="ignore"))
        if len(now) == 2 and now != before:
            break
        time.sleep(0.1)
    assert len(now) == 2
    assert victim not in {worker.process.pid for worker in cluster.workers.values()}
    assert not any(worker.gave_up for worker in cluster.workers.values())


def test_workers_default_to_the_processor_cores(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 5)
    assert Local().most == 5
    assert Local(2).most == 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_workers": 0}, "max_workers=0: give a whole number, 1 or more"),
        ({"max_workers": 2.0}, "max_workers=2.0"),
        ({"min_workers": -1}, "min_workers=-1"),
        ({"cores": True}, "cores=True"),
        ({"min_workers": 3, "max_workers": 2}, "min_workers=3 is more than max_workers=2"),
    ],
)
def test_numbers_that_cannot_be_meant(fields, words):
    with pytest.raises(InputError, match=words):
        Local(**fields)


def test_workers_that_end_at_once_are_given_up(monkeypatch, tmp_path):
    monkeypatch.setattr(local, "python_command", lambda *_: [sys.executable, "-c", "import no_such_module"])
    log = tmp_path / "workers.log"
    with local_cluster(1, log=log) as cluster:
        (worker,) = cluster.workers.values()
        for _ in range(900):
            if worker.gave_up:
                break
            time.sleep(0.1)
        assert worker.gave_up
    assert log.read_text().count("no_such_module") == local.EARLY_DEATHS


def test_a_worker_for_which_there_is_no_room_is_given_up(monkeypatch):
    with local_cluster(1) as cluster:
        (worker,) = cluster.workers.values()
        monkeypatch.setattr(local, "python_command", lambda *_: ["/no/such/program"])  # as when no process can be made
        os.kill(worker.process.pid, 9)
        for _ in range(900):
            if worker.gave_up:
                break
            time.sleep(0.1)
        assert worker.gave_up


def test_workers_find_what_the_driver_finds_and_nothing_else(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "random.py").write_text("raise ImportError('not the one that is meant')\n")
    (tmp_path / "beside.py").write_text("WIDTH = 3\n")
    script = tmp_path / "script.py"
    script.write_text(
        "from ase.build import bulk\nfrom mlipcluster import MLIPCluster\n"
        "def protocol(atoms):\n    import beside\n    atoms.info['width'] = beside.WIDTH\n    return atoms\n"
        "run = MLIPCluster(bulk('Cu'), output_path='run', max_workers=1, progress=False)\n"
        "print(run.distribute(protocol).outputs[0].scores['width'])\n"
    )
    ended = subprocess.run(
        [sys.executable, script], cwd=tmp_path / "here", check=False, capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stdout) == (0, "3\n"), ended.stderr


def test_with_tls_nobody_without_the_key_gets_in(place):
    with local_cluster(1, security=Security.temporary(), private=place.private) as cluster:
        assert cluster.scheduler_address.startswith("tls://127.0.0.1")
        with Client(cluster, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=180)
            assert client.submit(sum, [1, 2]).result() == 3
        plain = cluster.scheduler_address.replace("tls://", "tcp://")
        with pytest.raises((OSError, TimeoutError, RuntimeError)):
            Client(plain, timeout=2, set_as_default=False)


SCRIPT = """
import os, sys, time
from mlipcluster.deploy import local
from mlipcluster.deploy.local import local_cluster
from distributed import Client
cluster = local_cluster(2)
client = Client(cluster)
client.wait_for_workers(2, timeout=180)
print(*client.run(os.getpid).values(), flush=True)
if sys.argv[1] == "close":
    client.close()
    cluster.close()
if sys.argv[1] == "hang":
    time.sleep(600)
"""


@pytest.mark.parametrize("how", ["close", "leave", "kill"])
def test_workers_end_with_the_script_that_started_them(how, tmp_path):
    """A script without ``if __name__ == "__main__"``, however it ends."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, script, "hang" if how == "kill" else how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        pids += [
            parent.pid for pid in pids for parent in psutil.Process(pid).parents() if parent.pid not in (1, os.getpid())
        ]
        pids = [pid for pid in set(pids) if pid != process.pid and psutil.Process(pid).ppid() != os.getppid()]
        if how == "kill":
            process.kill()
    assert process.returncode == (-9 if how == "kill" else 0)
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    assert gone(set(pids) - own)


def test_the_number_of_workers_may_follow_the_work():
    with local_cluster(2, minimum=0) as cluster, Client(cluster, set_as_default=False) as client:
        assert client.submit(sum, [1, 2]).result(timeout=180) == 3


def test_nothing_of_theirs_is_left(place, monkeypatch, tmp_path):
    above = tmp_path / "above"
    monkeypatch.setattr("tempfile.tempdir", str(above))
    crew = Local(max_workers=1).start(place)
    try:
        crew.client.wait_for_workers(1, timeout=180)
        crew.client.run(lambda: open(os.path.join(tempfile.mkdtemp(dir=scratch()), "left"), "w").close())
        assert len(list(above.rglob("left"))) == 1
    finally:
        crew.close()
    assert list(above.glob("mlipcluster*")) == list(above.rglob("left")) == []


def scratch():
    return dask.config.get("temporary-directory")


def test_what_ends_by_itself_while_a_cluster_is_closed_is_no_error(monkeypatch):
    seen, kill = [], psutil.Process.kill

    def kill_late(process):
        seen.append(process)
        kill(process)
        if len(seen) == 1:
            raise psutil.NoSuchProcess(process.pid)

    with local_cluster(1) as cluster, Client(cluster) as client:
        client.wait_for_workers(1)
        monkeypatch.setattr(psutil.Process, "kill", kill_late)
    assert len(seen) > 1
