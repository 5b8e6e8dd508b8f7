from __future__ import annotations

import json
import warnings

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from mlipcluster.cli.console import command, pairs
from mlipcluster.errors import CalculatorStartError, MismatchError, RecordError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.text(min_size=1).filter(lambda key: "=" not in key), VALUES)
def test_a_value_that_is_json_is_read_as_json(key, value):
    assert pairs("--param", [f"{key}={json.dumps(value)}"]) == {key: value}


@pytest.mark.parametrize(
    ("text", "value"),
    [("BFGS", "BFGS"), ("True", True), ("None", None), ("a=b", "a=b"), ("", ""), ("1e-3", 1e-3), ("[1, 2", "[1, 2")],
)
def test_anything_else_is_text(text, value):
    assert pairs("--param", [f"key={text}"]) == {"key": value}


@pytest.mark.parametrize("text", ["fmax", "=1", ""])
def test_a_pair_without_a_key_or_sign_is_a_wrong_command_line(text):
    with pytest.raises(typer.BadParameter, match="write key=value"):
        pairs("--param", [text])


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (CalculatorStartError("it did not start; install it."), 1, "mlipcluster: it did not start; install it.\n"),
        (MismatchError("numpy 2 -> 1", ("numpy 2 -> 1",)), 5, "mlipcluster: numpy 2 -> 1\n"),
        (RecordError("changed."), 6, "mlipcluster: changed.\n"),
        (RecordError("a name \x1b]0;evil\x07"), 6, "mlipcluster: a name \\x1b]0;evil\\x07\n"),
        (ZeroDivisionError("by zero"), 1, "mlipcluster: ZeroDivisionError: by zero (--debug shows where)\n"),
        (PermissionError(13, "Permission denied", "/x"), 1, "mlipcluster: [Errno 13] Permission denied: '/x'.\n"),
        (KeyboardInterrupt(), 130, "mlipcluster: interrupted; what is done is saved\n"),
    ],
)
def test_each_error_is_one_paragraph_and_a_status(capsys, error, status, said):
    @command
    def fails(*, debug=False):
        raise error

    with pytest.raises(typer.Exit) as caught:
        fails()
    assert caught.value.exit_code == status
    assert capsys.readouterr().err == said


def test_a_warning_for_users_is_one_paragraph_and_others_stay_as_they_are(capsys):
    @command
    def warns(*, debug=False):
        warnings.warn("there are uncommitted changes", stacklevel=2)
        warnings.warn("old", DeprecationWarning, stacklevel=2)

    with pytest.warns(DeprecationWarning, match="old"):
        warns()
    assert capsys.readouterr().err == "mlipcluster: warning: there are uncommitted changes\n"


def test_debug_shows_the_traceback(capsys):
    @command
    def fails(*, debug=False):
        raise RecordError("changed.")

    with pytest.raises(typer.Exit):
        fails(debug=True)
    errors = capsys.readouterr().err
    assert "Traceback (most recent call last)" in errors
    assert "in fails" in errors
