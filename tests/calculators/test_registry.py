from __future__ import annotations

import pytest

from mlipcluster.calculators import known
from mlipcluster.calculators.known import Known
from mlipcluster.calculators.registry import names, resolve
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.errors import InputError


def test_names_resolve_to_themselves():
    for name, spec in names().items():
        assert resolve(name) == spec
        assert spec.name == name


def test_every_way_to_say_it():
    emt = resolve("emt")
    assert resolve(emt) is emt
    assert resolve(emt.to_json()) == emt
    assert resolve({"calculator": "emt"}) == emt
    assert resolve({"calculator": "emt", "threads": 2}) == resolve("emt", threads=2) == emt.replace(threads=2)
    assert resolve("ase.calculators.emt:EMT") == CalculatorSpec("ase.calculators.emt:EMT")


def test_an_unknown_name_lists_the_known_and_guesses():
    with pytest.raises(InputError, match=r"chgnet, emt, lj.*Did you mean 'chgnet'"):
        resolve("chgnett")
    with pytest.raises(InputError, match=r"known: .*emt"):
        resolve("")


@pytest.mark.parametrize("what", [3, None, object()])
def test_what_is_no_calculator_is_refused(what):
    with pytest.raises(InputError, match="module:callable"):
        resolve(what)


def test_an_ase_calculator_object_is_refused_with_the_remedy():
    from ase.calculators.emt import EMT

    with pytest.raises(InputError, match="EMT is not a calculator that can be started elsewhere"):
        resolve(EMT())


def test_an_unknown_field_is_named():
    with pytest.raises(InputError, match="'core'"):
        resolve("emt", core=3)


def test_more_sources_can_be_added_and_do_not_take_names(monkeypatch):
    mine = CalculatorSpec("a:b", name="mine")
    monkeypatch.setitem(known.SOURCES, "mine", lambda _: [Known("mine", "mine", mine), Known("emt", "mine", mine)])
    assert resolve("mine") == mine
    assert resolve("emt") != mine


def test_a_variable_that_names_no_root_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MLIPCLUSTER_ROOT", str(tmp_path / "gone"))
    with pytest.raises(InputError, match=r"does not exist.*\(MLIPCLUSTER_ROOT names it"):
        resolve("emt")
    with pytest.raises(InputError, match="does not exist") as caught:
        resolve("emt", root=tmp_path / "gone")
    assert "MLIPCLUSTER_ROOT" not in str(caught.value)
