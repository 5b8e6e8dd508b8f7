from __future__ import annotations

import sys

import pytest

from mlipcluster.calculators.registry import resolve
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.errors import InputError
from mlipcluster.reproduction.permission import check_calculator


@pytest.mark.parametrize(
    "spec",
    [
        resolve("emt"),
        resolve("emt", python=sys.executable, threads=2),
        resolve("chgnet", python=sys.executable, device="cuda:1", call_timeout=60.0),
        CalculatorSpec("chgnet.model.dynamics:CHGNetCalculator", state="reset", name="another name"),
    ],
)
def test_what_has_a_short_name_may_be_started_wherever_it_runs(spec):
    check_calculator("", spec)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (CalculatorSpec("os:system", args=("true",)), r"calls os:system\('true'\)"),
        (resolve("emt", kwargs={"model": "weights.pt"}), r"calls ase\.calculators\.emt:EMT\(model="),
        (resolve("emt", state="calculate"), "calls ase"),
        (resolve("emt", paths=["/downloads"]), "imports from /downloads"),
        (resolve("emt", environment={"LD_PRELOAD": "x.so"}), "sets environment variables .LD_PRELOAD"),
        (resolve("emt", python="/bin/sh"), "runs in /bin/sh, which is not the full path of a Python"),
        (resolve("emt", python="bin/python"), "which is not the full path of a Python"),
        (resolve("emt", python="/there/is/no/python"), "which is not here"),
        (resolve("emt", python=f"/proc/self/root{sys.executable}"), "which is not the full path of a Python"),
        (resolve("emt", python=f"/dev/fd/../root{sys.executable}"), "which is not the full path of a Python"),
    ],
)
def test_anything_else_needs_the_callers_word(spec, told):
    with pytest.raises(
        InputError, match=f"calculator 'x' of the record .*{told}.*instance_kwargs.*--calculator.*--trust"
    ):
        check_calculator("x", spec)


def test_an_interpreter_of_another_user_is_not_started(tmp_path, monkeypatch):
    (tmp_path / "python").touch()
    spec = resolve("emt", python=str(tmp_path / "python"))
    check_calculator("", spec)
    owner = (tmp_path / "python").stat()
    monkeypatch.setattr("pathlib.Path.stat", lambda *_, **__: type("", (), {"st_uid": 12345, "st_mode": owner.st_mode}))
    with pytest.raises(InputError, match="belongs to another user"):
        check_calculator("", spec)
