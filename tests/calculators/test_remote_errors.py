from __future__ import annotations

import pickle

import pytest
from ase.calculators.calculator import CalculatorError as ASECalculatorError
from ase.calculators.calculator import PropertyNotImplementedError, SCFError

from mlipcluster.calculators.remote_errors import remote_error
from mlipcluster.errors import CalculatorError, RemoteCalculatorError
from mlipcluster.socket_worker.errors import describe_error


class OwnError(LookupError):
    pass


def remote(error):
    try:
        raise error
    except BaseException as raised:
        return remote_error("x", describe_error(raised))


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (KeyError("He"), KeyError),
        (ValueError("v"), ValueError),
        (NotImplementedError("n"), NotImplementedError),
        (FileNotFoundError(2, "gone", "f"), FileNotFoundError),
        (ZeroDivisionError("z"), ArithmeticError),
        (MemoryError("m"), MemoryError),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), ValueError),
        (SCFError("s"), SCFError),
        (SCFError("s"), ASECalculatorError),
        (PropertyNotImplementedError("p"), PropertyNotImplementedError),
        (OwnError("o"), LookupError),
        (RuntimeError("r"), RuntimeError),
        (Exception("e"), RemoteCalculatorError),
        (SystemExit(3), RemoteCalculatorError),
        (KeyboardInterrupt(), RemoteCalculatorError),
        (StopIteration(1), StopIteration),
    ],
)
def test_it_is_caught_as_what_it_was_and_survives_pickling(error, base):
    first = remote(error)
    for raised in (first, pickle.loads(pickle.dumps(first))):
        assert isinstance(raised, base)
        assert isinstance(raised, RemoteCalculatorError)
        assert isinstance(raised, CalculatorError)
        assert raised.type_name.endswith(type(error).__qualname__)
        assert type(error).__qualname__ in str(raised)
        assert "Traceback" in raised.remote_traceback
        assert str(raised) == str(first)
        assert type(raised) is type(first)


def test_the_message_is_in_the_message():
    assert str(remote(KeyError("He"))) == "calculator 'x' raised KeyError: He"
    assert "gone" in str(remote(FileNotFoundError(2, "gone", "f")))


def test_nothing_is_imported_because_an_answer_says_so():
    error = remote_error("x", {"types": ["antigravity.Error", "os.PathLike", "builtins.print"], "message": "m"})
    assert type(error) is RemoteCalculatorError
    assert "antigravity" not in __import__("sys").modules


def test_an_answer_without_anything_is_an_error_still():
    assert isinstance(remote_error("x", {}), RemoteCalculatorError)
