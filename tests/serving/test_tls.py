"""A server asked from other machines: over TLS, by who has credentials of the same authority, and by nobody else."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import ssl
import subprocess
import sys
import threading

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from mlipcluster import get_calculator
from mlipcluster.calculators.provenance import Provenance
from mlipcluster.errors import CalculatorStartError, CallTimeoutError, InputError, ServerGoneError
from mlipcluster.serving import clients
from mlipcluster.serving.address import parse
from mlipcluster.serving.asking import ask
from mlipcluster.serving.credentials import client_context
from mlipcluster.serving.dial import dial
from mlipcluster.serving.link import Link
from mlipcluster.serving.remote_calculator import RemoteCalculator
from mlipcluster.serving.server import Options
from mlipcluster.socket_worker import wire

SERVER = """
import sys, types
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.serving.credentials import server_context
from mlipcluster.serving.offer import Offer
from mlipcluster.serving.server import Server
spec = CalculatorSpec("trial:Sleeps", args=(1.0,), paths=(sys.argv[3],))
known = types.SimpleNamespace(name="slow", source="test", spec=spec, command=None)
server = Server(Offer({"slow": known}), sys.argv[1])
print(server.listeners.listen_tls("127.0.0.1", int(sys.argv[4]), server_context(sys.argv[2])), flush=True)
server.run()
"""


def make_credentials(folder):
    from mlipcluster.deploy.certificates import issue
    from mlipcluster.deploy.credentials_folder import write_folder

    return str(write_folder(folder, issue()))


@pytest.fixture(scope="module")
def credentials(tmp_path_factory):
    return make_credentials(tmp_path_factory.mktemp("tls") / "own")


@pytest.fixture(scope="module")
def others_credentials(tmp_path_factory):
    return make_credentials(tmp_path_factory.mktemp("tls") / "others")


@pytest.fixture
def far(serve, credentials):
    """A server that listens for others as well."""
    here = serve(tls=credentials)
    (here.far,) = here.server.listeners.tls_addresses
    return here


@pytest.fixture
def calculator(far, credentials):
    with RemoteCalculator("emt", far.far, security=credentials) as found:
        yield found


def expected(atoms):
    atoms = atoms.copy()
    atoms.calc = EMT()
    return atoms.get_potential_energy(), atoms.get_forces().tobytes()


def asked(atoms, calculator):
    atoms = atoms.copy()
    atoms.calc = calculator
    return atoms.get_potential_energy(), atoms.get_forces().tobytes()


def test_answers_are_the_same_bits(calculator, cu):
    assert asked(cu(), calculator) == expected(cu())
    copied = pickle.loads(pickle.dumps(calculator))
    assert asked(cu(1), copied) == expected(cu(1))
    copied.close()


def test_the_settings_name_server_and_credentials(far, credentials, cu, monkeypatch):
    monkeypatch.setenv("MLIPCLUSTER_SERVE_ADDRESS", far.far)
    with pytest.raises(InputError, match=r"needs credentials; give .* serve\.tls in the settings"):
        get_calculator("emt", use_serve=True)
    with get_calculator("emt", use_serve=True, security=credentials) as calculator:
        assert calculator.get_property("energy", cu()) == EMT().get_property("energy", cu())
    monkeypatch.setenv("MLIPCLUSTER_SERVE_TLS", credentials)
    with RemoteCalculator("emt") as calculator:
        assert calculator.get_property("energy", cu()) == EMT().get_property("energy", cu())
    assert ask("list")["calculators"]


def test_large_structures_travel(calculator):
    """Over many TLS records each way, and several at a time."""
    crystals = [bulk("Cu", cubic=True) * (14, 14, 14) for _ in range(3)]
    for seed, atoms in enumerate(crystals):
        atoms.rattle(0.01, seed=seed)
    for atoms, results in zip(crystals, calculator.evaluate(crystals, ("energy", "forces")), strict=True):
        assert results["forces"].shape == (len(atoms), 3)
        assert results["energy"] == expected(atoms)[0]


def test_many_structures_at_once(calculator, cu):
    found = calculator.evaluate([cu(seed) for seed in range(100)])
    assert [one["energy"] for one in found] == [expected(cu(seed))[0] for seed in range(100)]


def test_strangers_are_turned_away(far, others_credentials, cu, calculator):
    with pytest.raises(ServerGoneError, match="these credentials"):
        asked(cu(), RemoteCalculator("emt", far.far, security=others_credentials))
    with pytest.raises(InputError, match="needs credentials"):
        asked(cu(), RemoteCalculator("emt", far.far))
    assert asked(cu(), calculator) == expected(cu())


@pytest.mark.parametrize(
    "ask_it",
    [
        lambda link: link.ask(lambda: (wire.head({"kind": "list"}, {}), [])),
        lambda link: list(link.ask_many({0: lambda: wire.encode({"kind": "list"})})),
    ],
)
def test_a_certificate_that_the_server_does_not_take_is_no_error_of_sockets(
    far, credentials, others_credentials, ask_it
):
    """It says so only after the handshake, to whoever reads or writes next."""
    context = ssl.create_default_context(cafile=f"{credentials}/ca.pem")
    context.check_hostname = False
    context.load_cert_chain(f"{others_credentials}/client.pem", f"{others_credentials}/client.key")
    with pytest.raises(ServerGoneError, match="was lost"):
        ask_it(Link("emt", parse(far.far), context, 0, 20.0))


def test_who_has_no_certificate_is_told_nothing(far, cu, calculator):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    where = parse(far.far)
    plain = socket.create_connection((where.host, where.port), timeout=20)
    with contextlib.suppress(ssl.SSLError, ConnectionError), context.wrap_socket(plain) as sock:
        sock.sendall(wire.encode({"kind": "list"}, request_id=1))
        assert sock.recv(100) == b""
    plain.close()
    assert asked(cu(), calculator) == expected(cu())


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\n\r\n", wire.encode({"kind": "list"}, request_id=1), b"\x16\x03"]
)
def test_who_speaks_no_tls_holds_up_nobody(far, cu, calculator, sent):
    where = parse(far.far)
    with socket.create_connection((where.host, where.port), timeout=20) as sock:
        sock.sendall(sent)
        assert asked(cu(), calculator) == expected(cu())


def test_nobody_joins_from_elsewhere_who_was_not_to(far, credentials, cu, calculator):
    told = Provenance("3.11", sys.executable, sys.prefix, implemented_properties=("energy",)).to_json()
    connection = dial(parse(far.far), client_context(credentials))
    try:
        for more in ({}, {"token": "guess"}, {"token": ""}, {"worker": 1}, {"address": far.address}):
            answer = connection.request({"kind": "join", "calculator": "emt", "provenance": told, **more}, timeout=20)
            assert answer.header["error"] == "InputError"
    finally:
        connection.close()
    assert asked(cu(), calculator) == expected(cu())


def test_a_secret_is_good_for_one_join(far, credentials):
    """Dask runs a call again whose worker it has lost; that one may be at work for the server all the same."""
    told = Provenance("3.11", sys.executable, sys.prefix, implemented_properties=("energy",)).to_json()
    asked = {"kind": "join", "calculator": "emt", "provenance": told, "token": "secret"}
    far.server.starters.tokens["secret"] = far.server.dispatch.starting(0.0, "emt")
    with contextlib.ExitStack() as stack:
        answers = []
        for _ in range(2):
            connection = stack.enter_context(contextlib.closing(dial(parse(far.far), client_context(credentials))))
            answers.append(connection.request(asked, timeout=20).header["kind"])
    assert answers == ["joined", "refused"]


def test_the_number_of_a_worker_that_is_to_join_is_no_secret(serve, spawned, credentials, cu):
    here = serve(Options(start_timeout=5.0), tls=credentials, spawned=spawned("sleep", "100"))
    told = Provenance("3.11", sys.executable, sys.prefix, implemented_properties=("energy",)).to_json()
    found = []
    thread = threading.Thread(target=ask_for, args=(here, cu(), found))
    thread.start()
    connection = dial(parse(here.server.listeners.tls_addresses[0]), client_context(credentials))
    try:
        for number in range(1, 5):
            asked = {"kind": "join", "calculator": "spawned", "provenance": told, "worker": number}
            assert connection.request(asked, timeout=20).header["error"] == "InputError"
    finally:
        connection.close()
    thread.join()
    assert len(found) == 1


def ask_for(here, atoms, found):
    with here.calculator("spawned") as calculator, pytest.raises(CalculatorStartError) as caught:
        calculator.get_property("energy", atoms)
    found.append(caught)


def test_who_says_nothing_is_let_go(far, cu, calculator, monkeypatch, until):
    assert asked(cu(), calculator) == expected(cu())
    monkeypatch.setattr(clients, "HANDSHAKE_SECONDS", 0.5)
    where = parse(far.far)
    with contextlib.ExitStack() as stack:
        for _ in range(clients.MOST_STRANGERS + 20):
            stack.enter_context(socket.create_connection((where.host, where.port), timeout=20))
        assert asked(cu(1), calculator) == expected(cu(1))
        until(lambda: far.status()["clients"] <= 3)


def test_those_who_say_nothing_keep_nobody_out(far, credentials, cu):
    where = parse(far.far)
    with contextlib.ExitStack() as stack:
        for _ in range(clients.MOST_STRANGERS + 20):
            stack.enter_context(socket.create_connection((where.host, where.port), timeout=20))
        with RemoteCalculator("emt", far.far, security=credentials, retries=0) as calculator:
            assert asked(cu(), calculator) == expected(cu())
        assert far.status()["clients"] <= clients.MOST_STRANGERS + 3


def test_a_bad_frame_ends_its_own_connection(far, credentials, cu, calculator):
    connection = dial(parse(far.far), client_context(credentials))
    connection.socket.settimeout(20)
    connection.socket.sendall(b"x" * 64)
    received = b""
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        while data := connection.socket.recv(1 << 16):
            received += data
    assert b"no frame of the wire" in received
    connection.close()
    assert asked(cu(), calculator) == expected(cu())


def test_a_flood_of_requests_is_taken_in_turns(far, credentials, cu, calculator):
    """One that sends without a pause, and takes no answers, is read no further."""
    connection = dial(parse(far.far), client_context(credentials))
    stopped = threading.Event()
    frames = wire.encode({"kind": "list"}, request_id=1) * 1000

    def flood():
        with contextlib.suppress(OSError, ValueError):
            while not stopped.is_set():
                connection.socket.sendall(frames)

    thread = threading.Thread(target=flood)
    thread.start()
    for seed in range(20):
        assert asked(cu(seed), calculator) == expected(cu(seed))
    stopped.set()
    connection.shut()
    thread.join()
    connection.close()


def test_a_call_may_be_given_up(far, credentials, cu):
    with RemoteCalculator("emt", far.far, security=credentials, timeout=1e-4) as calculator:
        calculator._link.connect()
        with pytest.raises(CallTimeoutError, match=r"timeout=0\.0001 s"):
            asked(cu(), calculator)


def test_both_ends_notice_that_a_machine_has_gone_without_a_word(far, credentials):
    with contextlib.closing(dial(parse(far.far), client_context(credentials))) as connection:
        connection.request({"kind": "list"}, timeout=20)
        (client,) = far.server.clients._here.values()
        for sock in (connection.socket, client.stream.socket):
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) < 60


def test_status_and_list_are_told_to_those_who_may(far, credentials):
    assert ask("status", far.far, credentials)["tls_addresses"] == [far.far]
    assert [one["name"] for one in ask("list", far.far, credentials)["calculators"]] == ["emt"]


def test_a_server_killed_in_a_calculation_is_missed_at_once_and_its_return_is_used(
    tmp_path, credentials, trial, cu, until
):
    (folder,) = trial("Sleeps").paths
    started = []

    def start(port):
        command = [sys.executable, "-c", SERVER, str(tmp_path / "own" / "s"), credentials, folder, str(port)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1].stdout.readline().strip()

    try:
        address = start(0)
        with RemoteCalculator("slow", address, security=credentials) as calculator:
            found = []
            thread = threading.Thread(target=lambda: found.append(calculator.get_property("energy", cu())))
            thread.start()
            until(lambda: [one for one in ask("status", address, credentials)["workers"] if one["state"] == "busy"])
            os.kill(started[0].pid, signal.SIGKILL)
            started[0].wait()
            assert start(parse(address).port) == address
            thread.join()
        assert found == [pytest.approx(cu().positions.sum())]
    finally:
        for process in started:
            process.kill()
            process.wait()
            process.stdout.close()


def test_forces_of_views_and_odd_arrays_travel(calculator, cu):
    atoms = cu()
    atoms.positions = np.asfortranarray(atoms.positions)
    atoms.info["charge"] = np.float64(0.0)
    assert asked(atoms, calculator) == expected(atoms)
