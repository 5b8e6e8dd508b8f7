"""``serve``, ``worker``, ``status`` and ``list --address``, with real processes and real signals."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from mlipcluster.errors import ServerGoneError
from mlipcluster.serving.asking import ask
from mlipcluster.serving.remote_calculator import RemoteCalculator

TABLE = """
import time
from ase.calculators.lj import LennardJones

class Slow(LennardJones):
    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds
    def calculate(self, *args, **kwargs):
        time.sleep(self.seconds)
        super().calculate(*args, **kwargs)

CALCULATORS = {
    "slow": {"factory": "registry:Slow", "args": [2.0]},
    "stuck": {"factory": "registry:Slow", "args": [3600.0]},
    "spawned": {"command": [PYTHON, "-m", "mlipcluster", "worker", "emt", "--name", "{name}", "--address", "{broker}"]},
    "slowly spawned": {"command": [PYTHON, "-m", "mlipcluster", "worker", "slow", "--calculators",
        "registry.py:CALCULATORS", "--name", "{name}", "--address", "{broker}"]},
    "fails": {"command": [PYTHON, "-c", "import sys; sys.exit('no such model')"]},
}
"""


def atoms():
    return bulk("Cu", cubic=True)


def right():
    here = atoms()
    here.calc = EMT()
    return here.get_potential_energy()


def wait(done, seconds=90.0):
    begun = time.monotonic()
    while not (found := done()):
        assert time.monotonic() - begun < seconds, f"not within {seconds} s"
        time.sleep(0.05)
    return found


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A project's folder, without settings of the user's."""
    for name in [*os.environ]:
        if name.startswith("MLIPCLUSTER_") and "TEST" not in name:
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "registry.py").write_text(TABLE.replace("PYTHON", repr(sys.executable)))
    return tmp_path


