from __future__ import annotations

import functools
import importlib
import linecache
import os
import subprocess
import sys
import textwrap
import types

import cloudpickle
import numpy as np
import pytest

from mlipcluster.errors import ProtocolError
from mlipcluster.records.source import describe, difference, unhashable, user_modules, value_digest
from mlipcluster.transit import dumps

BASE = '''
"""What this module is for."""
import functools
import math
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.build import bulk

WIDTH = 0.05
TABLE = {"Cu": (1, 2.5), "Ag": [3, None]}
GRID = np.linspace(0, 1, 5)
START = bulk("Cu")


def scale(x):
    """Twice the width."""
    return x * WIDTH


def deep(x):
    return deeper(x) + 1


def deeper(x):
    if x > 0:
        return deep(x - 1)  # recursion over two functions
    return 0


def decorated(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs) + 1

    return wrapper


def factory(n):
    def inner(x):
        return x + n

    return inner


add = factory(2)


@decorated
def shown(x):
    return x


class Base:
    def common(self):
        return scale(1)


class Tool(Base):
    """A tool."""

    size = 3

    def __init__(self, depth=2):
        self.depth = depth

    @property
    def volume(self):
        return self.size * self.depth

    @staticmethod
    def area(x):
        return x**2

    def __call__(self, atoms):
        return self.volume


@dataclass
class Options:
    steps: int = 5
    label: str = "x"


tool = Tool(4)
options = Options()
half = functools.partial(scale, x=0.5)
unused = 1


def never_used(x):
    return x


def protocol(atoms, calc=None, fmax=0.02, *, steps=100):
    """Relax a little.

    Over several lines.
    """
    total = 0
    for name in TABLE:
        total += sum(scale(value) for value in (1, 2))
    values = [deep(i) for i in range(3)]

    def nested(x):
        return add(x) + shown(x)

    class Local:
        width = half()

    return tool(atoms), options.steps, nested(1), Local, GRID, START, math.pi, values, total
'''

# What must change the digest: (what is replaced, by what, what is named besides).
CHANGES = {
    "a literal": ("total = 0", "total = 1", "protocol"),
    "a default": ("fmax=0.02", "fmax=0.03", "protocol"),
    "a keyword default": ("steps=100", "steps=101", "protocol"),
    "an operator": ("total += sum", "total -= sum", "protocol"),
    "a constant": ("WIDTH = 0.05", "WIDTH = 0.06", "WIDTH"),
    "a constant's type": ("WIDTH = 0.05", 'WIDTH = "0.05"', "WIDTH"),
    "inside a dict": ("2.5", "2.6", "TABLE"),
    "a key": ('"Ag"', '"Au"', "TABLE"),
    "a list for a tuple": ("(1, 2.5)", "[1, 2.5]", "TABLE"),
    "an array": ("0, 1, 5", "0, 1, 6", "GRID"),
    "a structure": ('bulk("Cu")', 'bulk("Ag")', "START"),
    "a helper in a comprehension": ("x * WIDTH", "x + WIDTH", "scale"),
    "a helper's helper": ("return 0\n", "return 1\n", "deeper"),
    "a closure's value": ("factory(2)", "factory(3)", "factory.<locals>.inner"),
    "a closure's body": ("x + n", "x - n", "factory.<locals>.inner"),
    "a decorator": ("**kwargs) + 1", "**kwargs) + 2", "shown"),
    "a decorated function": ("def shown(x):\n    return x", "def shown(x):\n    return -x", "shown"),
    "a decorator taken away": ("@decorated\ndef shown", "def shown", "shown"),
    "a method": ("self.size * self.depth", "self.size / self.depth", "Tool"),
    "a static method": ("x**2", "x**3", "Tool"),
    "a class attribute": ("size = 3", "size = 4", "Tool"),
    "a base's method": ("scale(1)", "scale(2)", "Base"),
    "a base": ("class Tool(Base)", "class Tool", "Tool"),
    "an instance": ("Tool(4)", "Tool(5)", "tool"),
    "a method's default": ("depth=2", "depth=3", "Tool"),
    "a field's default": ("steps: int = 5", "steps: int = 6", "Options"),
    "a field's hint": ("label: str", "label: object", "Options"),
    "a partial's keyword": ("x=0.5", "x=0.6", "half"),
    "a nested function": ("add(x) + shown(x)", "add(x) * shown(x)", "protocol"),
    "a nested class": ("width = half()", "width = 1 + half()", "protocol"),
    "another function of a library": ("math.pi", "math.e", "protocol"),
    "what a name means": ("import math\n", "import cmath as math\n", "protocol"),
}

