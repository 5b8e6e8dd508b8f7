from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import cloudpickle
import numpy as np
import psutil
import pytest
from ase.build import bulk

from mlipcluster import protocol_process, transit
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.calls import Call, Job, TaskInfo
from mlipcluster.checkpoint import Checkpoint, Part, Saved
from mlipcluster.deploy import ending
from mlipcluster.distribute import exception_of
from mlipcluster.errors import CalculatorStartError, ProtocolProcessError, ProtocolTimeoutError
from mlipcluster.printed import KEPT
from mlipcluster.protocol_process import ProtocolProcess, abandon, borrow
from mlipcluster.records.packing import decode
from mlipcluster.records.seeds import call_seed
from mlipcluster.saves import hand_over

CU = bulk("Cu")


def job(protocol, run="run", **changes):
    blob = cloudpickle.dumps((protocol, None))
    return Job(run, blob, hashlib.sha256(blob).hexdigest(), {}, 7, **changes)


def payload(count=1, seed=None, **kwargs):
    calls = [
        Call(TaskInfo(f"{n:032x}", f"task {n}", 0, 0, (), "protocol"), pickle.dumps(CU), {"n": n, **kwargs}, seed)
        for n in range(count)
    ]
    return transit.pack(tuple(calls))


@pytest.fixture(scope="module")
def warm():
    """A process that stays from test to test."""
    process = ProtocolProcess()
    yield process
    process.stop()


@pytest.fixture
def process():
    """A process of one's own."""
    process = ProtocolProcess()
    yield process
    process.stop()


def results_of(answer):
    return [transit.unpack(packed) for packed in answer.results]


def is_gone(pid):
    """Whether a process ends within seconds; a child of ours is left to be reaped by whoever waits for it."""
    for _ in range(200):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


# --- the way through -------------------------------------------------------------------------------------------------


def numbered(atoms, n):
    print("call", n)
    atoms.info["n"] = n
    atoms.info["pid"] = os.getpid()
    return atoms


def test_results_come_in_order_each_with_what_it_printed(warm):
    answer = warm.run_chunk(job(numbered), payload(3))
    atoms = [decode(r.products[0].packed) for r in results_of(answer)]
    assert [a.info["n"] for a in atoms] == [0, 1, 2]
    assert answer.printed == {0: "call 0\n", 1: "call 1\n", 2: "call 2\n"}
    assert {a.info["pid"] for a in atoms} == {warm.pid}
    assert warm.pid != os.getpid()


def test_it_introduces_itself_once_a_run(warm):
    first = warm.run_chunk(job(numbered, run="a"), payload(2))
    again = warm.run_chunk(job(numbered, run="a"), payload(2))
    other = warm.run_chunk(job(numbered, run="b"), payload(1))
    assert [len(answer.introductions) for answer in (first, again, other)] == [1, 0, 1]
    introduction = transit.unpack(first.introductions[0])
    assert introduction.name == results_of(first)[0].introduction
    assert introduction.environment["digest"]


def failing_on_the_second(atoms, n):
    if n == 1:
        raise ValueError("the second")
    return atoms


def test_a_failure_leaves_its_siblings_alone(warm):
    answer = warm.run_chunk(job(failing_on_the_second), payload(3))
    assert [r.failure and r.failure.message for r in results_of(answer)] == [None, "the second", None]


def dying_on_the_second(atoms, n, how):
    if n == 1:
        print("last words", flush=True)
        if how == "exit":
            os._exit(3)
        if how == "segfault":
            ctypes.string_at(0)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "interrupt":
            raise KeyboardInterrupt
    return atoms


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("exit", "ended with exit status 3 in protocol 'protocol' on task 1"),
        ("segfault", "was killed by SIGSEGV in protocol 'protocol' on task 1"),
        ("kill", "was killed by SIGKILL"),
        ("interrupt", "was killed by SIGINT"),
    ],
)
def test_a_call_that_ends_the_process_fails_alone(warm, how, words):
    answer = warm.run_chunk(job(dying_on_the_second), payload(3, how=how))
    results = results_of(answer)
    assert [r.failure is None for r in results] == [True, False, True]
    error = exception_of(results[1].failure)
    assert isinstance(error, ProtocolProcessError)
    assert words in str(error)
    assert "last words" in answer.printed[1]
    assert results[1].seed == call_seed(7, f"{1:032x}", 0, 0, ())


