from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlipcluster.calculators.known import Known
from mlipcluster.calculators.offered import Place, offered
from mlipcluster.calculators.spawn import SpawnConfig
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.errors import InputError

PLACE = Place("here", "module", "TABLE", "/tables")


class Device(enum.Enum):
    AUTO = "auto"


@dataclass
class Model:
    """As mlipx's, which is not installed."""

    module: str
    class_name: str
    device: object = None
    kwargs: dict | None = None
    extra: list | None = None
    name: str | None = None

    def get_calculator(self):
        raise AssertionError("would ask mlipx")


@dataclass
class TheirSpawnConfig:
    """As aserpc's, which is not installed."""

    name: str
    command: list
    env: dict | None = None
    cwd: Path | None = None
    idle_timeout: float = 300.0


def test_specs_take_the_name_of_their_key():
    spec = CalculatorSpec("a:b", name="other", paths=("/more",), device="cpu")
    expected = Known("x", "here", CalculatorSpec("a:b", name="x", paths=("/more", "/tables"), device="cpu"))
    assert offered("x", spec, PLACE) == expected
    assert offered("x", spec.to_json(), PLACE) == expected
    assert offered("x", "a:b", PLACE).spec == CalculatorSpec("a:b", name="x", paths=("/tables",))


@pytest.mark.parametrize("device", ["auto", Device.AUTO])
def test_an_mlipx_model_is_read_by_its_attributes(device):
    model = Model("mace.calculators", "mace_mp", device, {"model": "../medium.model"}, ["mace"])
    found = offered("mace-mpa-0", model, PLACE)
    assert found.spec == CalculatorSpec(
        "mace.calculators:mace_mp",
        kwargs={"model": "../medium.model"},
        device="auto",
        paths=("/tables",),
        name="mace-mpa-0",
    )
    assert found.why == "needs what mlipx installs as its extras: mace"
    bare = offered("chgnet", Model("chgnet.model.model", "CHGNet"), PLACE)
    assert (bare.spec.device, bare.spec.kwargs, bare.why) == (None, {}, "")


def test_commands_in_every_form():
    command = ["mlipcluster", "worker", "{name}", "--kwargs", '{"model": "medium"}']
    ours = SpawnConfig("x", command, idle_timeout=60)
    for value in (ours, {"command": command, "idle_timeout": 60}, TheirSpawnConfig("other", command, idle_timeout=60)):
        assert offered("x", value, PLACE) == Known("x", "here", None, ours)


def test_a_command_of_aserpcs_worker_is_refused_where_it_is():
    with pytest.raises(InputError, match=r"here: 'lj': calculator 'lj': .*write `mlipcluster worker`"):
        offered("lj", TheirSpawnConfig("lj", ["aserpc", "worker", "lj"]), PLACE)


def test_a_calculator_with_a_command_is_a_calculator():
    from ase.calculators.emt import EMT
    from ase.calculators.genericfileio import GenericFileIOCalculator  # noqa: F401 - such have commands

    calculator = EMT()
    calculator.command = "pw.x"
    with pytest.raises(InputError, match="is a calculator already"):
        offered("x", calculator, PLACE)


@pytest.mark.parametrize("value", [None, 3, [], Path("a"), object()])
def test_what_is_nothing_of_these_is_refused(value):
    with pytest.raises(InputError, match=r"here: 'x': .* is no calculator; give a class or function"):
        offered("x", value, PLACE)