# What must not.
KEEPS = {
    "a comment": ("total = 0", "total = 0  # none yet"),
    "formatting": (
        "def protocol(atoms, calc=None, fmax=0.02, *, steps=100):",
        "def protocol(\n  atoms, calc=None,\n  fmax=2e-2, *, steps=100,\n):",
    ),
    "brackets and quotes": ('"Ag": [3, None]', "'Ag': [(3), None,]"),
    "lines above": ('"""What this module is for."""', "\n\n# Longer.\n\n'''Something\nelse.'''\n"),
    "a docstring": ('"""Relax a little.\n\n    Over several lines.\n    """', '"""Relax."""'),
    "no docstring": ('"""Twice the width."""\n', "\n"),
    "a docstring on a function without one": ("def deep(x):", 'def deep(x):\n    """Deep."""'),
    "a class's docstring": ('"""A tool."""', '"""Another."""\n'),
    "type hints": ("def scale(x):", "def scale(x: float) -> float:"),
    "hints of the protocol": ("def protocol(atoms, calc=None,", "def protocol(atoms: Atoms, calc: object = None,"),
    "a local hint": ("total = 0", "total: int = 0"),
    "a pass": ("total = 0", "pass; total = 0"),
    "what is not used": ("unused = 1", "unused = 2"),
    "a function that is not used": ("def never_used(x):\n    return x", "def never_used(x, y):\n    return y"),
    "the order of definitions": ("TABLE = {", "LATER = 1\nTABLE = {"),
    "the order of keys": ('{"Cu": (1, 2.5), "Ag": [3, None]}', '{"Ag": [3, None], "Cu": (1, 2.5)}'),
    "how a number is written": ("WIDTH = 0.05", "WIDTH = 5e-2"),
    "an unused import": ("import math\n", "import math\nimport json\n"),
}


@pytest.fixture
def load(tmp_path, monkeypatch):
    """A module of that text, in a folder of its own and under a name of its own."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    count = iter(range(1000))

    def make(text, name="mine", folder=None):
        folder = folder or tmp_path / f"folder {next(count)}"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(folder))
            importlib.invalidate_caches()
            sys.modules.pop(name, None)
            return importlib.import_module(name)

    before = set(sys.modules)
    yield make
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def _edit(old, new):
    assert BASE.count(old) == 1, f"{old!r} must stand once in BASE"
    return BASE.replace(old, new)


@pytest.mark.parametrize("name", CHANGES)
def test_must_change(load, name):
    old, new, named = CHANGES[name]
    before = describe(load(BASE).protocol)
    after = describe(load(_edit(old, new)).protocol)
    assert after.digest != before.digest
    lines = difference(before.dependencies, after.dependencies)
    assert any(line.split()[0].partition("#")[0] == f"mine.{named}" for line in lines), lines


@pytest.mark.parametrize("name", KEEPS)
def test_must_not_change(load, name):
    before = describe(load(BASE).protocol)
    after = describe(load(_edit(*KEEPS[name])).protocol)
    assert difference(before.dependencies, after.dependencies) == []
    assert after.digest == before.digest


def test_only_what_changed_is_named(load):
    before = describe(load(BASE).protocol)
    after = describe(load(_edit("WIDTH = 0.05", "WIDTH = 0.06")).protocol)
    assert difference(before.dependencies, after.dependencies) == ["mine.WIDTH changed"]
    after = describe(load(_edit("return 0\n", "return 1\n")).protocol)
    assert difference(before.dependencies, after.dependencies) == ["mine.deeper changed"]


def test_where_it_stands_does_not_matter(load):
    one, other = describe(load(BASE).protocol), describe(load(BASE, "another_name").protocol)
    assert one.digest == other.digest
    assert (one.module, other.module) == ("mine", "another_name")
    assert one.name == "protocol"
    assert one.file != other.file
    assert one.text == other.text
    assert one.text.startswith("def protocol(atoms, calc=None")
    assert one.text.rstrip().endswith("values, total")


_SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import mine
from mlipcluster.records.source import describe
found = describe(mine.protocol)
print(found.digest, dict(found.dependencies))
"""


