from __future__ import annotations

import subprocess
import sys
import types

import pytest

from mlipcluster.errors import InputError, MismatchError, ProtocolError
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


def test_a_module_without_the_function_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "without_it.py").write_text("def other(atoms): return atoms\n")
    for trust in (False, True):
        with pytest.raises(ProtocolError, match=r"is not in .*without_it\.py, which has no function 'relaxed'"):
            find(record_of(relax, module="without_it", name="relaxed"), trust=trust)


@pytest.mark.parametrize(
    ("module", "name", "told"),
    [
        ("subprocess", "getoutput", "standard library"),
        ("os.path", "join", "standard library"),
        ("mlipcluster.files", "write_atomic", "no ready-made protocol"),
        ("mlipcluster.protocols.relax", "optimize.BFGS", "no ready-made protocol"),
        ("ase.io", "write", "installed package"),
    ],
)
def test_only_protocols_are_run_at_a_records_word(module, name, told):
    with pytest.raises(ProtocolError, match=rf"{told}.*protocols=\[…\].*trust=True"):
        find(record_of(relax, module=module, name=name))


def test_a_file_is_not_imported_when_its_function_is_not_the_recorded_one(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = tmp_path / "changed_since.py"
    imported = tmp_path / "imported"
    file.write_text(f"open({str(imported)!r}, 'w').close()\ndef protocol(atoms):\n    return atoms\n")
    changes = {"module": "changed_since", "name": "protocol", "file": str(file)}
    record = record_of(relax, **changes, text="def protocol(atoms):\n    return None\n")
    for on_the_path in (False, True):
        if on_the_path:
            monkeypatch.syspath_prepend(str(tmp_path))
        with pytest.raises(MismatchError, match="protocol changed_since:protocol changed\n") as caught:
            find(record)
        assert "-    return None\n" in str(caught.value)
        with pytest.raises(ProtocolError, match="is another function in"):
            find(record, strict=False)
        assert not imported.exists()
    same = record_of(relax, **changes, text="def protocol(atoms):  # as it was\n  return atoms\n")
    assert find(same)[0].__module__ == "changed_since"
    assert imported.exists()


def test_a_module_that_is_not_installed_is_found_by_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = tmp_path / "found_by_file_1.py"
    file.write_text("def protocol(atoms): return atoms\n")
    record = record_of(relax, module="found_by_file_1", name="protocol", file=str(file), text=file.read_text())
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
        *(relax,),
        module="found_in_clone",
        name="protocol",
        file="/gone/code/found_in_clone.py",
        text="def protocol(atoms): return atoms",
        git={"root": "/gone"},
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
