from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys

import pytest

BUSY_HOLDING_THE_LOCK = """
import ctypes, sys
from mlipcluster.socket_worker.lifeline import die_with_parent
die_with_parent(int(sys.argv[1]))
print("ready", flush=True)
ctypes.PyDLL(None).sleep(600)
"""


def start(code: str, fd: int, **options: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, str(fd)], pass_fds=[fd], stdout=subprocess.PIPE, **options)


def test_the_kernel_ends_a_process_that_holds_the_interpreter_lock():
    read, write = os.pipe()
    with start(BUSY_HOLDING_THE_LOCK, read) as process:
        os.close(read)
        assert process.stdout.readline() == b"ready\n"
        assert not select.select([process.stdout], [], [], 0.2)[0]  # it lives as long as the pipe does
        os.close(write)
        assert process.wait(60) == -signal.SIGIO


def test_a_parent_that_has_gone_already_is_noticed():
    read, write = os.pipe()
    os.close(write)
    with start(BUSY_HOLDING_THE_LOCK, read) as process:
        os.close(read)
        assert process.wait(60) in (1, -signal.SIGIO)


@pytest.mark.parametrize(
    "setting", ["signal.signal(s, signal.SIG_IGN)", "signal.pthread_sigmask(signal.SIG_BLOCK, {s})"]
)
def test_an_inherited_ignored_or_blocked_signal_does_not_disarm_it(setting):
    read, write = os.pipe()
    code = f"import signal; s = signal.SIGIO; {setting}\n" + BUSY_HOLDING_THE_LOCK
    with start(code, read) as process:
        os.close(read)
        assert process.stdout.readline() == b"ready\n"
        os.close(write)
        assert process.wait(60) == -signal.SIGIO


def test_what_the_leader_of_a_group_started_ends_with_it():
    read, write = os.pipe()
    code = "import subprocess; subprocess.Popen(['sleep', '600'])\n" + BUSY_HOLDING_THE_LOCK
    with start(code, read, start_new_session=True) as process:
        os.close(read)
        try:
            assert process.stdout.readline() == b"ready\n"
            os.close(write)
            assert select.select([process.stdout], [], [], 60)[0]  # both had it open
            assert process.stdout.read() == b""
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