def test_another_process_with_another_hash_seed_finds_the_same(tmp_path, load):
    text = BASE + "\nNAMES = {'a', 'b', 'c', 'd'}\n\ndef more(x):\n    return x in NAMES or x in {'p', 'q', 'r'}\n"
    text = text.replace("total = 0", "total = more(1)")
    (tmp_path / "mine.py").write_text(text)
    found = set()
    for seed in ("1", "2", "3"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", _SCRIPT, str(tmp_path)]
        found.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(found) == 1
    assert describe(load(text).protocol).digest in found.pop()


# --- helpers in modules of the user's --------------------------------------------------------------------------------

HELPERS = """
import tables

FACTOR = 2

def foo(x):
    return x * FACTOR + tables.width(x)

def bar(x):
    return x
"""
TABLES = """
def width(x):
    return 1

def height(x):
    return 2
"""
USES = {
    "attribute": "import helpers\ndef protocol(atoms):\n    return helpers.foo(1)\n",
    "alias": "import helpers as h\ndef protocol(atoms):\n    return h.foo(1)\n",
    "from": "from helpers import foo\ndef protocol(atoms):\n    return foo(1)\n",
    "inside": "def protocol(atoms):\n    from helpers import foo\n    return foo(1)\n",
    "in a comprehension": "import helpers\ndef protocol(atoms):\n    return [helpers.foo(x) for x in atoms]\n",
    "in a lambda": "import helpers\ndef protocol(atoms):\n    return (lambda: helpers.foo(1))()\n",
    "as a default": "import helpers\ndef protocol(atoms, f=helpers.foo):\n    return f(1)\n",
    "in a table": "import helpers\nALL = {'foo': helpers.foo}\ndef protocol(atoms):\n    return ALL['foo'](1)\n",
}


def _digests(load, tmp_path, use, helpers=HELPERS, tables=TABLES):
    folder = tmp_path / f"{abs(hash((use, helpers, tables)))}"
    folder.mkdir(exist_ok=True)
    for name in ("tables", "helpers"):
        sys.modules.pop(name, None)
    load(tables, "tables", folder)
    sys.path.insert(0, str(folder))
    try:
        load(helpers, "helpers", folder)
        return describe(load(use, "mine", folder).protocol)
    finally:
        sys.path.remove(str(folder))


@pytest.mark.parametrize("use", USES)
def test_a_helper_module_is_followed_to_the_attribute(load, tmp_path, use):
    digests = functools.partial(_digests, load, tmp_path, USES[use])
    before = digests()
    assert digests(HELPERS.replace("return x\n", "return -x\n")).digest == before.digest
    assert digests(tables=TABLES.replace("return 2", "return 3")).digest == before.digest
    for after, named in (
        (digests(HELPERS.replace("x * FACTOR", "x + FACTOR")), "helpers.foo"),
        (digests(HELPERS.replace("FACTOR = 2", "FACTOR = 3")), "helpers.FACTOR"),
        (digests(tables=TABLES.replace("return 1", "return 3")), "tables.width"),
    ):
        assert after.digest != before.digest
        assert difference(before.dependencies, after.dependencies) == [f"{named} changed"]


@pytest.mark.parametrize(
    "use",
    [
        "import helpers\ndef protocol(atoms, name='foo'):\n    return getattr(helpers, name)(1)\n",
        "import helpers\ndef protocol(atoms):\n    h = helpers\n    return h.foo(1)\n",
        "def protocol(atoms):\n    import helpers\n    return helpers.foo(1)\n",
    ],
)
def test_a_module_that_is_used_as_a_whole_counts_as_a_whole(load, tmp_path, use):
    digests = functools.partial(_digests, load, tmp_path, use)
    before = digests()
    assert digests(HELPERS + "\n# a comment\n").digest == before.digest
    assert digests(HELPERS.replace("return x\n", "return -x\n")).digest != before.digest
    assert digests(HELPERS.replace("FACTOR = 2", "FACTOR = 3")).digest != before.digest
    assert digests(tables=TABLES.replace("return 1", "return 3")).digest != before.digest
    assert "helpers" in before.dependencies


def test_a_package_is_followed_through_its_modules(tmp_path, monkeypatch):
    folder = tmp_path / "pkg"
    folder.mkdir()
    (folder / "__init__.py").write_text("from . import sub\n")
    (folder / "sub.py").write_text("def foo(x):\n    return 1\n\ndef bar(x):\n    return 2\n")
    (folder / "mine.py").write_text(
        "import pkg\nfrom . import sub as other\n\ndef protocol(atoms):\n    from .sub import bar\n"
        "    return pkg.sub.foo(1), other.foo(2), bar(3)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = importlib.import_module("pkg.mine")
    found = describe(mine.protocol)
    assert set(found.dependencies) == {"pkg.mine.protocol", "pkg.sub.foo", "pkg.sub.bar"}
    assert {module.__name__ for module in user_modules(mine.protocol)} == {"pkg", "pkg.mine", "pkg.sub"}
    for name in ("pkg", "pkg.mine", "pkg.sub"):
        del sys.modules[name]


@pytest.mark.parametrize(
    "use",
    [
        "import only_later as later",
        "import later_package.inner as later",
        "from later_package import inner as later",
        "import later_package; from later_package import inner as later",
    ],
)
def test_whether_a_helper_is_imported_already_does_not_matter(load, tmp_path, monkeypatch, use):
    folder = tmp_path / "later"
    (folder / "later_package").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(folder))
    for name in ("only_later.py", "later_package/inner.py"):
        (folder / name).write_text("import json\n\ndef x():\n    return 1\n")
    (folder / "later_package" / "__init__.py").write_text("y = 1\n")
    mine = load(f"def protocol(atoms):\n    {use}\n    return later.x()\n", folder=folder)
    found = describe(mine.protocol)
    assert describe(mine.protocol) == found
    for name in ("only_later", "later_package.inner", "later_package"):
        sys.modules.pop(name, None)
    importlib.import_module("later_package.inner" if "inner" in use else "only_later")
    assert describe(mine.protocol) == found


def test_a_module_that_cannot_be_imported_here_counts_by_its_file(load, tmp_path, monkeypatch):
    folder = tmp_path / "later"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    (folder / "only_later.py").write_text("import there_is_no_such_package\nx = 1\n")
    mine = load("def protocol(atoms):\n    import only_later\n    return only_later.x\n", folder=folder)
    before = describe(mine.protocol)
    assert "only_later" not in sys.modules
    assert "only_later" in before.dependencies
    (folder / "only_later.py").write_text("import there_is_no_such_package\nx = 2\n")
    linecache.clearcache()
    after = describe(mine.protocol)
    assert difference(before.dependencies, after.dependencies) == ["only_later changed"]


def test_installed_code_is_left_to_the_environment(load):
    found = describe(
        load("""
        import json, ase.io, numpy as np
        from ase.optimize import BFGS
        def protocol(atoms):
            import scipy.optimize, not_there
            from mlipcluster.protocols import relax
            return BFGS(atoms), np.linalg.norm([1]), json.dumps, ase.io.read, relax
    """).protocol
    )
    assert list(found.dependencies) == ["mine.protocol"]


def test_user_modules_are_those_that_workers_lack(load, tmp_path):
    _digests(load, tmp_path, USES["attribute"])
    mine = sys.modules["mine"]
    assert [module.__name__ for module in user_modules(mine.protocol)] == ["helpers", "mine", "tables"]
    with_ase = load("from ase.build import bulk\ndef protocol(atoms):\n    return bulk('Cu')\n")
    assert user_modules(with_ase.protocol) == [with_ase]


# --- functions of every kind -----------------------------------------------------------------------------------------


def test_two_lambdas_on_a_line(load):
    module = load("one, two, same = lambda x: x + 1, lambda x: x + 2, lambda   x: (x + 1)\n")
    one, two, same = (describe(f).digest for f in (module.one, module.two, module.same))
    assert one != two
    if sys.version_info >= (3, 11):  # before, code keeps no columns, and the bytecode stands in
        assert one == same
    assert one == describe(load("table = {\n 'k': lambda x: x + 1,\n}\none = table['k']\n").one).digest or (
        sys.version_info < (3, 11)
    )


def test_a_lambda_in_a_lambda(load):
    module = load("outer = lambda x: (lambda y: y + 1)(x)\ninner = (lambda x=(lambda y: y + 2): x)()\n")
    assert describe(module.outer).digest != describe(module.inner).digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("functools.partial(scale, 1)", "functools.partial(scale, 2)"),
        ("functools.partial(scale, x=1)", "functools.partial(scale, x=1.0)"),
        ("functools.partial(scale, 1)", "functools.partial(deep, 1)"),
        ("Tool(1)", "Tool(2)"),
        ("Tool(1).common", "Tool(2).common"),
        ("Tool(1).common", "Base().common"),
        ("factory(1)", "factory(2)"),
        ("factory(np.arange(3))", "factory(np.arange(4))"),
        ("factory([scale])", "factory([deep])"),
        ("decorated(scale)", "decorated(deep)"),
        ("decorated(scale)", "scale"),
        ("functools.lru_cache(scale)", "functools.lru_cache(deep)"),
        ("Tool.area", "scale"),
    ],
)
def test_callables_of_every_kind(load, one, other):
    def digest(expression):
        module = load(BASE)
        return describe(eval(expression, vars(module))).digest

    assert digest(one) == digest(one)
    assert digest(one) != digest(other)


