from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones

from mlipcluster.calculators.known import known
from mlipcluster.calculators.socket_calculator import SocketCalculator
from mlipcluster.calculators.tables import read_table
from mlipcluster.errors import InputError

REGISTRY = """
import functools

import sibling
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones


class Own(LennardJones):
    pass


class Model:
    def __init__(self, sigma):
        self.sigma = sigma

    def get_calculator(self):
        return LennardJones(sigma=self.sigma)


CALCULATORS = {
    "LJ": LennardJones,
    "own": Own,
    "sibling": sibling.made,
    "partial": functools.partial(LennardJones, sigma=3.4),
    "tuple": functools.partial(sibling.made, ("sigma", 3.4)),
    "lambda [1]": lambda: LennardJones(sigma=3.4),
    "method": Model(3.4),
}


def get_calculators():
    return {"LJ": {"factory": "ase.calculators.lj:LennardJones", "kwargs": {"sigma": 3.4}}, "late": lambda: EMT()}


BROKEN = [1]
"""
SIBLING = """
from ase.calculators.lj import LennardJones


def made(pair=("sigma", 1.0)):
    assert isinstance(pair, tuple)
    return LennardJones(**dict([pair]))
"""


@pytest.fixture
def registry(tmp_path):
    """A file with tables, in a folder with a hostile name, and what is beside it."""
    folder = tmp_path / 'it\'s "here": now'
    folder.mkdir()
    (folder / "registry.py").write_text(REGISTRY)
    (folder / "sibling.py").write_text(SIBLING)
    return folder / "registry.py"


def test_what_workers_can_import_is_named_and_the_rest_reached_through_the_table(registry):
    table = f"{registry}:CALCULATORS"
    found = {one.name: one for one in read_table(table)}
    assert {name: one.spec.factory for name, one in found.items()} == {
        "LJ": "ase.calculators.lj:LennardJones",
        "own": "registry:Own",
        "sibling": "sibling:made",
        "partial": "ase.calculators.lj:LennardJones",
        "tuple": "registry:CALCULATORS[tuple]",
        "lambda [1]": "registry:CALCULATORS[lambda [1]]",
        "method": "registry:CALCULATORS[method]",
    }
    assert found["partial"].spec.kwargs == {"sigma": 3.4}
    assert {one.source for one in found.values()} == {table}
    assert {one.spec.paths for one in found.values()} == {(str(registry.parent),)}
    assert not {"registry", "sibling"} & set(sys.modules)
    assert str(registry.parent) not in sys.path


@pytest.mark.parametrize("name", ["own", "sibling", "partial", "tuple", "lambda [1]", "method"])
def test_each_calculates_in_a_worker(registry, name):
    atoms = bulk("Ar", cubic=True, a=5.3)
    atoms.calc = LennardJones(sigma=3.4 if name not in ("own", "sibling") else 1.0)
    expected = atoms.get_potential_energy()
    with SocketCalculator(name, tables=[f"{registry}:CALCULATORS"]) as calculator:
        atoms.calc = calculator
        assert atoms.get_potential_energy() == expected


def test_a_function_may_give_the_table(registry):
    first, late = read_table(f"{registry}:get_calculators")
    assert (first.spec.factory, first.spec.kwargs) == ("ase.calculators.lj:LennardJones", {"sigma": 3.4})
    with SocketCalculator(late.spec) as calculator:
        assert "energy" in calculator.implemented_properties


def test_two_files_of_one_name_do_not_meet(tmp_path):
    for folder, sigma in (("one", 1.5), ("two", 2.5)):
        (tmp_path / folder).mkdir()
        text = "from values import SIGMA\n\nT = {SIGMA: lambda: None}\n"
        (tmp_path / folder / "models.py").write_text(text)
        (tmp_path / folder / "values.py").write_text(f"SIGMA = 'sigma {sigma}'\n")
    found = known(tables=[str(tmp_path / "one" / "models.py:T"), str(tmp_path / "two" / "models.py:T")])
    assert [name for name in found if name.startswith("sigma")] == ["sigma 1.5", "sigma 2.5"]
    assert found["sigma 2.5"].spec.paths == (str(tmp_path / "two"),)


def test_a_module_that_was_there_before_is_there_afterwards(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "mine" / "shared_name.py").write_text("T = {}\n")
    (tmp_path / "other" / "shared_name.py").write_text("WHO = 'other'\n")
    monkeypatch.syspath_prepend(tmp_path / "other")
    import shared_name

    assert read_table(f"{tmp_path}/mine/shared_name.py:T") == []
    assert sys.modules["shared_name"] is shared_name
    monkeypatch.delitem(sys.modules, "shared_name")