def forking(atoms, n):
    if os.fork() == 0:
        time.sleep(600)
        os._exit(0)
    os._exit(4)


def test_a_process_that_forked_and_ended_is_not_waited_for(warm):
    (result,) = results_of(warm.run_chunk(job(forking), payload()))
    assert "exit status 4" in result.failure.message


# --- time ------------------------------------------------------------------------------------------------------------


def sleeping_in_c(atoms, n):
    if n == 1:
        ctypes.PyDLL(None).sleep(600)  # PyDLL keeps the interpreter lock
    return atoms


def deaf(atoms, n):
    while n == 1:
        with contextlib.suppress(BaseException):
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            time.sleep(600)
    return atoms


def printing(atoms, n):
    while n == 1:
        print("x" * 10_000)
    return atoms


@pytest.mark.parametrize("protocol", [sleeping_in_c, deaf, printing])
def test_a_call_past_its_timeout_is_ended_and_its_siblings_finish(warm, protocol):
    answer = warm.run_chunk(job(protocol, timeout=0.5), payload(3))
    results = results_of(answer)
    assert [r.failure is None for r in results] == [True, False, True]
    error = exception_of(results[1].failure)
    assert isinstance(error, ProtocolTimeoutError)
    assert isinstance(error, TimeoutError)
    assert "protocol 'protocol' took longer than timeout=0.5 s on task 1" in str(error)
    assert results[1].seconds >= 0.5
    assert results[1].seed == call_seed(7, f"{1:032x}", 0, 0, ())


def napping(atoms, n):
    time.sleep(0.4)
    return atoms


def test_a_call_that_uses_too_much_memory_is_ended_and_its_siblings_finish(warm):
    def greedy(atoms, n):
        if n == 1:
            code = "x = bytearray(b'1') * 800_000_000; import time; time.sleep(60)"
            subprocess.run([sys.executable, "-c", code], check=False)
        return atoms

    results = results_of(warm.run_chunk(job(greedy, memory=500_000_000), payload(3)))
    assert [result.failure is None for result in results] == [True, False, True]
    error = pickle.loads(results[1].failure.pickled)
    assert isinstance(error, ProtocolProcessError)
    assert "used more than memory=500000000 bytes on task 1" in str(error)


def test_the_timeout_is_for_each_call_and_not_for_the_chunk(warm):
    results = results_of(warm.run_chunk(job(napping, timeout=1.2), payload(4)))
    assert [r.failure for r in results] == [None] * 4


def leaving_children(atoms, n):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(child.pid, flush=True)
    time.sleep(600)


def test_what_a_call_started_ends_with_it(warm):
    answer = warm.run_chunk(job(leaving_children, timeout=0.5), payload())
    assert is_gone(int(answer.printed[0]))


# --- what is printed -------------------------------------------------------------------------------------------------


def much(atoms, n, size):
    sys.stdout.write("x" * size + "\nthe end\n")
    return atoms


def test_of_much_the_end_is_kept(warm):
    answer = warm.run_chunk(job(much), payload(2, size=3_000_000))
    assert all(r.failure is None for r in results_of(answer))
    assert all(len(text) == KEPT and text.endswith("x\nthe end\n") for text in answer.printed.values())


def below_python(atoms, n):
    os.write(1, b"out\n")
    os.write(2, b"err \xff\n")
    subprocess.run(["echo", "child"], check=True)
    return atoms


def test_what_is_printed_below_python_is_kept_too(warm):
    answer = warm.run_chunk(job(below_python), payload())
    assert answer.printed[0] == "out\nerr \ufffd\nchild\n"


def closing(atoms, n):
    if n == 0:
        os.close(1)
        os.close(2)
    return atoms


