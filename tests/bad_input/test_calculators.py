"""Calculators that cannot be had or that die: an error or a failure that names them; everything else is finished."""

from __future__ import annotations

import venv

import pytest
from ase.build import bulk

from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.errors import CalculatorStartError, InputError
from mlipcluster.protocols import single_point

METALS = [bulk(name) for name in ("Cu", "Ag", "Au", "Ni")]

TREACHEROUS = """
import ctypes, os, sys, time
from ase.calculators.emt import EMT

class Treacherous(EMT):
    def __init__(self, how):
        super().__init__()
        self.how = how

    def calculate(self, atoms=None, *args, **kwargs):
        if "Ag" in atoms.symbols:
            print("so this is the end", flush=True)
            if self.how == "segfault":
                ctypes.string_at(0)
            if self.how == "exit":
                os._exit(7)
            if self.how == "sys.exit":
                sys.exit(7)
            if self.how == "hang":
                ctypes.PyDLL(None).sleep(600)
            if self.how == "raise":
                raise ValueError("silver is not for me")
            if self.how == "garbage":
                os.write(1, b"x" * 1_000_000)
        super().calculate(atoms, *args, **kwargs)
"""


@pytest.fixture
def treacherous(tmp_path):
    (tmp_path / "treacherous.py").write_text(TREACHEROUS)
    return CalculatorSpec("treacherous:Treacherous", paths=(str(tmp_path),), name="treacherous")


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("segfault", "WorkerDiedError", "the process of calculator 'treacherous' ended with signal SIGSEGV"),
        ("exit", "WorkerDiedError", "ended with exit status 7"),
        ("raise", "RemoteValueError", "silver is not for me"),
    ],
)
def test_a_calculator_that_dies_of_one_structure(run, treacherous, how, kind, words):
    results = run(METALS, single_point, calculator=treacherous.replace(kwargs={"how": how}))
    (failure,) = results.failures
    assert failure.type.rpartition(".")[2] == kind
    assert words in failure.message
    assert failure.source == "task 1"
    assert len(results) == 3


def test_the_last_words_of_a_calculator_are_in_the_failure(run, treacherous):
    (failure,) = run(METALS, single_point, calculator=treacherous.replace(kwargs={"how": "segfault"})).failures
    assert "so this is the end" in failure.message


def test_a_calculator_that_leaves_by_sys_exit(run, treacherous):
    results = run(METALS, single_point, calculator=treacherous.replace(kwargs={"how": "sys.exit"}))
    assert [failure.source for failure in results.failures] == ["task 1"]
    assert len(results) == 3


def test_a_calculator_that_prints_on_the_way(run, treacherous):
    results = run(METALS, single_point, calculator=treacherous.replace(kwargs={"how": "garbage"}))
    assert len(results) == 4


@pytest.mark.parametrize("option", ["timeout", "call_timeout"])
def test_a_calculator_that_hangs(run, treacherous, option):
    spec = treacherous.replace(kwargs={"how": "hang"})
    options = {"timeout": 2.0} if option == "timeout" else {}
    if option == "call_timeout":
        spec = spec.replace(call_timeout=1.0)
    results = run(METALS, single_point, calculator=spec, **options)
    (failure,) = results.failures
    kinds = {"timeout": "ProtocolTimeoutError", "call_timeout": "CallTimeoutError"}
    assert failure.type.rpartition(".")[2] == kinds[option]
    assert failure.source == "task 1"
    assert len(results) == 3


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (CalculatorSpec("no_such_module:Calculator"), "no_such_module"),
        (CalculatorSpec("ase.calculators.emt:NoSuch"), "NoSuch"),
        (CalculatorSpec("ase.calculators.emt:EMT", kwargs={"no_such_argument": 1, "directory": 7}), "EMT"),
        (CalculatorSpec("ase.calculators.emt:EMT", python="/no/such/python"), "/no/such/python"),
        (CalculatorSpec("ase.calculators.emt:EMT", python="/bin/false"), "/bin/false"),
        (CalculatorSpec("ase.calculators.emt:EMT", python="/etc/passwd"), "/etc/passwd"),
        (CalculatorSpec("os:getcwd"), "'os:getcwd' gave a str, not a calculator of ASE's"),
        (CalculatorSpec("os:_exit", args=(3,)), "exit status 3"),
    ],
    ids=["module", "name", "argument", "interpreter", "no interpreter", "no program", "no calculator", "exit"],
)
def test_a_calculator_that_cannot_be_had_is_told_before_any_task(run, run_folder, spec, words):
    with pytest.raises(CalculatorStartError) as caught:
        run(METALS, single_point, calculator=spec)
    assert words in str(caught.value)
    assert not (run_folder / "outputs").exists()
    assert not (run_folder / "failures").exists()


def test_an_interpreter_without_ase(run, tmp_path):
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    with pytest.raises(CalculatorStartError, match="No module named") as caught:
        run(METALS, single_point, calculator=CalculatorSpec("ase.calculators.emt:EMT", python=str(tmp_path / "bare")))
    assert "numpy" in str(caught.value) or "ase" in str(caught.value)


def test_a_run_that_could_not_start_can_once_it_is_mended(run):
    with pytest.raises(CalculatorStartError):
        run(METALS, single_point, calculator=CalculatorSpec("ase.calculators.emt:EMT", python="/no/such/python"))
    assert len(run(METALS, single_point, calculator=CalculatorSpec("ase.calculators.emt:EMT"))) == 4


def test_an_unknown_name_lists_the_known(run):
    with pytest.raises(InputError, match="emt"):
        run(METALS, single_point, calculator="emtt")


SLOW_START = "import time\ndef make():\n    time.sleep(600)\n"


def test_a_calculator_that_never_gets_ready(run, tmp_path):
    (tmp_path / "slow_start.py").write_text(SLOW_START)
    spec = CalculatorSpec("slow_start:make", paths=(str(tmp_path),), startup_timeout=1.0)
    with pytest.raises(CalculatorStartError, match="was not ready after startup_timeout=1 s"):
        run(METALS, single_point, calculator=spec)