@pytest.mark.parametrize(
    ("expression", "name", "text"),
    [
        ("functools.partial(scale, x=1)", "partial(scale)", "def scale"),
        ("Tool(1)", "Tool", "class Tool"),
        ("Tool(1).common", "Base.common", "def common"),
        ("decorated(scale)", "scale", "def scale"),
        ("shown", "shown", "@decorated\ndef shown"),
        ("factory(1)", "factory.<locals>.inner", "def inner"),
    ],
)
def test_names_and_texts(load, expression, name, text):
    found = describe(eval(expression, vars(load(BASE))))
    assert (found.module, found.name) == ("mine", name)
    assert found.text.startswith(text)
    assert found.file.endswith("mine.py")


def test_what_cannot_be_called_is_refused():
    with pytest.raises(ProtocolError, match="cannot be called"):
        describe(3)


def test_a_function_without_source_goes_by_its_bytecode():
    def made(text):
        namespace = {"__name__": "typed_in"}
        exec(text, namespace)
        return describe(namespace["protocol"])

    text = 'def protocol(atoms):\n    "Doc."\n    return [helper(x, 1.5) for x in {1, 2}]\ndef helper(x, y): return x\n'
    one = made(text)
    assert one.digest == made("\n\n" + text).digest
    assert one.digest != made(text.replace("1.5", "1.25")).digest
    assert one.digest != made(text.replace("return x\n", "return y\n")).digest
    assert one.text.startswith("# no source")
    assert one.file == ""