def test_a_protocol_may_close_its_output(process):
    results = results_of(process.run_chunk(job(closing), payload(3)))
    assert [r.failure is None for r in results][1:] == [True, True]


# --- beginning and end -----------------------------------------------------------------------------------------------


def test_stop_says_how_it_ended_and_leaves_nothing(process):
    process.run_chunk(job(numbered), payload())
    pid, scratch = process.pid, process._scratch
    process.kill()
    assert is_gone(pid)
    assert process.stop() == -signal.SIGKILL
    assert not os.path.exists(scratch)
    assert process.pid is None
    assert process.stop() is None


def test_one_that_died_in_between_is_started_again(process):
    process.run_chunk(job(numbered), payload())
    pid = process.pid
    os.kill(pid, signal.SIGKILL)
    assert is_gone(pid)
    (result,) = results_of(process.run_chunk(job(numbered), payload()))
    assert result.failure is None
    assert process.pid != pid


HOLDER = """
import ctypes, sys
from mlipcluster.protocol_process import ProtocolProcess
import cloudpickle, hashlib, pickle
from mlipcluster import transit
from mlipcluster.calls import Call, Job, TaskInfo
def protocol(n):
    import ctypes, os
    os.write(1, b"!")
    ctypes.PyDLL(None).sleep(600)
blob = cloudpickle.dumps((protocol, None))
job = Job("r", blob, "d", {}, 7)
process = ProtocolProcess()
process.start(job)
print(process.pid, flush=True)
process.run_chunk(job, transit.pack((Call(TaskInfo("k", "t", 0, 0, (), "p"), None, {"n": 1}),)))
"""


def test_it_ends_with_its_worker_even_while_it_holds_the_interpreter():
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    with holder:
        pid = int(holder.stdout.readline())
        protocol = psutil.Process(pid)
        for _ in range(600):  # until it sleeps, its import done
            if protocol.cpu_times().user > 0.3 and protocol.status() == psutil.STATUS_SLEEPING:
                break
            time.sleep(0.1)
        time.sleep(0.5)
        holder.kill()
    assert is_gone(pid)


def test_an_introduction_tells_of_the_calculators(warm, emt):
    introduction = warm.introduce(Job.asking({"": emt}))
    assert introduction.calculators[""]["provenance"]["versions"]["ase"]
    assert introduction.calculators[""]["environment"]["digest"]


def test_an_introduction_raises_what_the_calculator_raises(warm):
    with pytest.raises(CalculatorStartError, match="no_such_module"):
        warm.introduce(Job.asking({"": CalculatorSpec("no_such_module:Calculator")}))


# --- lending ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def lending(monkeypatch):
    """Nothing lent so far."""
    monkeypatch.setattr(protocol_process, "_processes", [])
    monkeypatch.setattr(protocol_process, "_idle", [])
    monkeypatch.setattr(protocol_process, "_abandoned", set())
    yield
    for process in protocol_process._processes:
        process.stop()


def test_two_at_a_time_get_two_processes_and_the_next_a_warm_one(lending):
    with borrow("run") as first:
        with borrow("run") as second:
            assert first is not second
        with borrow("run") as third:
            assert third is second


def test_giving_up_a_run_ends_its_call_and_no_other(lending):
    outcome = {}

    def work(run, protocol):
        try:
            outcome[run] = protocol_process.run_chunk(job(protocol, run=run), payload(2))
        except Exception as error:
            outcome[run] = error

    threads = [
        threading.Thread(target=work, args=("unwanted", sleeping_in_c)),
        threading.Thread(target=work, args=("wanted", napping)),
    ]
    for thread in threads:
        thread.start()
    while not all(p.pid for p in protocol_process._processes) or len(protocol_process._processes) < 2:
        time.sleep(0.01)
    abandon("unwanted")
    for thread in threads:
        thread.join(60)
    assert isinstance(outcome["unwanted"], ProtocolProcessError)
    assert [r.failure for r in results_of(outcome["wanted"])] == [None, None]


