"""Rules of the house that import-linter cannot say."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import mlipcluster
from mlipcluster import errors

PACKAGE = Path(mlipcluster.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
STANDS_ALONE = [
    *sorted((PACKAGE / "socket_worker").glob("*.py")),
    PACKAGE / "environments" / "measure_script.py",
]
# Slow to import, or with side effects when imported: inside the functions that need them.
INSIDE_FUNCTIONS = {
    "IPython",
    "chgnet",
    "dask_cloudprovider",
    "dask_jobqueue",
    "dask_kubernetes",
    "ipywidgets",
    "matplotlib",
    "pandas",
    "torch",
}

STARTS = {
    "subprocess.run",
    "subprocess.Popen",
    "subprocess.check_output",
    "subprocess.check_call",
    "os.system",
    "os.fork",
}


def name(path):
    return path.relative_to(PACKAGE).as_posix()


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(nodes):
    """Absolute names that import statements ask for, relative ones left out."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_import_time(module):
    """Nodes that run when the module is imported: not the bodies of functions, nor what is for type checkers."""
    todo = list(module.body)
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        todo.extend(ast.iter_child_nodes(node))


@pytest.mark.parametrize("path", STANDS_ALONE, ids=name)
def test_runs_in_a_foreign_python(path):
    """Python 3.9's syntax; the standard library, NumPy and ASE; nothing of ours."""
    source = path.read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 9))
    tops = {found.partition(".")[0] for found in imported(ast.walk(tree(path)))}
    assert tops <= set(sys.stdlib_module_names) | {"numpy", "ase"}
    if path.name == "measure_script.py":
        assert tops <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", [path for path in FILES if name(path).partition("/")[0] != "cli"], ids=name)
def test_nobody_imports_the_package_root(path):
    """The root knows everybody; whoever imports it, knows everybody too. The command line may, for the version."""
    for found in imported(ast.walk(tree(path))):
        top, _, rest = found.partition(".")
        if top == "mlipcluster":
            module = PACKAGE / rest.partition(".")[0]
            assert rest, f"{name(path)} imports the package root"
            assert module.is_dir() or module.with_suffix(".py").is_file(), f"{name(path)} takes {rest} from the root"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_heavy_packages_are_imported_where_they_are_used(path):
    found = {found.partition(".")[0] for found in imported(at_import_time(tree(path)))}
    assert not found & INSIDE_FUNCTIONS


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "protocols"], ids=name)
def test_a_protocol_is_what_a_user_could_have_written(path):
    tops = {found.partition(".")[0] for found in imported(ast.walk(tree(path)))}
    assert tops <= set(sys.stdlib_module_names) | {"numpy", "ase", "mlipcluster"}


def test_only_process_py_and_hosts_start_processes():
    """Short commands go through process.py, where what they say on stderr is kept."""
    starters = {
        name(path)
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in STARTS
    }
    assert starters <= {
        "calculators/foreign_code.py",
        "calculators/worker_process.py",
        "deploy/local.py",
        "environments/measure_script.py",
        "process.py",
        "protocol_process.py",
        "serving/spawned.py",
    }


def test_errors_have_one_root_and_are_drawn():
    found = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]
    assert len(found) > 10
    for error in found:
        assert issubclass(error, errors.MLIPClusterError)
        assert error.__name__ in errors.__doc__
        if error is not errors.MLIPClusterError:
            assert any(base.__module__ == "builtins" and base not in (Exception, BaseException, object)
                       for base in error.__mro__), f"{error.__name__} has no built-in counterpart"  # fmt: skip