def test_a_file_that_was_edited_after_import_is_not_taken_for_what_runs(load, tmp_path):
    folder = tmp_path / "edited"
    module = load("def protocol(atoms):\n    return 1\n", folder=folder)
    before = describe(module.protocol)
    (folder / "mine.py").write_text("def protocol(atoms):\n    return 2222\n")
    linecache.clearcache()
    stale = describe(module.protocol)
    assert "2222" not in stale.text
    assert stale.digest != describe(load("def protocol(atoms):\n    return 2222\n").protocol).digest
    assert stale.dependencies.keys() == before.dependencies.keys()


def test_cells_of_a_notebook():
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    def run(*cells):
        shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
        for cell in cells:
            result = shell.run_cell(cell, store_history=True)
            result.raise_error()
        return describe(shell.user_ns["protocol"])

    first = "WIDTH = 2\nclass Tool:\n    size = 1\n    def go(self):\n        return self.size\n"
    first += "def helper(x):\n    return x\n"
    cell = "def protocol(atoms):\n    # why\n    return helper(WIDTH), Tool().go()\n"
    try:
        before = run(first, cell)
        assert before.text.startswith("def protocol(atoms):\n    # why")
        assert before.file == ""
        assert before.digest == run("import math", "%alias_magic t timeit\n" + first, "\n\n" + cell).digest
        assert before.digest == run(first, cell.replace("    # why\n", "")).digest
        assert before.digest != run(first, cell.replace("WIDTH", "WIDTH + 1")).digest
        assert before.digest != run(first.replace("return x", "return -x"), cell).digest
        assert before.digest != run(first.replace("size = 1", "size = 2"), cell).digest
        assert before.digest != run(first.replace("return self.size", "return -self.size"), cell).digest
        assert before.digest == run(first, cell, cell).digest
    finally:
        InteractiveShell.clear_instance()