def test_giving_up_a_run_ends_what_it_left_warm(lending):
    protocol_process.run_chunk(job(numbered, run="over"), payload())
    (process,) = protocol_process._processes
    pid = process.pid
    abandon("over")
    assert is_gone(pid)
    assert process.pid is None
    answer = protocol_process.run_chunk(job(numbered, run="next"), payload())
    assert results_of(answer)[0].failure is None


def test_an_abandoned_run_gets_nothing_done_any_more(lending):
    abandon("over")
    with pytest.raises(ProtocolProcessError, match="abandoned"):
        protocol_process.run_chunk(job(numbered, run="over"), payload())
    assert protocol_process._processes[0].pid is None


# --- jobs that end ---------------------------------------------------------------------------------------------------


@pytest.fixture
def ending_file(tmp_path, monkeypatch):
    """A file that says when the job of a process that is started from now on ends."""
    monkeypatch.setenv(ending.VARIABLE, str(tmp_path / "ending"))
    ending.announce(tmp_path / "ending", 1000)
    return tmp_path / "ending"


def counting(atoms, checkpoint, n, folder, to=3):
    """Saves three times; says of each step that it was made."""
    done = 0
    if (found := checkpoint.load()) is not None:
        atoms, done = found
    while done < to:
        done += 1
        with open(f"{folder}/steps", "a") as file:
            file.write(f"{n}.{done}\n")
        while os.path.exists(f"{folder}/wait") and done == 2:
            time.sleep(0.05)
        if os.path.exists(f"{folder}/end") and done == 2 and n == 1:
            ending.announce(Path(os.environ[ending.VARIABLE]), 0.5)
        if os.path.exists(f"{folder}/die") and done == int(Path(folder, "die").read_text()):
            os.unlink(f"{folder}/die")
            os.kill(os.getpid(), signal.SIGKILL)
        checkpoint.save(atoms, done)
    atoms.info["done"] = done
    return atoms


def steps(folder):
    return (folder / "steps").read_text().split()


def test_a_call_that_is_interrupted_comes_back_with_its_checkpoint_and_the_others_untouched(
    process, tmp_path, ending_file
):
    (tmp_path / "end").touch()
    answer = process.run_chunk(job(counting), payload(4, folder=str(tmp_path)))
    first, second = results_of(answer)
    assert first.failure is None
    assert not first.interrupted
    assert second.interrupted
    assert second.products == ()
    assert second.checkpoint.number == 2
    assert second.stride > 0
    assert steps(tmp_path) == ["0.1", "0.2", "0.3", "1.1", "1.2"]

    (tmp_path / "end").unlink()
    ending.announce(ending_file, 1000)
    calls = [replace(transit.unpack(payload(2, folder=str(tmp_path)))[1], checkpoint=second.checkpoint)]
    (gone_on,) = results_of(process.run_chunk(job(counting), transit.pack(tuple(calls))))
    assert decode(gone_on.products[0].packed).info["done"] == 3
    assert steps(tmp_path)[5:] == ["1.3"]
    assert len(gone_on.parts) == 2
    assert gone_on.parts[0] == second.checkpoint.parts[0]
    assert gone_on.seconds == pytest.approx(sum(part.seconds for part in gone_on.parts))
    assert gone_on.started == second.started


def test_what_will_not_be_finished_is_handed_back(process, ending_file):
    calls = transit.unpack(payload(3))
    calls = (calls[0], replace(calls[1], needs=2000.0), calls[2])
    answer = process.run_chunk(job(numbered), transit.pack(calls))
    assert len(answer.results) == 1
    assert process.run_chunk(job(numbered), transit.pack((replace(calls[1], needs=500.0),))).results


