from __future__ import annotations

import subprocess
import sys
import types

import pytest

from mlipcluster.errors import InputError, ProtocolError
from mlipcluster.protocols import relax
from mlipcluster.records.packing import encode
from mlipcluster.records.source import describe
from mlipcluster.reproduction.protocols import find, load_file


def record_of(*functions, git=None, **changes):
    return {"metadata": {"protocols": [describe(f).to_json() | changes for f in functions], "git": git}}


def test_a_protocol_is_imported_by_module_and_name():
    assert find(record_of(relax)) == (relax,)


def test_given_protocols_are_taken_as_they_are():
    assert find(record_of(relax), len) == (len,)
    assert find(record_of(relax, relax), [len, abs]) == (len, abs)
    with pytest.raises(ProtocolError, match="1 protocols were given, the record has 2"):
        find(record_of(relax, relax), len)


@pytest.fixture
def main(monkeypatch):
    """A ``__main__`` that holds a protocol."""
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)

    def define(text):
        exec(compile(text, "<cell>", "exec"), module.__dict__)
        return module.__dict__["protocol"]

    return define


def test_a_notebooks_protocol_is_taken_from_the_notebook_that_runs_unless_it_changed(main):
    function = main("def protocol(atoms): return atoms")
    record = record_of(function)
    assert find(record) == (function,)
    again = main("def protocol(atoms): return atoms  # run once more")
    assert find(record) == (again,)
    main("def protocol(atoms): return None")
    with pytest.raises(ProtocolError, match=r"__main__:protocol was defined in a script or notebook.*trust=True"):
        find(record)


def test_only_trust_unpickles(main):
    import cloudpickle

    function = main("def protocol(atoms): return 'unpickled'")
    record = record_of(function, pickle=encode(cloudpickle.dumps(function)))
    main("protocol = None")
    with pytest.raises(ProtocolError):
        find(record)
    (found,) = find(record, trust=True)
    assert found(None) == "unpickled"


def test_a_module_without_the_function_says_where_it_looked():
    with pytest.raises(ProtocolError, match=r"is not in .*relax\.py, which has no function 'relaxed'"):
        find(record_of(relax, name="relaxed"))


def test_a_module_that_is_not_installed_is_found_by_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = tmp_path / "found_by_file_1.py"
    file.write_text("def protocol(atoms): return atoms\n")
    record = record_of(relax, module="found_by_file_1", name="protocol", file=str(file))
    (found,) = find(record)
    assert found.__code__.co_filename == str(file)
    with pytest.raises(ProtocolError, match="No module named 'found_by_file_2'"):
        find(record_of(relax, module="found_by_file_2", name="protocol", file=str(tmp_path / "gone.py")))


def test_a_clone_in_another_place_is_searched(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    clone = tmp_path / "clone"
    (clone / "code").mkdir(parents=True)
    (clone / "code" / "found_in_clone.py").write_text("def protocol(atoms): return atoms\n")
    subprocess.run(["git", "init"], cwd=clone, check=True, capture_output=True)
    monkeypatch.chdir(clone)
    record = record_of(
        *(relax,), module="found_in_clone", name="protocol", file="/gone/code/found_in_clone.py", git={"root": "/gone"}
    )
    (found,) = find(record)
    assert found.__code__.co_filename == str(clone / "code" / "found_in_clone.py")


def test_a_file_is_loaded_once(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = tmp_path / "loaded_once.py"
    file.write_text("here = object()\n")
    assert load_file(file) is load_file(str(file))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "loaded_once.py").write_text("")
    with pytest.raises(InputError, match="name of another module"):
        load_file(tmp_path / "sub" / "loaded_once.py")