def test_a_function_that_was_pickled_by_value_keeps_its_digest(load):
    module = load(_edit("width = half()", "width = 1"))  # cloudpickle forgets what class bodies name
    before = describe(module.protocol).digest
    cloudpickle.register_pickle_by_value(module)
    try:
        copy = cloudpickle.loads(dumps(module.protocol))
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    assert copy is not module.protocol
    assert describe(copy).digest == before


def test_what_moves_by_itself_is_listed_and_left_out(load):
    text = """
        import threading, random
        import numpy as np
        rng = np.random.default_rng()
        lock = threading.Lock()
        out = random.Random()
        def protocol(atoms):
            with lock:
                return rng.normal(), out.random()
    """
    module = load(text)
    before = describe(module.protocol)
    assert sorted(unhashable(before)) == ["mine.lock", "mine.out", "mine.rng"]
    module.rng.normal()
    assert describe(module.protocol).digest == before.digest
    assert describe(load(text).protocol).digest == before.digest


def test_a_calculator_counts_by_what_it_was_made_with(load):
    text = "from ase.calculators.emt import EMT\ncalc = EMT(asap_cutoff=False)\ndef protocol(atoms):\n    return calc\n"
    module = load(text)
    before = describe(module.protocol).digest
    from ase.build import molecule

    module.calc.get_potential_energy(molecule("H2"))
    assert describe(module.protocol).digest == before
    assert describe(load(text.replace("False", "True")).protocol).digest != before


def test_where_a_module_lies_is_no_value(load):
    text = """
        import logging, os
        from pathlib import Path
        logger = logging.getLogger(__name__)
        HERE = Path(__file__).parent / "data" / "x.csv"
        THERE = os.path.join(os.path.dirname(__file__), "y")
        def protocol(atoms):
            logger.info("%s", atoms)
            return HERE, THERE
    """
    before = describe(load(text).protocol)
    assert describe(load(text, "another_name").protocol).digest == before.digest
    after = describe(load(text.replace("x.csv", "z.csv")).protocol)
    assert difference(before.dependencies, after.dependencies) == ["mine.HERE changed"]
    assert unhashable(before) == []