def test_what_is_installed_in_a_folder_below_stays_imported(tmp_path, monkeypatch):
    """An environment may lie beside the table; its packages must not be imported twice."""
    packages = tmp_path / ".venv" / "lib"
    packages.mkdir(parents=True)
    (packages / "heavy_package.py").write_text("VALUE = 1\n")
    (tmp_path / "registry.py").write_text("import heavy_package\n\nT = {}\n")
    monkeypatch.syspath_prepend(packages)
    read_table(f"{tmp_path}/registry.py:T")
    assert "heavy_package" in sys.modules
    monkeypatch.delitem(sys.modules, "heavy_package")


def test_a_module_of_the_working_folder(tmp_path, monkeypatch):
    package = tmp_path / "own_package_of_tables"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "registry.py").write_text("from .more import make\n\nT = {'a': make, 'b': lambda: make()}\n")
    (package / "more.py").write_text("def make():\n    from ase.calculators.emt import EMT\n\n    return EMT()\n")
    monkeypatch.chdir(tmp_path)
    found = {one.name: one.spec for one in read_table("own_package_of_tables.registry:T")}
    assert found["a"].factory == "own_package_of_tables.more:make"
    assert found["b"].factory == "own_package_of_tables.registry:T[b]"
    assert found["b"].paths == (str(tmp_path),)
    with SocketCalculator(found["b"]) as calculator:
        assert "energy" in calculator.implemented_properties
    for name in [name for name in sys.modules if name.startswith("own_package_of_tables")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("registry.py", "is no table of calculators; give FILE.py:NAME"),
        ("registry.py:", "is no table of calculators"),
        ("{folder}/none.py:T", "there is no Python file .*none.py.*; correct the path"),
        ("{folder}/registry.txt:T", "there is no Python file"),
        ("{folder}/registry.py:CALCULATOR", "there is no 'CALCULATOR' in it; did you mean 'CALCULATORS'"),
        ("{folder}/sibling.py:T", r"there is no 'T' in it; write T = \{'name': factory\} there"),
        ("{folder}/registry.py:BROKEN", "BROKEN gives no table: TypeError: list is no table"),
        ("{folder}/registry.py:Own", "Own gives no table: TypeError: Own is no table"),
        ("no_such_module.at_all:T", "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
        (
            "{folder}/needs.py:T",
            "needs.py:T cannot be imported: ModuleNotFoundError: .*'mlipx_is_not_here'; correct it",
        ),
        ("{folder}/leaves.py:T", "leaves.py:T cannot be imported: SystemExit: 3"),
        ("{folder}/two words.py:T", "workers import the file as module 'two words', which cannot be; rename it"),
        ("{folder}/types.py:T", "as module 'types', which cannot be; rename it"),
        ("{folder}/bad.py:T", r"bad.py:T: 'x': 3 is no calculator; give a class or function, 'module:callable'"),
        ("{folder}/bad.py:KEYS", r"bad.py:KEYS: 3 is no name of a calculator; write text"),
        (
            "{folder}/bad.py:OBJECT",
            r"'x': EMT is a calculator already, and cannot travel; give what makes it: lambda: EMT",
        ),
        ("{folder}/bad.py:TEXT", "'x': factory 'emt' is not of the form 'module:callable'"),
        ("{folder}/bad.py:FIELD", "'x': a calculator has no field 'factor'"),
    ],
)
def test_what_cannot_be_used_is_named_with_the_remedy(registry, table, told):
    folder = registry.parent
    (folder / "needs.py").write_text("import mlipx_is_not_here\n")
    (folder / "leaves.py").write_text("raise SystemExit(3)\n")
    (folder / "types.py").write_text("T = {}\n")
    (folder / "two words.py").write_text("T = {}\n")
    (folder / "bad.py").write_text(
        textwrap.dedent(
            """
            from ase.calculators.emt import EMT
            T = {"x": 3}
            KEYS = {3: EMT}
            OBJECT = {"x": EMT()}
            TEXT = {"x": "emt"}
            FIELD = {"x": {"factor": "a:b"}}
            """
        )
    )
    with pytest.raises(InputError, match=told):
        read_table(table.replace("{folder}", str(folder)))


def test_the_pages_table(tmp_path):
    """The example of docs/calculators.md, as it stands there."""
    page = (Path(__file__).parents[2] / "docs" / "calculators.md").read_text(encoding="utf-8")
    text = page.partition("```python\n# registry.py\n")[2].partition("```")[0]
    (tmp_path / "registry.py").write_text(text)
    found = {one.name: one for one in read_table(f"{tmp_path}/registry.py:CALCULATORS")}
    assert {name: one.spec.factory for name, one in found.items() if one.spec is not None} == {
        "LJ": "ase.calculators.lj:LennardJones",
        "argon": "ase.calculators.lj:LennardJones",
        "krypton": "registry:CALCULATORS[krypton]",
        "mace": "mace.calculators:mace_mp",
        "mace-medium": "mace.calculators:mace_mp",
    }
    filled = found["mace-large"].command.filled(broker="/run/serve.sock", idle_timeout=300)
    assert filled[-5:] == ["mace-large", "--kwargs", '{"model": "large"}', "--idle-timeout", "300"]
