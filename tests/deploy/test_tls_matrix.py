"""Wrong and missing credentials against the scheduler of a run that goes on: all refused, and the run takes no harm."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest
from ase.build import bulk
from distributed import Client
from distributed.security import Security

from mlipcluster import MLIPCluster
from mlipcluster.deploy import tls
from mlipcluster.deploy.certificates import ROLES, Authority, Credentials, issue
from mlipcluster.deploy.vetting import check
from mlipcluster.errors import InputError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*uncommitted changes:UserWarning")]

NOW = dt.datetime.now(dt.timezone.utc)
DAY = dt.timedelta(days=1)


def long(atoms, begun, end):
    """A call that goes on until a file is there."""
    import time
    from pathlib import Path

    Path(begun).touch()
    while not Path(end).exists():
        time.sleep(0.1)
    return atoms


class Going:
    """A run over TLS, one of whose calls goes on until it is told to end."""

    def __init__(self, folder):
        self.authority = Authority("ours", NOW - DAY, NOW + DAY)
        self.good = self.credentials()
        begun, self._end = folder / "begun", folder / "end"
        self._run = MLIPCluster(
            {"atoms": bulk("Cu"), "begun": str(begun), "end": str(self._end)},
            security=tls.from_credentials(self.good),
            max_workers=2,
            output_path=folder / "run",
            progress=False,
        )
        self._thread = threading.Thread(target=self._work)
        self.outputs = []
        self._thread.start()
        for _ in range(1200):
            if begun.exists():
                break
            time.sleep(0.1)
        assert begun.exists()
        self.client.wait_for_workers(2, timeout=120)

    @property
    def client(self):
        return self._run._workers._crews[0].client

    @property
    def address(self):
        return self.client.scheduler.address

    def credentials(self, begin=NOW - DAY, end=NOW + DAY):
        made = {role: self.authority.certify(role, begin, end) for role in ROLES}
        return Credentials(
            self.authority.certificate, {r: c for r, (c, _) in made.items()}, {r: k for r, (_, k) in made.items()}
        )

    def _work(self):
        self.outputs += self._run.generate(long)

    def is_unharmed(self):
        """The same workers, who still work."""
        assert self.client.submit(sum, [1, 2], pure=False).result(timeout=60) == 3
        assert len(self.client.scheduler_info(n_workers=-1)["workers"]) == 2
        return True

    def end(self):
        self._end.touch()
        self._thread.join(120)
        assert not self._thread.is_alive()


@pytest.fixture(scope="module")
def going(tmp_path_factory):
    going = Going(tmp_path_factory.mktemp("matrix"))
    pids = going.client.run(os.getpid)
    yield going
    assert going.client.run(os.getpid) == pids
    going.end()
    assert len(going.outputs) == 1


def client_of(security, address, seconds=3):
    with contextlib.closing(Client(address, security=security, timeout=seconds, set_as_default=False)) as client:
        return client.submit(sum, [1, 2]).result(timeout=60)


def mixed(going, **others):
    """The run's own credentials, save for these."""
    security = tls.from_credentials(going.good)
    for name, value in others.items():
        setattr(security, name, value)
    return security


def test_the_right_ones_are_let_in(going):
    assert client_of(tls.from_credentials(going.good), going.address, seconds=60) == 3


STRANGER = issue()


def plain_text(going):
    return going.address.replace("tls://", "tcp://"), None


def other_authority(going):
    return going.address, mixed(
        going, tls_client_cert=STRANGER.certificates["client"], tls_client_key=STRANGER.keys["client"]
    )


def all_of_another(going):
    return going.address, tls.from_credentials(STRANGER)


def another_authority_known(going):
    return going.address, mixed(going, tls_ca_file=STRANGER.authority)


def expired(going):
    return going.address, tls.from_credentials(going.credentials(NOW - 3 * DAY, NOW - 2 * DAY))


def not_yet_valid(going):
    return going.address, tls.from_credentials(going.credentials(NOW + 2 * DAY, NOW + 3 * DAY))


def self_signed(going):
    own = Security.temporary()
    return going.address, mixed(going, tls_client_cert=own.tls_client_cert, tls_client_key=own.tls_client_key)