KINDS = """
import abc
import contextlib
import enum
import functools
import re
import typing


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Point(typing.NamedTuple):
    x: int = 1
    y: int = 2


class Abstract(abc.ABC):
    @abc.abstractmethod
    def go(self): ...


class Slotted(Abstract):
    __slots__ = ("a",)

    def __init__(self):
        self.a = 5

    def go(self):
        return super().go()

    @functools.cached_property
    def cached(self):
        return 6

    @classmethod
    def make(cls):
        return cls()


@contextlib.contextmanager
def context():
    yield 7


@functools.singledispatch
def many(x):
    return 8


@many.register
def _(x: int):
    return 9


@functools.lru_cache
def remembered(x):
    return 10


slotted = Slotted()
union: typing.Any = int | None
pattern = re.compile("a+")


def protocol(atoms, point=Point()):
    with context():
        return Colour.RED, point, slotted, many(3), remembered(1), union, pattern, Slotted.make()
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("RED = 1", "RED = 3"),
        ("BLUE = 2", "BLUE = 3"),
        ("x: int = 1", "x: int = 3"),
        ("self.a = 5", "self.a = 6"),
        ("super().go()", "super().go"),
        ("return 6", "return 5"),
        ("return cls()", "return cls"),
        ("yield 7", "yield 6"),
        ("return 8", "return 7"),
        ("return 9", "return 7"),
        ("return 10", "return 9"),
        ("int | None", "str | None"),
        ("a+", "a*"),
    ],
)
def test_classes_and_wrappers_of_every_kind(load, old, new):
    before = describe(load(KINDS).protocol)
    module = load(KINDS)
    module.remembered(1)
    assert describe(module.protocol).digest == before.digest
    assert not unhashable(before)
    assert describe(load(KINDS.replace(old, new)).protocol).digest != before.digest


def test_a_sum_of_hundreds_of_terms(load):
    text = "def protocol(atoms):\n    return " + " + ".join(["atoms"] * 500) + "\n"
    before = describe(load(text).protocol).digest
    assert describe(load(text.replace("atoms +", "atoms  +")).protocol).digest == before
    assert describe(load(text.replace("return atoms +", "return atoms -")).protocol).digest != before


def test_values_that_contain_themselves(load):
    text = "x = [1]\nx.append(x)\nd = {'x': x}\nd['d'] = d\ndef protocol(atoms):\n    return x, d\n"
    before = describe(load(text).protocol).digest
    assert describe(load(text).protocol).digest == before
    assert describe(load(text.replace("[1]", "[2]")).protocol).digest != before


def test_a_ready_made_protocol_stands_on_its_own_module():
    from mlipcluster.protocols.relax import relax

    found = describe(relax)
    assert found.module.startswith("mlipcluster.protocols")
    assert found.text.startswith("def relax(")
    assert all(name.startswith(found.module) for name in found.dependencies)
    assert user_modules(relax) == []


def test_value_digests():
    assert value_digest({"a": [1, 2.0]}) == value_digest({"a": [1, 2.0]})
    assert value_digest({"a": [1, 2.0]}) != value_digest({"a": [1, 2]})
    assert value_digest(lambda x: x) is not None
    assert value_digest([np.random.default_rng(1)]) is None
    assert value_digest(types.SimpleNamespace(a=1)) != value_digest(types.SimpleNamespace(a=2))


# --- what a value is made of -----------------------------------------------------------------------------------------

CALCULATORS = """
import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.harmonic import HarmonicCalculator, HarmonicForceField
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import LinearCombinationCalculator
from ase.calculators.singlepoint import SinglePointCalculator


class Shifted(EMT):
    def __init__(self, shift):
        super().__init__()
        self.shift = shift


def harmonic(k):
    return HarmonicCalculator(HarmonicForceField(bulk("Cu"), hessian_x=np.eye(3) * k))


def protocol(atoms):
    return calc


