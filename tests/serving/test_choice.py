"""Served or not: what code, variable and settings say, and what is said where they say nothing."""

from __future__ import annotations

import socket
import threading
import warnings

import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from mlipcluster import get_calculator
from mlipcluster.calculators.registry import resolve
from mlipcluster.calculators.socket_calculator import SocketCalculator
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.errors import CallTimeoutError, InputError, ServerGoneError
from mlipcluster.serving.remote_calculator import RemoteCalculator
from mlipcluster.serving.server import Options


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    """Nobody's settings, and no server at the default address."""
    for name in ("MLIPCLUSTER_USE_SERVE", "MLIPCLUSTER_SERVE_ADDRESS", "MLIPCLUSTER_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def energy(calculator, atoms):
    with calculator:
        return calculator.get_property("energy", atoms)


def expected(atoms):
    return EMT().get_property("energy", atoms)


def test_served_where_a_server_has_it_and_without_a_word(serve, cu):
    here = serve()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calculator = get_calculator("emt", address=here.address)
    assert isinstance(calculator, RemoteCalculator)
    assert energy(calculator, cu()) == expected(cu())


def test_otherwise_here_with_a_word(cu):
    with pytest.warns(UserWarning, match=r"'emt' is not served \(no server answers.*runs here.*MLIPCLUSTER_USE_SERVE"):
        calculator = get_calculator("emt")
    assert isinstance(calculator, SocketCalculator)
    assert energy(calculator, cu()) == expected(cu())


def test_otherwise_here_with_a_word_when_the_server_has_others(serve):
    here = serve()
    with pytest.warns(UserWarning, match="no calculator 'lj' is served here; served: emt"):
        calculator = get_calculator("lj", address=here.address)
    assert isinstance(calculator, SocketCalculator)


def test_otherwise_here_with_a_word_when_the_server_hangs(tmp_path, monkeypatch):
    monkeypatch.setattr("mlipcluster.serving.link.HELLO_SECONDS", 0.3)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "hangs"))
        listener.listen(5)
        with pytest.warns(UserWarning, match=r"'emt' is not served \(.*did not answer within 0\.3 s to a greeting"):
            calculator = get_calculator("emt", address=str(tmp_path / "hangs"))
        assert isinstance(calculator, SocketCalculator)
        with pytest.raises(CallTimeoutError, match="to a greeting"):
            get_calculator("emt", use_serve=True, address=str(tmp_path / "hangs"))


@pytest.mark.parametrize("said", ["true", "1", "yes"])
def test_the_variable_has_it_served_or_fail(serve, monkeypatch, said):
    monkeypatch.setenv("MLIPCLUSTER_USE_SERVE", said)
    with pytest.raises(ServerGoneError, match="no server answers"):
        get_calculator("emt")
    here = serve()
    with pytest.raises(InputError, match="no calculator 'lj' is served here"):
        get_calculator("lj", address=here.address)
    monkeypatch.setenv("MLIPCLUSTER_SERVE_ADDRESS", here.address)
    assert isinstance(get_calculator("emt"), RemoteCalculator)


def test_the_variable_has_it_here(serve, monkeypatch):
    here = serve()
    monkeypatch.setenv("MLIPCLUSTER_USE_SERVE", "false")
    assert isinstance(get_calculator("emt", address=here.address), SocketCalculator)
    assert isinstance(get_calculator("emt", use_serve=True, address=here.address), RemoteCalculator)  # code goes first


def test_what_the_variable_cannot_mean_is_said(monkeypatch):
    monkeypatch.setenv("MLIPCLUSTER_USE_SERVE", "perhaps")
    with pytest.raises(InputError, match="MLIPCLUSTER_USE_SERVE"):
        get_calculator("emt")


def test_a_busy_server_is_waited_for(serve, trial, cu, until):
    """Neither refused, nor computed here in silence."""
    here = serve(Options(max_workers=1), slow=trial("Sleeps", args=(1.0,)))
    threads, found = [], []
    for seed in range(3):
        calculator = get_calculator("slow", use_serve=True, address=here.address)
        ask = lambda one=calculator, seed=seed: found.append((seed, energy(one, cu(seed))))  # noqa: E731
        threads.append(threading.Thread(target=ask))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [(seed, pytest.approx(cu(seed).positions.sum())) for seed in range(3)]
    assert len(here.workers()) == 1


@pytest.mark.parametrize(
    ("calculator", "overrides"),
    [
        ("lj", {"kwargs": {"sigma": 3.0}}),
        (resolve("lj", kwargs={"sigma": 3.0}), {}),
        ({"calculator": "lj", "kwargs": {"sigma": 3.0}}, {}),
    ],
)
def test_what_is_another_calculator_under_the_name_of_one_that_is_served(serve, calculator, overrides):
    here, argon = serve(lj=resolve("lj")), Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 3.5]])
    with pytest.warns(UserWarning, match=r"'lj' is not served \(its kwargs are told here"):
        found = get_calculator(calculator, address=here.address, **overrides)
    assert energy(found, argon) == LennardJones(sigma=3.0).get_property("energy", argon)
    with pytest.raises(InputError, match="served under another"):
        get_calculator(calculator, True, address=here.address, **overrides)


@pytest.mark.parametrize("calculator", [resolve("lj"), CalculatorSpec("ase.calculators.lj:LennardJones", name="mine")])
def test_a_spec_is_served_by_its_name(serve, calculator):
    here = serve(lj=resolve("lj"), mine=resolve("lj"))
    with get_calculator(calculator, True, address=here.address) as found:
        assert found.name == calculator.name


def test_what_the_settings_tables_name_is_there_without_a_server_too(tmp_path, cu):
    (tmp_path / "mine.py").write_text("CALCULATORS = {'mine': 'ase.calculators.emt:EMT'}\n")
    (tmp_path / "pyproject.toml").write_text("[tool.mlipcluster.serve]\ncalculators = ['mine.py:CALCULATORS']\n")
    assert energy(get_calculator("mine", use_serve=False), cu()) == expected(cu())
    with pytest.warns(UserWarning, match="runs here"):
        get_calculator("mine")


def test_a_name_that_nobody_knows():
    with pytest.raises(InputError, match="no-such-model"):
        get_calculator("no-such-model")
