from __future__ import annotations

import sys
import types

import pytest

from mlipcluster.calculators.host import WorkerHost
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.socket_worker.device import device_of

FACTORY = """
from ase.calculators.emt import EMT


def with_device(device="cpu"):
    calculator = EMT()
    calculator.device = f"told {device}"
    return calculator


def without():
    calculator = EMT()
    calculator.device = "its own"
    return calculator
"""
TORCH = "class cuda:\n    @staticmethod\n    def is_available():\n        return True\n"


def torch_with(*kinds):
    """A torch that says it sees these."""
    made = types.ModuleType("torch")

    def see(name):
        return types.SimpleNamespace(is_available=lambda: name in kinds)

    made.cuda, made.xpu, made.backends = see("cuda"), see("xpu"), types.SimpleNamespace(mps=see("mps"))
    return made


def takes(device=None):
    """A factory."""


def uses(use_device=None):
    """Another's word for it."""


def takes_a_gpu(model="", device="cuda"):
    """Rootstock's form."""


def takes_anything(**parameters):
    """Its parameters are not known."""


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [(["cuda", "mps", "xpu"], "cuda"), (["mps"], "mps"), (["xpu"], "xpu"), ([], "cpu")],
)
def test_auto_is_what_torch_sees(monkeypatch, kinds, expected):
    monkeypatch.setitem(sys.modules, "torch", torch_with(*kinds))
    assert device_of(takes, {"device": "auto"}) == expected
    assert device_of(uses, {"device": "auto"}) == expected


def test_auto_is_the_cpu_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert device_of(takes, {"device": "auto"}) == "cpu"


def test_an_old_torch_knows_fewer_kinds(monkeypatch):
    torch = types.ModuleType("torch")
    torch.cuda = types.SimpleNamespace(is_available=lambda: False)
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert device_of(takes, {"device": "auto"}) == "cpu"


def test_auto_is_not_forced_on_a_factory(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", torch_with("cuda"))
    assert device_of(takes_anything, {"device": "auto"}) is None
    assert device_of(takes, {"device": "auto", "kwargs": {"device": "cpu"}}) is None
    assert device_of(takes, {"device": "auto", "args": ["cpu"]}) is None


@pytest.mark.parametrize(("kinds", "expected"), [(["cuda"], None), (["mps"], "cpu"), ([], "cpu")])
def test_a_factory_that_takes_a_gpu_is_told_when_there_is_none(monkeypatch, kinds, expected):
    monkeypatch.setitem(sys.modules, "torch", torch_with(*kinds))
    assert device_of(takes_a_gpu, {}) == expected
    assert device_of(takes_a_gpu, {"kwargs": {"device": "cuda:1"}}) is None
    assert device_of(takes, {}) is None


def test_what_is_said_is_done():
    assert device_of(takes_a_gpu, {"device": "cuda:3"}) == "cuda:3"
    assert device_of(takes_anything, {"device": "cpu"}) == "cpu"


def test_a_worker_decides_in_its_own_environment(tmp_path):
    (tmp_path / "made_here.py").write_text(FACTORY)
    (tmp_path / "torch.py").write_text(TORCH)
    for factory, expected in (("with_device", "told cuda"), ("without", "its own")):
        spec = CalculatorSpec(f"made_here:{factory}", paths=(str(tmp_path),), device="auto")
        with WorkerHost(spec) as host:
            assert host.provenance().devices == (expected,)