calc = """


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Shifted(1)", "Shifted(2)"),
        ("LinearCombinationCalculator([EMT(), EMT()], [1, 2])", "LinearCombinationCalculator([EMT(), EMT()], [1, 3])"),
        ("harmonic(1)", "harmonic(2)"),
        ("SinglePointCalculator(bulk('Cu'), energy=1.0)", "SinglePointCalculator(bulk('Cu'), energy=2.0)"),
    ],
)
def test_a_calculator_counts_by_whatever_it_was_made_with(load, one, other):
    module = load(CALCULATORS + one)
    before = describe(module.protocol)
    assert difference(before.dependencies, describe(load(CALCULATORS + one).protocol).dependencies) == []
    assert difference(before.dependencies, describe(load(CALCULATORS + other).protocol).dependencies) == [
        "mine.calc changed"
    ]
    assert value_digest(module.calc) != value_digest(load(CALCULATORS + other).calc)


@pytest.mark.parametrize(
    "made", ["Shifted(1)", "LennardJones()", "LinearCombinationCalculator([EMT(), EMT()], [1, 2])"]
)
def test_a_calculator_that_was_used_is_still_the_same(load, made):
    module = load(CALCULATORS + made)
    before = describe(module.protocol)
    from ase.build import bulk

    for element in ("Cu", "Ag"):
        module.calc.get_property("energy", bulk(element))
    assert difference(before.dependencies, describe(module.protocol).dependencies) == []


def test_a_calculator_that_holds_what_has_no_form_counts_by_its_class(load):
    text = CALCULATORS + "Shifted(np.random.default_rng())\n"
    before = describe(load(text).protocol)
    assert unhashable(before) == ["mine.calc"]
    assert value_digest(load(text).calc) is None
    assert describe(load(text).protocol).digest == before.digest
    assert describe(load(text.replace("= shift", "= (shift,)")).protocol).digest != before.digest


@pytest.mark.parametrize("imported", ["from helper import q", "import helper; q = helper.q"])
def test_an_import_in_a_long_function_counts(load, tmp_path, imported):
    constants = "".join(f"    x += {number}.5\n" for number in range(300))  # bytecode counts beyond 255 in two steps
    text = f"def protocol(atoms):\n    x = 0\n{constants}    {imported}\n    return q(x)\n"
    folder = tmp_path / "long"
    helper = load("def q(x):\n    return x\n", "helper", folder)
    protocol = load(text, folder=folder).protocol
    before = describe(protocol)
    sys.modules["helper"] = helper
    assert any(name.startswith("helper") for name in before.dependencies)
    assert describe(protocol).digest == before.digest
    load("def q(x):\n    return -x\n", "helper", folder)
    linecache.clearcache()
    assert describe(protocol).digest != before.digest


MADE = {
    "E.A.value": "E = enum.Enum('E', {'A': 1})",
    "A.value": "A = enum.Enum('E', {'A': 1}).A",
    "N().a": "N = make_dataclass('N', [('a', int, 1)])",
    "N().b": "N = make_dataclass('N', [('b', int, field(default_factory=lambda: 1))])",
    "D().a": "def make():\n    return 1\n\n@dataclass\nclass D:\n    a: int = field(default_factory=make)",
    "B.a": "B = abc.ABCMeta('B', (), {'a': 1})",
    "T._a_": "T = type('T', (), {'_a_': 1})",
    "K._a_": "class K:\n    pass\n\nK._a_ = 1",
    "K.__a__": "class K:\n    pass\n\nK.__a__ = 1",
}


@pytest.mark.parametrize("use", MADE)
def test_what_classes_hold_counts_however_they_were_made(load, use):
    text = f"import abc, enum\nfrom dataclasses import *\n{MADE[use]}\ndef protocol(atoms):\n    return {use}\n"
    before = describe(load(text).protocol)
    assert unhashable(before) == []
    assert describe(load(text).protocol).digest == before.digest
    assert describe(load(text.replace("1", "2")).protocol).digest != before.digest


UNORDERED = """
import datetime
import enum
from pathlib import Path

from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import SumCalculator


class Mode(enum.Enum):
    A = "a"
    B = "b"
    C = "c"


class Names(set):
    pass


def add(n):
    return lambda x: x + n


def kind(n):
    class Kind:
        width = n

    return Kind


def using(value):
    return lambda atoms: value


values = {
    "members": {Mode.A, Mode.B, Mode.C},
    "keys": dict.fromkeys({Mode.A, Mode.B, Mode.C}, 1),
    "paths": {Path("a"), Path("b"), Path("c"), Path("d")},
    "dates": {datetime.date(2020, 1, day) for day in range(1, 9)},
    "tuples": {(1, Mode.A), (1, Mode.B), (1, Mode.C)},
    "a set of one's own": Names("abcdef"),
    "functions": {add(n) for n in range(8)},
    "classes": {kind(n) for n in range(8)},
    "instances": {kind(n)() for n in range(8)},
    "a mixture": SumCalculator([EMT(), LennardJones()]),
}
"""
_EACH_VALUE = """
import sys
sys.path.insert(0, sys.argv[1])
import mine
from mlipcluster.records.identity import parameters_digest
from mlipcluster.records.source import describe
for name, value in mine.values.items():
    print(name, describe(mine.using(value)).digest, parameters_digest({"x": value}))
"""


def test_the_order_of_hashing_plays_no_part(tmp_path):
    (tmp_path / "mine.py").write_text(UNORDERED)
    found = []
    for seed in ("1", "2", "3", "4"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", _EACH_VALUE, str(tmp_path)]
        found.append(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    for other in found[1:]:
        assert other == found[0]
