"""A pipe whose closing ends this process, whatever it is doing.

The parent holds the writing end and never writes. When the parent ends, by whatever signal, the kernel closes that end
and sends SIGIO to the owner of the reading end; SIGIO's default action ends the process in the kernel, so that neither
the interpreter lock nor a busy extension module can delay it. See ``fcntl(2)``: ``F_SETOWN``, ``O_ASYNC``.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import threading


def die_with_parent(fd: int) -> None:
    """End this process as soon as every writing end of the pipe *fd* is closed.

    One that leads its process group takes the group along, which is what it started.

    Parameters
    ----------
    fd : int
        Reading end of a pipe; it stays open for the life of this process. Nothing is ever written to it.
    """
    os.set_inheritable(fd, False)
    if sys.platform.startswith("linux"):
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGIO})
        leads = os.getpgrp() == os.getpid()
        fcntl.fcntl(fd, fcntl.F_SETOWN, -os.getpid() if leads else os.getpid())
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    else:
        # Other kernels do not signal the end of a pipe; a thread does, as soon as it gets the interpreter lock.
        threading.Thread(target=_wait_for_end, args=(fd,), daemon=True).start()
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if poll.poll(0):  # closed before SIGIO was asked for
        os._exit(1)


def _wait_for_end(fd: int) -> None:
    os.read(fd, 1)
    os._exit(1)