class Process:
    """A command that runs, and what it said so far."""

    def __init__(self, *arguments):
        command = [sys.executable, "-m", "mlipcluster", *map(str, arguments)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.said = []
        self._reader = threading.Thread(target=lambda: self.said.extend(iter(self.process.stderr.readline, "")))
        self._reader.start()

    def text(self):
        return "".join(self.said)

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def ended(self):
        status = self.process.wait(60)
        self._reader.join(60)
        return status

    def close(self):
        """In order, for who is killed leaves to others what it had commands start."""
        for end in (self.process.terminate, self.process.terminate, self.process.kill):
            with contextlib.suppress(subprocess.TimeoutExpired):
                end()
                self.process.wait(5)
        self._reader.join()
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def run(own):
    started = []

    def start(*arguments):
        started.append(Process(*arguments))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def served(run, own):
    """A server by command, which listens: ``served("emt", …)``; its process, and all that it started at last."""

    def start(*arguments):
        process = run("serve", *arguments)
        wait(lambda: "end: Ctrl-C" in process.text() or process.process.poll() is not None)
        assert process.process.poll() is None, process.text()
        return process

    return start


def asked(name, **options):
    with RemoteCalculator(name, **options) as calculator:
        return calculator.get_property("energy", atoms())


def aside(function, *arguments, **options):
    found = []

    def call():
        try:
            found.append(function(*arguments, **options))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    return thread, found


def is_busy(name):
    return [one for one in ask("status")["workers"] if one["name"] == name and one["state"] == "busy"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_answers_others_and_leaves_nothing(served, own, number):
    process = served("emt")
    socket = own / "mlipcluster" / "serve.sock"
    assert f"serving emt at {socket}" in process.text()
    code = (
        "from ase.build import bulk\nfrom mlipcluster import RemoteCalculator\n"
        "atoms = bulk('Cu', cubic=True)\natoms.calc = RemoteCalculator('emt')\n"
        "print(repr(float(atoms.get_potential_energy())))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(other.stdout) == right()
    children = psutil.Process(process.process.pid).children(recursive=True)
    assert children
    process.signal(number)
    assert process.ended() == 0
    assert process.text().rstrip().endswith("ended; nothing is left")
    wait(lambda: not any(child.is_running() for child in children))
    assert not socket.parent.exists()


def test_told_to_end_it_finishes_what_runs_and_refuses_what_waits(served):
    process = served("--calculators", "registry.py:CALCULATORS", "slow", "--max-workers", "1")
    running = aside(asked, "slow", retries=0)
    wait(lambda: is_busy("slow"))
    with RemoteCalculator("slow", retries=0) as calculator:
        waiting = aside(calculator.evaluate, [atoms()])
        wait(lambda: ask("status")["calculators"][0]["waiting"] == 1)
        process.signal()
        for thread, _ in (running, waiting):
            thread.join()
    assert isinstance(running[1][0], float)
    assert isinstance(waiting[1][0], ServerGoneError)
    assert process.ended() == 0
    assert "ending: what runs is finished, what waits is refused" in process.text()


def test_told_to_end_while_a_worker_that_a_command_started_calculates(served, own):
    process = served("--calculators", "registry.py:CALCULATORS", "slowly spawned")
    with RemoteCalculator("slowly spawned", retries=0) as calculator:
        calculator.implemented_properties  # noqa: B018 - so that there is nothing to be asked but the calculation
        thread, found = aside(calculator.get_property, "energy", atoms())
        wait(lambda: is_busy("slowly spawned"))
        children = psutil.Process(process.process.pid).children(recursive=True)
        assert len(children) == 2  # who looks after it, and the calculator's own
        process.signal()
        thread.join()
    assert isinstance(found[0], float)
    assert process.ended() == 0
    wait(lambda: not any(child.is_running() for child in children))
    assert not (own / "mlipcluster").exists()


def test_told_twice_it_ends_at_once(served, own):
    process = served("--calculators", "registry.py:CALCULATORS", "stuck")
    thread, found = aside(asked, "stuck", retries=0)
    wait(lambda: is_busy("stuck"))
    children = psutil.Process(process.process.pid).children(recursive=True)
    process.signal()
    wait(lambda: "once more to end at once" in process.text())
    assert process.process.poll() is None
    process.signal()
    assert process.ended() == 0
    thread.join()
    assert isinstance(found[0], ServerGoneError)
    wait(lambda: not any(child.is_running() for child in children))
    assert not (own / "mlipcluster").exists()


def test_killed_it_takes_its_workers_along_and_the_next_one_takes_its_place(served):
    process = served("emt")
    asked("emt")
    children = psutil.Process(process.process.pid).children(recursive=True)
    process.signal(signal.SIGKILL)
    process.ended()
    wait(lambda: not any(child.is_running() for child in children))
    served("emt")
    assert asked("emt") == right()


def test_commands_start_workers_too(served):
    served("--calculators", "registry.py:CALCULATORS")
    assert asked("spawned") == right()
    (worker,) = ask("status")["workers"]
    assert worker["where"] == "joined"
    with pytest.raises(Exception, match=r"exit status 1 (.|\n)*no such model"):
        asked("fails")


def test_idle_workers_end_and_come_back(served):
    served("emt", "--idle-timeout", "0.3")
    for _ in range(2):
        assert asked("emt") == right()
        wait(lambda: not ask("status")["workers"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such-model"], "no-such-model"),
        (["emt", "--listen", "tls://127.0.0.1:0"], "needs credentials"),
        (["emt", "--listen", "/a/path"], "give tls://HOST:PORT"),
        (["emt", "--max-workers", "0"], "max_workers"),
        (["emt", "--idle-timeout", "-1"], "idle_timeout"),
        (["emt", "--address", "/tmp/" + 120 * "x"], "the kernel takes 107"),
        (["emt", "--address", "tcp://127.0.0.1:5555"], "no address of a server"),
        (["--calculators", "nothing.py:CALCULATORS"], "nothing.py"),
        (["emt", "--cluster", "no-such-cluster"], "no-such-cluster"),
        (["emt", "--ipi", "unix:a", "--listen", "tls://127.0.0.1:0"], "so --listen means nothing"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_is_done(run, own, arguments, words):
    process = run("serve", *arguments)
    assert process.ended() in (1, 2)
    assert words in process.text()
    assert "Traceback" not in process.text()
    assert not (own / "mlipcluster").exists()


def test_two_at_one_path(served, run):
    served("emt")
    second = run("serve", "emt")
    assert second.ended() == 1
    assert "listens at" in second.text()
    assert asked("emt") == right()


def test_a_worker_by_hand(served, run):
    served("emt")
    arguments = ("ase.calculators.lj:LennardJones", "--kwargs", '{"rc": 5.0}', "--name", "argon")
    first, second = (run("worker", *arguments) for _ in range(2))
    wait(lambda: [one["name"] for one in ask("status")["workers"]] == ["argon", "argon"])
    assert isinstance(asked("argon"), float)
    first.signal(signal.SIGINT)
    assert first.ended() == 0
    assert len(ask("status")["workers"]) == 1
    assert isinstance(asked("argon"), float)
    second.signal()
    assert second.ended() == 0
    assert ask("status")["served"] == ["emt"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["emt"], 1, "no server answers"),
        (["emt", "--args", "{}"], 2, "give a JSON list"),
        (["emt", "--kwargs", "[1]"], 2, "give a JSON object"),
        (["emt", "--kwargs", "{"], 2, "no JSON"),
        (["no-such-model"], 1, "no-such-model"),
    ],
)
def test_a_worker_that_cannot_be(cli, own, arguments, status, words):
    ran = cli("worker", *arguments)
    assert ran.exit_code == status
    assert words in " ".join(ran.stderr.split())


def test_status_and_list_without_a_server(cli, own):
    for arguments in (["status"], ["status", "--json"], ["list", "--address", own / "s"]):
        ran = cli(*arguments)
        assert ran.exit_code == 1
        assert "no server answers" in ran.stderr
        assert "start one: `mlipcluster serve`" in ran.stderr


def test_status_and_list_of_a_server(served, cli, own):
    served("emt", "lj")
    asked("emt")
    shown = cli("status").stdout
    assert "1 of at most 2 workers\n" in shown
    with RemoteCalculator("lj") as calculator:
        calculator.meet()
        assert "workers, 1 client\n" in cli("status").stdout
    assert "served when they are asked for: lj" in shown
    told = json.loads(cli("status", "--json").stdout)
    assert told == {**told, "served": ["emt", "lj"], "stopping": False}
    (worker,) = told["workers"]
    assert worker["memory"] > 10 << 20
    assert Path(f"/proc/{worker['pid']}").exists()
    listed = cli("list", "--address", own / "mlipcluster" / "serve.sock", "--json")
    assert [one["name"] for one in json.loads(listed.stdout)["calculators"]] == ["emt", "lj"]


def test_status_is_watched_until_ctrl_c(served, own):
    served("emt")
    terminal, end = os.openpty()
    watching = subprocess.Popen([sys.executable, "-m", "mlipcluster", "status", "--watch"], stdout=end)
    os.close(end)
    try:
        seen = b""
        while seen.count(b"served when they are asked for: emt") < 2:
            seen += os.read(terminal, 1 << 16)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 0
    finally:
        watching.kill()
        watching.wait()
        os.close(terminal)
