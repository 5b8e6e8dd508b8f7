"""Processes that cannot start, die, hang, talk too much, or are left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import venv
from pathlib import Path

import pytest
from ase.build import bulk

from mlipcluster.calculators import worker_process
from mlipcluster.calculators.host import WorkerHost
from mlipcluster.calculators.socket_calculator import SocketCalculator
from mlipcluster.calculators.spec import HIDDEN, LONGEST_TIMEOUT, CalculatorSpec
from mlipcluster.calculators.worker_process import describe_exit
from mlipcluster.errors import (
    CalculatorError,
    CalculatorStartError,
    CallTimeoutError,
    MLIPClusterError,
    RemoteCalculatorError,
    WorkerDiedError,
)


def gone(pid: int) -> bool:
    """Whether the process ends within a minute."""
    for _ in range(600):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":  # dead; whoever inherited it has not asked yet
            return True
        time.sleep(0.1)
    return False


# Starting


def start_error(spec: CalculatorSpec) -> str:
    host = WorkerHost(spec)
    with pytest.raises(CalculatorStartError) as caught:
        host.start()
    assert not host.alive
    return str(caught.value)


def test_an_interpreter_that_does_not_exist(tmp_path):
    assert "cannot be run" in start_error(CalculatorSpec("a:b", python=str(tmp_path / "nothing")))


def test_a_folder_that_is_no_environment(tmp_path):
    assert "give python=" in start_error(CalculatorSpec("a:b", python=str(tmp_path)))


def test_an_interpreter_that_is_none():
    assert "exit status" in start_error(CalculatorSpec("a:b", python="/bin/false"))


def test_an_interpreter_without_numpy_and_ase(tmp_path):
    venv.create(tmp_path / "bare environment", symlinks=True)
    words = start_error(CalculatorSpec("ase.calculators.emt:EMT", python=str(tmp_path / "bare environment")))
    assert "No module named 'numpy'" in words
    assert "install numpy and ase" in words


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("no_such_module:f", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("trial:no_such_name", "AttributeError"),
        ("trial:Raises", "TypeError"),
        ("exits_at_import:f", "SystemExit: 7"),
    ],
)
def test_a_factory_that_fails(trial, factory, words):
    message = start_error(trial("x").replace(factory=factory))
    assert words in message
    assert "Traceback" in message
    assert "Check factory" in message


def test_a_state_that_the_calculator_does_not_have(trial):
    assert "no method 'rewind'" in start_error(trial("Trial", state="rewind"))


def test_a_start_that_takes_too_long(tmp_path):
    (tmp_path / "slow_module.py").write_text("import time; print('loading'); time.sleep(600)")
    spec = CalculatorSpec("slow_module:f", paths=(str(tmp_path),), startup_timeout=3.0)
    message = start_error(spec)
    assert "startup_timeout=3 s" in message
    assert "loading" in message


def test_a_start_is_given_up_at_once(trial, tmp_path):
    (tmp_path / "slow_module.py").write_text(f"open({str(tmp_path / 'begun')!r}, 'w'); import time; time.sleep(600)")
    host, told = WorkerHost(CalculatorSpec("slow_module:f", paths=(str(tmp_path),))), []

    def start():
        with pytest.raises(CalculatorStartError) as caught:
            host.start()
        told.append(str(caught.value))

    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    pid = host.pid
    host.cancel()
    thread.join(30)
    assert "was given up" in told[0]
    assert gone(pid)


def test_a_start_is_given_up_before_there_is_a_process(emt, monkeypatch):
    host, made = WorkerHost(emt), []

    def make(spec):
        host.cancel()  # as another thread may at just this moment
        made.append(worker_process.WorkerProcess(spec))
        return made[-1]

    monkeypatch.setattr("mlipcluster.calculators.host.WorkerProcess", make)
    with pytest.raises(CalculatorStartError, match="was given up"):
        host.start()
    assert gone(made[0].pid)
    with pytest.raises(CalculatorStartError, match="was given up"):
        host.start()
    assert len(made) == 1


def test_a_temporary_folder_whose_path_is_too_long(tmp_path, monkeypatch):
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setattr(worker_process.tempfile, "tempdir", str(folder))
    assert "TMPDIR" in start_error(CalculatorSpec("ase.calculators.emt:EMT"))
    assert list(folder.iterdir()) == []


def test_hostile_paths(tmp_path, cu):
    folder = tmp_path / 'it\'s a "folder"\nwith ünusual name; rm -rf $HOME'
    folder.mkdir()
    (folder / "mine.py").write_text("from ase.calculators.lj import LennardJones as LJ")
    with SocketCalculator("mine:LJ", paths=[str(folder)]) as calculator:
        cu.calc = calculator
        assert isinstance(cu.get_potential_energy(), float)


# What the process is given


def test_threads_and_environment_variables(trial):
    with WorkerHost(trial("with_threads", threads=3, environment={"TRIAL": "!"})) as host:
        assert host.provenance().devices == ("3!",)


def test_a_variable_whose_value_a_record_hides_is_inherited(trial, monkeypatch):
    monkeypatch.setenv("TRIAL", "mine")
    with WorkerHost(trial("with_threads", environment={"TRIAL": HIDDEN})) as host:
        assert host.provenance().devices == ("1mine",)


def test_credentials_in_an_address_reach_the_factory(trial):
    with WorkerHost(trial("with_device", kwargs={"device": "http://me:word@gpu"})) as host:
        assert host.provenance().devices == ("device=http://me:word@gpu",)


def test_the_longest_timeout_can_be_waited_for(trial, cu):
    with SocketCalculator(trial("Trial", call_timeout=LONGEST_TIMEOUT, startup_timeout=LONGEST_TIMEOUT)) as calculator:
        assert calculator.get_property("energy", cu) == cu.positions.sum()


@pytest.mark.parametrize("factory", ["with_device", "with_use_device"])
def test_the_device_goes_where_the_factory_wants_it(trial, factory):
    with WorkerHost(trial(factory, device="cuda:1")) as host:
        assert host.provenance().devices == (f"{factory.removeprefix('with_')}=cuda:1",)


def test_the_socket_has_no_name_that_others_could_use_or_that_could_be_left_behind(emt, tmp_path, monkeypatch):
    monkeypatch.setattr(worker_process.tempfile, "tempdir", str(tmp_path))
    with WorkerHost(emt):
        assert list(tmp_path.iterdir()) == []


def test_the_folder_that_the_socket_is_bound_in_is_for_this_user_only(emt, monkeypatch):
    modes = []
    hide = worker_process.WorkerProcess._hide

    def look_and_hide(process):
        modes.append(Path(process.address).parent.stat().st_mode & 0o777)
        hide(process)

    monkeypatch.setattr(worker_process.WorkerProcess, "_hide", look_and_hide)
    with WorkerHost(emt):
        assert modes == [0o700]


def test_where_a_socket_needs_its_name_the_folder_goes_with_the_worker(emt, tmp_path, monkeypatch):
    monkeypatch.setattr(worker_process.tempfile, "tempdir", str(tmp_path))
    monkeypatch.delattr(os, "O_PATH")
    with WorkerHost(emt) as host:
        assert len(list(tmp_path.iterdir())) == 1
        assert host.provenance().executable == sys.executable
    assert list(tmp_path.iterdir()) == []


# Dying


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Segfault", ["signal SIGSEGV", "Fatal Python error: Segmentation fault", "trial.py"]),
        ("HardExit", ["exit status 3", "about to go"]),
    ],
)
def test_a_calculator_that_kills_its_process_is_tried_once_more(trial, cu, name, words):
    with SocketCalculator(trial(name)) as calculator:
        cu.calc = calculator
        with pytest.raises(WorkerDiedError) as caught:
            cu.get_potential_energy()
        assert all(word in str(caught.value) for word in words)
        assert calculator.host.restarts == 1
        assert not calculator.host.alive


def test_a_call_survives_the_death_of_one_worker(trial, cu, tmp_path):
    with SocketCalculator(trial("DiesOnce", args=[str(tmp_path / "marker")])) as calculator:
        cu.calc = calculator
        assert cu.get_potential_energy() == cu.positions.sum()
        assert calculator.host.restarts == 1


def test_the_second_try_sends_everything_again(trial, cu, tmp_path):
    """The worker dies at its third call, which sends positions only."""
    cu.set_initial_magnetic_moments([1, 2, 3, 4])
    with SocketCalculator(trial("DiesOnce", args=[str(tmp_path / "marker"), 3])) as calculator:
        cu.calc = calculator
        for _ in range(4):
            cu.positions += 0.01
            assert cu.get_potential_energy() == cu.positions.sum()
        assert calculator.host.restarts == 1
        assert calculator.host.exit_status is None


def test_the_second_try_has_the_same_seed(trial, cu):
    cu.calc = calculator = SocketCalculator(trial("Draws"))
    with calculator:
        calculator.prepare(seed=5)
        first = cu.get_potential_energy()
        calculator.prepare(seed=5)
        os.kill(calculator.host.pid, signal.SIGKILL)
        assert cu.get_potential_energy() == first


def test_sigkill_within_a_call(trial, cu):
    with SocketCalculator(trial("Sleeps")) as calculator:
        cu.calc = calculator
        host = calculator.host
        host.start()
        killer = threading.Timer(0.5, lambda: os.kill(host.pid, signal.SIGKILL))
        second = threading.Timer(4.0, lambda: os.kill(host.pid, signal.SIGKILL))
        killer.start()
        second.start()
        with pytest.raises(WorkerDiedError, match="signal SIGKILL"):
            cu.get_potential_energy()


def test_a_set_of_strings_has_one_order_in_every_worker(trial, cu, monkeypatch):
    orders = set()
    for seed in ("1", "2", "random"):
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        with SocketCalculator(trial("HashOfText")) as calculator:
            cu.calc = calculator
            cu.get_potential_energy()
            orders.add(calculator.results["order"])
    assert len(orders) == 1


def test_a_worker_is_isolated_from_pythons_variables(trial, cu, monkeypatch, tmp_path):
    (tmp_path / "numpy.py").write_text("raise SystemExit('another numpy')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with SocketCalculator(trial("Trial")) as calculator:
        cu.calc = calculator
        assert cu.get_potential_energy() == cu.positions.sum()


def test_a_worker_killed_between_calls_is_replaced(trial, cu):
    with SocketCalculator(trial("Trial")) as calculator:
        cu.calc = calculator
        energy = cu.get_potential_energy()
        os.kill(calculator.host.pid, signal.SIGKILL)
        cu.positions += 1.0
        assert cu.get_potential_energy() == pytest.approx(energy + 12.0)
        os.kill(calculator.host.pid, signal.SIGKILL)
        assert calculator.provenance().implemented_properties == ("energy", "forces")
        os.kill(calculator.host.pid, signal.SIGKILL)
        calculator.prepare(3)
        assert calculator.host.restarts == 3


def test_a_stopped_host_starts_again(cu, emt):
    cu.calc = calculator = SocketCalculator(emt)
    energy = cu.get_potential_energy()
    pid = calculator.host.pid
    calculator.close()
    assert gone(pid)
    assert cu.get_potential_energy() == energy  # known
    cu.rattle(0.01)
    assert cu.get_potential_energy() != energy
    calculator.close()
    calculator.close()


def test_a_call_past_its_timeout(trial, cu):
    with SocketCalculator(trial("SleepsHoldingTheLock", call_timeout=1.0)) as calculator:
        cu.calc = calculator
        calculator.host.start()
        pid = calculator.host.pid
        with pytest.raises(CallTimeoutError, match="call_timeout=1 s") as caught:
            cu.get_potential_energy()
        assert isinstance(caught.value, TimeoutError)
        assert gone(pid)


def test_building_again_has_the_time_of_a_start(trial):
    """Not that of a call, which is shorter."""
    with SocketCalculator(trial("BuildsSlowly", args=[1.0], call_timeout=0.3)) as calculator:
        calculator.get_property("energy", bulk("Cu"))
        calculator.prepare()
        assert calculator.host.restarts == 0


def test_closing_from_another_thread_ends_the_call(trial, cu):
    calculator = SocketCalculator(trial("Sleeps"))
    cu.calc = calculator
    calculator.host.start()
    pid = calculator.host.pid
    threading.Timer(0.5, calculator.close).start()
    with pytest.raises(CalculatorError, match="closed while it calculated"):
        cu.get_potential_energy()
    assert gone(pid)
    assert calculator.host.restarts == 0


def test_closing_from_another_thread_ends_a_reset(trial, cu):
    calculator = SocketCalculator(trial("SleepsAtReset", state="start_over"))
    calculator.get_property("energy", cu)
    pid, errors = calculator.host.pid, []

    def prepare():
        try:
            calculator.prepare()
        except CalculatorError as error:
            errors.append(str(error))

    thread = threading.Thread(target=prepare, daemon=True)
    thread.start()
    while not calculator.host._busy:
        time.sleep(0.01)
    closing = threading.Thread(target=calculator.close, daemon=True)
    closing.start()
    closing.join(30)
    thread.join(30)
    assert gone(pid)
    assert "closed while it calculated" in errors[0]


def test_calls_within_their_timeout(trial, cu):
    with SocketCalculator(trial("Trial", call_timeout=60)) as calculator:
        cu.calc = calculator
        for _ in range(3):
            cu.positions += 0.1
            assert cu.get_potential_energy() == cu.positions.sum()


def test_sys_exit_is_an_error_and_the_worker_lives_on(trial, cu):
    with SocketCalculator(trial("SysExit")) as calculator:
        cu.calc = calculator
        for _ in range(2):
            with pytest.raises(RemoteCalculatorError, match="SystemExit: enough"):
                cu.get_potential_energy()
        assert calculator.host.restarts == 0


def test_a_worker_that_prints_without_end_is_only_quoted(trial, cu):
    with SocketCalculator(trial("Chatty", args=[50])) as calculator:
        cu.calc = calculator
        assert cu.get_potential_energy() == cu.positions.sum()
        os.kill(calculator.host.pid, signal.SIGKILL)
        calculator.host._process.wait(60)
        words = calculator.host._process.last_words()
        assert words.endswith("last words")
        assert len(words) <= worker_process.TAIL_BYTES


def test_ctrl_c_within_a_call_leaves_no_half_answer(trial, cu):
    """The interrupted call's answer comes later; it must not be taken for the next one's."""
    with SocketCalculator(trial("Sleeps", args=[1.0])) as calculator:
        cu.calc = calculator
        calculator.host.start()
        threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            cu.get_potential_energy()
        cu.positions += 1.0
        assert cu.get_potential_energy() == cu.positions.sum()
        assert calculator.host.restarts == 0


# Being left behind

CLIENT = """
import sys, threading, time
from ase.build import bulk
from mlipcluster.calculators.socket_calculator import SocketCalculator
calculator = SocketCalculator("trial:" + sys.argv[1], paths=[sys.argv[2]])
calculator.host.start()
atoms = bulk("Cu")
atoms.calc = calculator
threading.Thread(target=atoms.get_potential_energy, daemon=True).start()
time.sleep(0.5)
print(calculator.host.pid, flush=True)
"""


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("SleepsHoldingTheLock", "time.sleep(600)"),
        ("SleepsHoldingTheLock", "sys.exit(3)"),
        ("Trial", "time.sleep(600)"),
        ("Trial", "import os; os._exit(0)"),
        ("Trial", "pass"),
    ],
)
def test_no_worker_outlives_its_host(trial, name, end):
    command = [sys.executable, "-c", CLIENT + end, name, trial("x").paths[0]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as client:
        pid = int(client.stdout.readline())
        if "sleep" in end:
            client.kill()
        client.wait(60)
        assert gone(pid)


def test_a_forgotten_calculator_leaves_no_process(cu, emt):
    calculator = SocketCalculator(emt)
    cu.calc = calculator
    cu.get_potential_energy()
    pid = calculator.host.pid
    cu.calc = None
    del calculator
    assert gone(pid)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_gets_a_worker_of_its_own(cu, emt):
    with SocketCalculator(emt) as calculator:
        cu.calc = calculator
        energy, pid = cu.get_potential_energy(), calculator.host.pid
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                cu.positions[0, 0] += 0.01
                other = cu.get_potential_energy()
                os.write(write, f"{calculator.host.pid} {other != energy}".encode())
                calculator.close()
            finally:
                os._exit(0)
        os.close(write)
        with open(read) as answer:
            other_pid, differs = answer.read().split()
        os.waitpid(child, 0)
        assert int(other_pid) != pid
        assert differs == "True"
        assert calculator.host.pid == pid
        cu.rattle(0.01)
        cu.get_potential_energy()
        assert calculator.host.restarts == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_that_closes_leaves_the_worker_to_its_parent(cu, emt):
    with SocketCalculator(emt) as calculator:
        cu.calc = calculator
        cu.get_potential_energy()
        pid = calculator.host.pid
        child = os.fork()
        if child == 0:
            calculator.close()
            os._exit(0)
        os.waitpid(child, 0)
        cu.rattle(0.01)
        cu.get_potential_energy()
        assert (calculator.host.pid, calculator.host.restarts) == (pid, 0)


def test_nothing_is_left_open_or_behind(emt, tmp_path, monkeypatch):
    monkeypatch.setattr(worker_process.tempfile, "tempdir", str(tmp_path))
    counts = []
    for _ in range(3):
        with WorkerHost(emt) as host:
            host.restart()
            host.prepare(1)
        del host
        for _ in range(600):  # what reads a worker's output ends a moment after it
            if not any(thread.name.startswith("socket worker's") for thread in threading.enumerate()):
                break
            time.sleep(0.1)
        counts.append((len(os.listdir("/proc/self/fd")), threading.active_count()))
    assert counts[0] == counts[1] == counts[2]
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_host_survive_pickling():
    import pickle

    for error in (WorkerDiedError("a"), CallTimeoutError("b"), CalculatorStartError("c")):
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
        assert isinstance(error, MLIPClusterError)


def test_exits_in_words():
    assert describe_exit(3) == "exit status 3"
    assert describe_exit(-11) == "signal SIGSEGV"
    assert describe_exit(-63) == "signal 63"
    assert "running" in describe_exit(None)
