"""Protocols that misbehave: each call fails by name, its siblings finish."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

import pytest
from ase.build import bulk

from mlipcluster.errors import ProtocolError

METALS = [bulk(name) for name in ("Cu", "Ag", "Au", "Ni")]


def is_bad(atoms):
    return "Ag" in atoms.symbols


def returns_text(atoms):
    return "done" if is_bad(atoms) else atoms


def exits(atoms):
    if is_bad(atoms):
        sys.exit(0)
    return atoms


def exits_at_once(atoms):
    if is_bad(atoms):
        os._exit(0)
    return atoms


def kills_itself(atoms):
    if is_bad(atoms):
        os.kill(os.getpid(), signal.SIGKILL)
    return atoms


def segfaults(atoms):
    if is_bad(atoms):
        ctypes.string_at(0)
    return atoms


def overflows(atoms):
    return overflows(atoms) if is_bad(atoms) else atoms


def out_of_memory(atoms):
    if is_bad(atoms):
        bytearray(1 << 60)
    return atoms


def gives_what_cannot_travel(atoms):
    if is_bad(atoms):
        atoms.info["lock"] = threading.Lock()
    return atoms


@pytest.mark.parametrize(
    ("protocol", "kind", "words"),
    [
        (returns_text, "ProtocolError", "the protocol gave a str; a protocol returns or yields Atoms"),
        (exits, "SystemExit", "0"),
        (exits_at_once, "ProtocolProcessError", "ended with exit status 0 in protocol 'exits_at_once' on task 1"),
        (kills_itself, "ProtocolProcessError", "was killed by SIGKILL in protocol 'kills_itself' on task 1"),
        (segfaults, "ProtocolProcessError", "was killed by SIGSEGV in protocol 'segfaults' on task 1"),
        (overflows, "RecursionError", "maximum recursion depth exceeded"),
        (out_of_memory, "MemoryError", ""),
        (gives_what_cannot_travel, "", "lock"),
    ],
)
def test_protocol(run, protocol, kind, words):
    results = run(METALS, protocol)
    (failure,) = results.failures
    assert failure.type.rpartition(".")[2] == kind or not kind
    assert words in failure.message
    assert failure.source == "task 1"
    assert len(results) == 3


def loops(atoms):
    while is_bad(atoms):
        pass
    return atoms


def sleeps_in_c(atoms):
    if is_bad(atoms):
        ctypes.PyDLL(None).sleep(600)  # PyDLL keeps the interpreter lock
    return atoms


@pytest.mark.parametrize("protocol", [loops, sleeps_in_c])
def test_one_that_never_ends(run, protocol):
    results = run(METALS, protocol, timeout=4.0)  # the others may wait for a busy machine
    (failure,) = results.failures
    assert failure.type.endswith("ProtocolTimeoutError")
    assert f"protocol '{protocol.__name__}' took longer than timeout=4 s on task 1" in failure.message
    assert len(results) == 3


def prints(atoms, megabytes):
    line = "x" * 999 + "\n"
    if is_bad(atoms):
        for _ in range(megabytes):
            sys.stdout.write(line * 1000)
        print("the end")
    return atoms


def test_one_that_prints_a_gigabyte(run):
    results = run([{"atoms": atoms, "megabytes": 1000} for atoms in METALS], prints)
    assert len(results) == 4
    told = {o.record["instance"]["tasks"]["source"]: o.record["metadata"]["printed"] for o in results}
    assert told["task 1"].endswith("x\nthe end\n")
    assert len(told["task 1"]) <= 1 << 16
    assert {told[name] for name in told if name != "task 1"} == {""}


def test_one_that_cannot_be_pickled(run, run_folder):
    lock = threading.Lock()

    def protocol(atoms):
        with lock:
            return atoms

    with pytest.raises(ProtocolError, match="protocol 'protocol' cannot be pickled"):
        run(METALS, protocol)
    assert not run_folder.exists()


def raises_what_cannot_be_pickled(atoms):
    if is_bad(atoms):
        error = ValueError("holds a lock")
        error.lock = threading.Lock()
        raise error
    return atoms


def test_one_that_raises_what_cannot_be_pickled(run, tmp_path):
    (failure,) = run(METALS, raises_what_cannot_be_pickled).failures
    assert (failure.type, failure.message) == ("ValueError", "holds a lock")
    with pytest.raises(RuntimeError, match="ValueError: holds a lock"):
        run(METALS, raises_what_cannot_be_pickled, ignore_errors=False, output_path=tmp_path / "other")


def removes_its_scratch_folder(atoms, scratch):
    import shutil

    shutil.rmtree(scratch)
    return atoms


def test_one_that_removes_its_scratch_folder(run):
    assert len(run(METALS, removes_its_scratch_folder)) == 4


def changes_folder(atoms, scratch):
    os.chdir(scratch)
    return atoms


def test_one_that_changes_folder(run):
    """The folder that it leaves behind is gone; what comes after must not mind."""
    results = run(METALS, changes_folder, time_stamped)
    assert len(results) == 4


def time_stamped(atoms):
    atoms.info["time"] = time.time()
    return atoms
