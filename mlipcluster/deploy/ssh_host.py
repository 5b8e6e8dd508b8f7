"""One host of an `SSH` deployment: the connection to it, and what runs at its far end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shlex
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from distributed.deploy import ssh as dask_ssh
from distributed.deploy.spec import ProcessInterface

from mlipcluster.deploy.job_spec import JobSpec
from mlipcluster.deploy.local import EARLY_DEATHS, EARLY_SECONDS
from mlipcluster.deploy.remote import REFUSED
from mlipcluster.errors import MismatchError, MLIPClusterError, RunError

if TYPE_CHECKING:
    import asyncssh

CONNECT_SECONDS = 20.0
KEEPALIVE_SECONDS = 15.0
"""Between signs of life on a silent connection; it is given up after some without an answer."""
KEEPALIVES = 6
AGAIN_SECONDS = 3.0
"""Before a host is tried again."""
CLOSE_SECONDS = 12.0
LAST_LINES = 20
_ENTER = (
    "import sys; sys.path[:] = [path for path in sys.path if path]; "  # nothing from the folder one logs in to
    "from mlipcluster.deploy.remote import main; main()"
)


@dataclass(frozen=True)
class Errand:
    """What a host is told.

    Attributes
    ----------
    spec : JobSpec
        Its ``scheduler`` is replaced by the address that the host sees, where *port* is given.
    tag : str
        Begins the names of its workers, before the number of their start.
    files : mapping of str to str
        Name and text of what is secret.
    paths : mapping of str to str
        Environment variables that hold the path of one of these files.
    port : int, optional
        Of the scheduler, where that listens on all addresses.
    """

    spec: JobSpec
    tag: str
    files: dict[str, str]
    paths: dict[str, str]
    port: int | None = None

    def __repr__(self) -> str:
        return f"Errand({self.tag!r})"  # no key may come into a log

    def line(self, tag: str, near_address: str | None) -> bytes:
        """As the far end reads it; *near_address* is that of this machine as the host sees it, where that is known."""
        spec = asdict(self.spec)
        if self.port is not None and near_address is not None:
            scheme = spec["scheduler"].partition("://")[0]
            host = f"[{near_address}]" if ":" in near_address else near_address
            spec["scheduler"] = f"{scheme}://{host}:{self.port}"
        return json.dumps({"spec": spec, "tag": tag, "files": self.files, "paths": self.paths}).encode() + b"\n"


class Host(dask_ssh.Worker):
    """A host's workers, started again when they end, as long as that promises anything.

    Attributes
    ----------
    error : MLIPClusterError or None
        Why the host is not tried any more.
    trouble : str
        Why it has no workers at the moment; ``""`` if it has.
    lost : set of str
        Tags of workers whose connection was cut; they were not at fault.
    """

    def __init__(self, scheduler: str, *, errand: Errand, log: Path, **options: Any) -> None:
        super().__init__(scheduler, kwargs={}, **options)
        self.errand = errand
        self.error: MLIPClusterError | None = None
        self.trouble = "is being connected to"
        self.lost: set[str] = set()
        self._log = log
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; whatever comes of it is told by the attributes, so that one host does not keep the others waiting."""
        self._keeper = asyncio.create_task(self._keep())
        await ProcessInterface.start(self)

    async def close(self) -> None:
        """End the far end, which ends its workers, and the connection."""
        if self._keeper is not None:
            process: Any = self.proc
            with contextlib.suppress(Exception):  # it may be gone already, or not be there yet
                process.stdin.write_eof()
                await asyncio.wait_for(process.wait_closed(), CLOSE_SECONDS)
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        await ProcessInterface.close(self)

    async def _keep(self) -> None:
        early = 0
        for start in itertools.count():
            begun = time.monotonic()
            try:
                await self._work(f"{self.errand.tag}-{start}")
            except MismatchError as error:
                self.error = error
            except _NoUseError as error:
                self.error = RunError(f"{self.address}: {error}")
            except RunError as error:
                early = early + 1 if time.monotonic() - begun < EARLY_SECONDS else 1
                if early >= EARLY_DEATHS:
                    self.error = RunError(f"{self.address}: {error} Tried {early} times.")
                self.trouble = f"{error} It is tried again."
            except Exception as error:  # noqa: BLE001 - whatever it is, the run has to hear of it
                self.error = RunError(f"{self.address} cannot be looked after: {type(error).__name__}: {error}.")
            if self.error is not None:
                self.trouble = ""
                return
            await asyncio.sleep(AGAIN_SECONDS)

    async def _work(self, tag: str) -> None:
        """Connect, start the workers, wait for their end, and raise what it means."""
        import asyncssh

        try:
            options = {"connect_timeout": CONNECT_SECONDS, "keepalive_interval": KEEPALIVE_SECONDS}
            options |= {"keepalive_count_max": KEEPALIVES, **self.connect_options}
            self.connection = await asyncssh.connect(self.address, **options)
        except asyncssh.HostKeyNotVerifiable as error:
            raise _NoUseError(
                f"it is not the host that is known by that name, or is not known at all ({error}). Log in once by hand "
                f"(`ssh {self.address}`), and look why its key has changed if it has."
            ) from None
        except asyncssh.PermissionDenied as error:
            raise _NoUseError(
                f"it does not let this user in ({error}). `ssh {self.address} true` has to work without a password; "
                "user= and connect_options={'client_keys': [...]} say who comes and with which key."
            ) from None
        except (OSError, asyncssh.Error, TimeoutError, asyncio.TimeoutError) as error:
            raise RunError(f"it cannot be reached ({type(error).__name__}: {error}).") from None
        try:
            async with self.connection:
                await self._run(self.connection, tag)
        except (ConnectionError, asyncssh.Error) as error:
            self.lost.add(tag)
            raise RunError(f"the connection was lost ({type(error).__name__}: {error}).") from None

    async def _run(self, connection: asyncssh.SSHClientConnection, tag: str) -> None:
        import asyncssh

        command = f"exec {shlex.quote(self.remote_python)} -c {shlex.quote(_ENTER)}"
        self.proc = await connection.create_process(command, stderr=asyncssh.STDOUT, encoding=None)
        near = connection.get_extra_info("sockname")  # which a ProxyCommand has not
        with contextlib.suppress(OSError):  # it may have ended already; its status says why
            self.proc.stdin.write(self.errand.line(tag, near[0] if near else None))
        self.trouble = ""
        words: deque[str] = deque(maxlen=LAST_LINES)
        refusal: dict[str, Any] = {}
        with self._log.open("ab") as log:
            async for line in self.proc.stdout:
                text = line.decode(errors="replace").rstrip()
                if text.startswith(REFUSED):
                    refusal = json.loads(text.removeprefix(REFUSED))
                    continue
                words.append(text)
                log.write(line)
                log.flush()
        await self.proc.wait_closed()
        self._judge(self.proc.exit_status, refusal, "\n".join(words).strip())

    def _judge(self, status: int | None, refusal: dict[str, Any], words: str) -> NoReturn:
        """What the end of the far end means."""
        if refusal:
            raise MismatchError(refusal["text"], tuple(refusal["differences"]))
        if status is None:
            raise ConnectionError("without a word")
        if status == 0:
            raise RunError("its workers have left: they do not reach this machine any more.")
        if status in (126, 127):
            raise _NoUseError(
                f"there is no {self.remote_python!r} that can be run ({words or status}). Give python=, an interpreter "
                "or the folder of an environment as that host sees it."
            )
        if "No module named 'mlipcluster'" in words:
            raise _NoUseError(
                f"{self.remote_python!r} has no mlipcluster; install the same version there, or give python= of an "
                "environment that has it."
            )
        raise RunError(f"its workers ended with status {status}; their last words:\n{words}\n")


class _NoUseError(Exception):
    """Trying again would not help."""