@pytest.mark.parametrize("step", [1, 3])
def test_a_process_that_dies_goes_on_from_the_last_save(process, tmp_path, step):
    (tmp_path / "die").write_text(str(step))
    first, second = results_of(process.run_chunk(job(counting), payload(2, folder=str(tmp_path))))
    if step == 1:  # before anything was saved: the failure of that call, as always
        assert "SIGKILL" in first.failure.message
        assert steps(tmp_path) == ["0.1", "1.1", "1.2", "1.3"]
    else:
        assert first.failure is None
        assert steps(tmp_path) == ["0.1", "0.2", "0.3", "0.3", "1.1", "1.2", "1.3"]
    assert second.failure is None


def dying_after_it_saved_once(atoms, checkpoint, n):
    checkpoint.load()
    if checkpoint.saved is None:
        checkpoint.save(atoms)
    os._exit(3)


def dying_after_each_save(atoms, checkpoint, n):
    found = checkpoint.load()
    for done in range(found[1] if found else 0, 3):
        checkpoint.save(atoms, done)
        if done == 1:
            os._exit(3)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("protocol", [dying_after_it_saved_once, dying_after_each_save])
def test_a_process_that_dies_without_getting_on_is_a_failure(process, protocol):
    (result,) = results_of(process.run_chunk(job(protocol), payload()))
    assert "exit status 3" in result.failure.message


def saving_without_loading(atoms, checkpoint, n):
    checkpoint.save(atoms, 1)
    checkpoint.save(atoms, 2)
    os._exit(3)


@pytest.mark.timeout(60)
def test_a_protocol_that_saves_and_never_loads_does_not_begin_again_for_ever(process):
    (result,) = results_of(process.run_chunk(job(saving_without_loading), payload()))
    assert "load() first" in result.failure.message


def test_the_driver_is_told_what_a_call_has_saved_while_it_runs(process, tmp_path):
    (tmp_path / "wait").touch()
    calls = tuple(
        replace(call, slot=f"slot {n}") for n, call in enumerate(transit.unpack(payload(1, folder=str(tmp_path))))
    )
    thread = threading.Thread(target=process.run_chunk, args=(job(counting, run="told"), transit.pack(calls)))
    thread.start()
    for _ in range(600):
        told = hand_over("told", {})
        if told and told[0].saved:
            break
        time.sleep(0.05)
    (running,) = told
    assert (running.slot, running.saved.number) == ("slot 0", 1)
    assert hand_over("told", {"slot 0": 1})[0].saved is None
    (tmp_path / "wait").unlink()
    thread.join()
    assert hand_over("told", {}) == []


def ends_itself_and_a_child(atoms, n):
    os.kill(os.getpid(), signal.SIGTERM)
    child = subprocess.Popen(["sleep", "100"])
    child.terminate()
    atoms.info["child"] = child.wait()
    pid = os.fork()
    if pid == 0:
        time.sleep(100)
    time.sleep(0.2)
    os.kill(pid, signal.SIGTERM)
    atoms.info["fork"] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return atoms


def test_a_warning_ends_no_protocol_but_what_it_starts_ends_as_always(process, ending_file):
    (result,) = results_of(process.run_chunk(job(ends_itself_and_a_child), payload()))
    info = decode(result.products[0].packed).info
    assert (info["child"], info["fork"]) == (-signal.SIGTERM, -signal.SIGTERM)


def saving_slowly(atoms, checkpoint, n):
    done = 0
    if (found := checkpoint.load()) is not None:
        done = found[1]
    while done < 3:
        time.sleep(0.6)
        done += 1
        checkpoint.save(atoms, done)
    return atoms


def test_the_timeout_counts_all_parts(process):
    """A call that was gone on with has no more time than another."""
    call = transit.unpack(payload())[0]
    (whole,) = results_of(process.run_chunk(job(saving_slowly), transit.pack((call,))))
    assert whole.failure is None
    saved = Saved(1, 0.1, (Part(0.0, 100.0),), body_of(1))
    late = transit.pack((replace(call, checkpoint=saved),))
    (result,) = results_of(process.run_chunk(job(saving_slowly, timeout=100.5), late))
    assert "timeout=100.5" in result.failure.message


def body_of(done):
    kept = []
    Checkpoint(np.random.default_rng(1), {}, 7, keep=kept.append).save(CU, done)
    return kept[0].body
