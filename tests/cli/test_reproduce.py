from __future__ import annotations

import math
import sys

import pytest

from mlipcluster.errors import MismatchError
from mlipcluster.outputs.output import read_output, write_output
from mlipcluster.reproduction import rerun
from mlipcluster.reproduction.audit import Audit
from mlipcluster.reproduction.checks import Difference
from mlipcluster.reproduction.comparison import Quantity, Tolerance


def test_an_output_is_made_again(cli, output_file, tmp_path):
    result = cli("reproduce", output_file, "--report", tmp_path / "page.txt", "-o", tmp_path / "again")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("identical: energy, forces, ")
    assert result.stdout.count("\n") == 1
    page = (tmp_path / "page.txt").read_text()
    assert page.startswith(result.stdout)
    assert "Ada Lovelace" in page
    assert next((tmp_path / "again" / "outputs").rglob("*.extxyz")).is_file()


@pytest.fixture
def told(output_file, monkeypatch):
    """Answer in place of the library, and remember what it was told."""
    calls = []

    def tell(verdict, *differences):
        original = read_output(output_file)
        energy = Quantity("energy", verdict, 1e-9, 3, Tolerance(1e-6, "eV/atom", per_atom=True))
        audit = Audit(verdict, (energy,), differences, ("code", "seeds"), (), original, original)
        monkeypatch.setattr(rerun, "reproduce", lambda *args, **kwargs: calls.append((args, kwargs)) or audit)
        return calls

    return tell


@pytest.mark.parametrize(("verdict", "status"), [("identical", 0), ("within tolerance", 3), ("different", 4)])
def test_the_verdict_is_the_exit_status(cli, told, output_file, verdict, status):
    told(verdict)
    result = cli("reproduce", output_file)
    assert result.exit_code == status
    assert result.stdout.startswith(f"{verdict}: energy (")
    assert ("Compared" in result.stdout) == bool(status)


def test_differences_are_always_printed(cli, told, output_file):
    told("identical", Difference("code", "git commit a -> b"))
    result = cli("reproduce", output_file, "--lenient")
    assert result.exit_code == 0
    assert "NOT as recorded: code" in result.stdout
    assert "git commit a -> b" in result.stdout


def test_the_options_reach_the_library(cli, told, output_file):
    calls = told("identical")
    cli(
        *("reproduce", "--scorefile", output_file.parent, "--output-name", "Cu4-1", "--lenient", "--trust"),
        *("--protocol", "relax", "--protocol", "single_point", "--tolerance", "forces=1e-3"),
        *("--tolerance", "info.seconds=inf", "-O", "timeout=60"),
    )
    ((_, told_kwargs),) = calls
    assert told_kwargs["output_name"] == "Cu4-1"
    assert [protocol.__name__ for protocol in told_kwargs["protocols"]] == ["relax", "single_point"]
    assert told_kwargs["tolerances"] == {"forces": 1e-3, "info.seconds": math.inf}
    assert told_kwargs["instance_kwargs"] == {"timeout": 60}
    assert (told_kwargs["strict"], told_kwargs["trust"]) == (False, True)


def test_a_calculator_that_has_moved(cli, told, output_file, tmp_path):
    calls = told("identical")
    assert cli("reproduce", output_file, "--python", tmp_path).exit_code == 0
    (spec,) = calls[0][1]["instance_kwargs"]["calculators"].values()
    assert spec.python == str(tmp_path)
    assert cli("reproduce", output_file, "--python", f"mace={tmp_path}").exit_code == 2


def test_a_calculator_is_given_as_to_run(cli, told, output_file, tmp_path):
    calls = told("identical")
    given = ("-c", "lj", "-k", "sigma=2.5", "--python", tmp_path, "--device", "cpu")
    assert cli("reproduce", output_file, *given).exit_code == 0
    spec = calls[0][1]["instance_kwargs"]["calculator"]
    assert (spec.name, spec.kwargs, spec.python, spec.device) == ("lj", {"sigma": 2.5}, str(tmp_path), "cpu")
    assert cli("reproduce", output_file, "--device", "cpu").exit_code == 2


def test_where_a_calculator_is_says_nothing_of_which_it_may_be(cli, told, output_file, tmp_path):
    told("identical")
    output = read_output(output_file)
    instance = {**output.record["instance"], "calculators": {"": {"factory": "os:system", "args": ["true"]}}}
    record = {k: v for k, v in output.record.items() if k not in {"digest", "digests"}} | {"instance": instance}
    path = write_output(tmp_path, output.atoms, record)
    result = cli("reproduce", path, "--python", sys.executable)
    assert result.exit_code == 1
    assert "os:system" in result.stderr
    assert cli("reproduce", path, "--python", sys.executable, "--trust").exit_code == 0


def test_a_mismatch_has_its_own_status(cli, output_file, monkeypatch):
    def reproduce(*_, **__):
        raise MismatchError("1 thing is not as recorded", ("numpy 2.4.6 -> 2.4.5",))

    monkeypatch.setattr(rerun, "reproduce", reproduce)
    result = cli("reproduce", output_file)
    assert result.exit_code == 5
    assert result.stderr == "mlipcluster: 1 thing is not as recorded\n"


def test_a_damaged_file_has_its_own_status(cli, output_file, tmp_path):
    changed = tmp_path / "changed.extxyz"
    changed.write_bytes(output_file.read_bytes().replace(b"Ada", b"Eve", 1))
    result = cli("reproduce", changed)
    assert result.exit_code == 6
    assert "author" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [[], ["a.extxyz", "--scorefile", "run"], ["--scorefile", "run"], ["a.extxyz", "--tolerance", "forces=small"]],
)
def test_a_wrong_command_line(cli, arguments):
    assert cli("reproduce", *arguments).exit_code == 2


def test_an_option_that_the_record_decides_is_told(cli, output_file):
    result = cli("reproduce", output_file, "-O", "seed=3")
    assert result.exit_code == 1
    assert result.stderr.startswith("mlipcluster: instance_kwargs (--option): seed cannot be chosen")