def another_s_key(going):
    return going.address, mixed(going, tls_client_key=going.good.keys["worker"])


def the_authority_s_name_alone(going):
    """An authority of the very same name, with a key of its own."""
    false = Authority("ours", NOW - DAY, NOW + DAY)
    false._issuer = going.authority._issuer
    cert, key = false.certify("client", NOW - DAY, NOW + DAY)
    return going.address, mixed(going, tls_client_cert=cert, tls_client_key=key)


CLIENTS = {
    plain_text: None,
    all_of_another: None,
    other_authority: "client's certificate .* is not the authority",
    another_authority_known: "scheduler's certificate .* is not the authority",
    expired: "certificate .*expired at .* clock says",
    not_yet_valid: "valid from .* on, but this machine's clock",
    self_signed: "client's certificate .* is not the authority",
    another_s_key: "client's key .* does not belong",
    the_authority_s_name_alone: "client's certificate .* is not the authority",
}
"""For each kind, what we say of such credentials before anything is started, where they alone show what is wrong."""


@pytest.mark.parametrize(("kind", "ours"), CLIENTS.items(), ids=[kind.__name__ for kind in CLIENTS])
def test_a_client_with_wrong_credentials_is_refused(going, kind, ours):
    address, security = kind(going)
    with pytest.raises((OSError, TimeoutError, RuntimeError)):
        client_of(security, address)
    if ours is not None:
        with pytest.raises(InputError, match=ours):
            check(security)
    assert going.is_unharmed()


def test_a_client_without_a_certificate_is_refused(going):
    context = ssl.create_default_context(cadata=going.good.authority)
    context.check_hostname = False
    host, port = going.address.removeprefix("tls://").split(":")
    with (
        socket.create_connection((host, int(port)), timeout=30) as plain,
        context.wrap_socket(plain) as connection,
        pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"),
    ):
        connection.recv(1)  # with TLS 1.3, the other end's verdict comes after the handshake
    assert going.is_unharmed()


def worker_of(variables, address, log):
    """Try to have a worker join, with these variables; what it says."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DASK_")}
    with log.open("wb") as file:
        ended = subprocess.run(
            [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny", "--death-timeout", "4",
             "--no-dashboard", "--nthreads", "1"],
            env={**environment, **variables, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "4s"},
            stdout=file, stderr=file, timeout=120, check=False,
        )  # fmt: skip
    assert ended.returncode != 0
    return log.read_text()


def no_credentials(good):
    return {}


def no_certificate(good):
    return {name: value for name, value in good.items() if "WORKER" not in name}


def key_of_another(good):
    return good | {"DASK_DISTRIBUTED__COMM__TLS__WORKER__KEY": STRANGER.keys["worker"]}


def certificate_of_another(good):
    return good | {
        "DASK_DISTRIBUTED__COMM__TLS__WORKER__KEY": STRANGER.keys["worker"],
        "DASK_DISTRIBUTED__COMM__TLS__WORKER__CERT": STRANGER.certificates["worker"],
    }


@pytest.mark.parametrize(
    "kind", [no_credentials, no_certificate, key_of_another, certificate_of_another], ids=lambda kind: kind.__name__
)
def test_a_worker_with_wrong_credentials_does_not_join(going, kind, tmp_path):
    good = tls.worker_variables(tls.from_credentials(going.good), tmp_path / "private")
    log = worker_of(kind(good), going.address, tmp_path / "log")
    assert "Error" in log or "Timed out" in log, log
    assert going.is_unharmed()


def test_a_worker_in_plain_text_does_not_join(going, tmp_path):
    log = worker_of({}, going.address.replace("tls://", "tcp://"), tmp_path / "log")
    assert "Error" in log or "Timed out" in log, log
    assert going.is_unharmed()


def test_the_run_keeps_its_workers_key_to_itself(going):
    """Neither in the command lines nor in the variables of any process that it started."""
    import psutil

    keys = [key.split()[4] for key in going.good.keys.values()]  # a line out of the middle of each
    processes = psutil.Process().children(recursive=True)
    assert processes
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            told = " ".join([*process.cmdline(), *process.environ().values()])
            assert "PRIVATE KEY" not in told
            assert not any(key in told for key in keys)
