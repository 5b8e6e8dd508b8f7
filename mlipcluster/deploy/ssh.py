"""Dask workers on machines that one can log in to by SSH."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from mlipcluster.deploy import checking
from mlipcluster.deploy.deployment import Deployment, Place, check_whole
from mlipcluster.errors import InputError

if TYPE_CHECKING:
    from mlipcluster.deploy.ssh_crew import SSHCrew

CHECKED = (
    *("processes", "cores", "gpus", "processes_per_gpu", "python", "scratch", "interface", "host", "environment"),
    "same_versions",
)
"""Fields that are those of a batch system too."""


@dataclass(frozen=True, kw_only=True)
class SSH(Deployment):
    """Workers on machines that are reached by SSH, through Dask's own classes for it and ``asyncssh``.

    The scheduler runs in this process, and the machines have to reach it.

    Attributes
    ----------
    hosts : sequence of str
        Names or addresses, each once.
    processes : int, optional
        Workers on each host, each of which runs one protocol at a time. Default: one a GPU, times `processes_per_gpu`;
        one where there is no GPU.
    cores : int, optional
        Of each host; its processes share them. Default: one a process.
    gpus : int
        Of each host.
    processes_per_gpu : int
        How many share a GPU.
    python : str, optional
        What runs the workers, as the hosts see it: an interpreter, the folder of an environment, or the name of one in
        the root. Default: this process's interpreter.
    user : str, optional
        Whom to log in as. Default: what ``~/.ssh/config`` says, else this user.
    port : int, optional
        Of the SSH server. Default: what ``~/.ssh/config`` says, else 22.
    connect_options : mapping of str to object
        More arguments of ``asyncssh.connect``: ``client_keys``, ``known_hosts``, ``config``.
    scratch : str, optional
        Folder of the host beneath which its workers have one of their own. Default: the system's for temporary files.
    interface, host : str, optional
        Network interface, or name or address, of this machine on which workers reach it. Default: the address that the
        connection to each host leaves from.
    environment : mapping of str to str
        Variables of the workers.
    same_versions : bool
        Refuse workers whose packages differ from this process's, instead of recording that.

    Raises
    ------
    InputError
        A field cannot be meant; the message names it.

    Warns
    -----
    UserWarning
        ``known_hosts=None`` lets any machine pass for a host.
    """

    kind: ClassVar[str] = "ssh"

    hosts: Sequence[str]
    processes: int | None = None
    cores: int | None = None
    gpus: int = 0
    processes_per_gpu: int = 1
    python: str | None = None
    user: str | None = None
    port: int | None = None
    connect_options: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)  # may hold a passphrase
    scratch: str | None = None
    interface: str | None = None
    host: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)
    same_versions: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "hosts", _hosts(self.hosts))
        checking.check_fields(self, CHECKED)
        checking.check_lines(self, ("user",))
        if self.port is not None:
            check_whole("port", self.port, 1)
        if not isinstance(self.connect_options, Mapping):
            raise InputError(
                f"connect_options={self.connect_options!r:.80}: give arguments of asyncssh.connect by name, such as "
                '{"client_keys": ["~/.ssh/id_ed25519"]}.'
            )
        if self.interface is not None and self.host is not None:
            raise InputError(f"interface={self.interface!r} and host={self.host!r} are both given; give one of them.")
        object.__setattr__(self, "connect_options", dict(self.connect_options))
        object.__setattr__(self, "environment", dict(self.environment))
        if "known_hosts" in self.connect_options and self.connect_options["known_hosts"] is None:
            warnings.warn(
                "connect_options: with known_hosts=None whoever passes for a host is sent the run's credentials. Leave "
                "it out, and log in to each host once by hand, which notes its key.",
                stacklevel=3,
            )

    @property
    def workers_each(self) -> int:
        """Workers on a host."""
        return self.processes or max(1, self.gpus * self.processes_per_gpu)

    @property
    def interpreter(self) -> str:
        """The Python that runs the workers, as the hosts see it."""
        python = self.python or sys.executable
        is_program = re.fullmatch(r"(python|pypy)[\d.]*", os.path.basename(python))
        return python if is_program else f"{python}/bin/python"

    def offers(self) -> Mapping[str, float]:
        """A worker's GPUs, where the hosts have some."""
        return {"GPU": float(max(1, self.gpus // self.workers_each))} if self.gpus else {}

    def start(self, place: Place) -> SSHCrew:
        """Start the scheduler in this process, and workers on the hosts.

        Raises
        ------
        InputError
            ``asyncssh`` is not installed.
        """
        try:
            import asyncssh  # noqa: F401
        except ImportError:
            raise InputError(
                "SSH(…) needs asyncssh, which is not installed; `pip install 'mlipcluster[ssh]'` brings it."
            ) from None
        from mlipcluster.deploy.ssh_crew import SSHCrew

        return SSHCrew(self, place)


def _hosts(given: Any) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InputError(f"hosts={given!r:.80}: give a list of names or addresses, such as ['node1', 'node2'].")
    for host in given:
        if not isinstance(host, str) or not host.strip() or not host.isprintable() or " " in host or "@" in host:
            raise InputError(f"hosts: {host!r:.80} is no name or address; users are named by user=, ports by port=.")
    if not given:
        raise InputError("hosts is empty; give at least one name or address.")
    if twice := [host for number, host in enumerate(given) if host in given[:number]]:
        raise InputError(f"hosts: {twice[0]!r} is there twice; for more workers on a host say processes=.")
    return tuple(given)
