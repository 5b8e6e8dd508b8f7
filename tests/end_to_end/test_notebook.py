"""A notebook as its user runs it: cells, a table, a bar; a cell edited; an output made again somewhere else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from mlipcluster.outputs.results import Results

pytestmark = [pytest.mark.notebook, pytest.mark.slow, pytest.mark.timeout(600)]

KERNEL = "of-these-tests"
TASKS, CHILDREN = 6, 2
CALLS = TASKS + TASKS * CHILDREN


class Notebook:
    """A notebook and its kernel, cell by cell; the outputs are kept in it."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.content = nbformat.read(path, as_version=4)
        nbformat.validate(self.content)
        self.names = [cell["id"] for cell in self.content.cells]
        self.client = NotebookClient(
            self.content, kernel_name=KERNEL, timeout=300, resources={"metadata": {"path": os.fspath(folder)}}
        )

    def cell(self, name: str):
        return self.content.cells[self.names.index(name)]

    def run(self, *names: str) -> None:
        for name in names:
            self.client.execute_cell(self.cell(name), self.names.index(name))

    def html(self, name: str) -> str:
        """The HTML that a cell shows."""
        return "\n".join(output["data"].get("text/html", "") for output in self.cell(name).outputs if "data" in output)

    def text(self, name: str) -> str:
        """What a cell prints."""
        return "".join(output["text"] for output in self.cell(name).outputs if output["output_type"] == "stream")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """A kernel of this Python, known to nobody else."""
    home = tmp_path_factory.mktemp("jupyter")
    command = [sys.executable, "-m", "ipykernel", "install", "--prefix", home, "--name", KERNEL]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
            patch.setenv(name, os.fspath(home / name.lower()))
        patch.setenv("JUPYTER_PATH", os.fspath(home / "share" / "jupyter"))
        yield


@pytest.fixture(scope="module")
def executed(kernel, tmp_path_factory):
    """The quickstart, run from top to bottom."""
    folder = tmp_path_factory.mktemp("notebook")
    path = Path(__file__).parents[2] / "examples" / "notebooks" / "quickstart.ipynb"
    notebook = Notebook(path, folder)
    with notebook.client.setup_kernel():
        notebook.run(*(cell["id"] for cell in notebook.content.cells if cell["cell_type"] == "code"))
        yield notebook, folder
    if keep := os.environ.get("MLIPCLUSTER_TEST_KEEP_NOTEBOOK"):
        nbformat.write(notebook.content, keep)


def test_the_notebook_is_kept_without_outputs():
    folder = Path(__file__).parents[2] / "examples" / "notebooks"
    for path in folder.glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs")
            assert not cell.get("execution_count")


def test_nothing_looks_like_an_error(executed):
    notebook, _ = executed
    for cell in notebook.content.cells:
        for output in cell.get("outputs", ()):
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr", output["text"]


def test_a_bar_and_a_table_are_shown(executed):
    notebook, _ = executed
    html = notebook.html("first")
    assert re.search(rf'<progress value="{CALLS}" max="{CALLS}"', html)
    assert f"{CALLS}/{CALLS} done, 0 failed, 0 running" in html
    assert "rattle → settle" in html
    assert "<b>Results</b>: 12 outputs" in html
    assert html.count("<tr>") == 1 + 10  # heading, and the first ten
    assert "energy / eV" in html
    assert re.search(r'Dask dashboard: <a href="http://localhost:\d+/status"', html)
    table = notebook.html("table")
    assert table.count("<tr") == 1 + TASKS * CHILDREN
    assert "gained" in table


def test_the_second_time_everything_is_done_already(executed):
    notebook, _ = executed
    assert f"{CALLS}/{CALLS} done ({CALLS} earlier), 0 failed" in notebook.html("second")
    assert "again" not in notebook.html("second")


def test_an_edited_cell_does_only_its_own_work_again_and_says_why(executed):
    notebook, _ = executed
    assert f"{CALLS}/{CALLS} done ({TASKS} earlier), 0 failed" in notebook.html("third")
    assert f"{TASKS * CHILDREN} finished calls were made again: protocol &#x27;settle&#x27; changed." in notebook.html(
        "third"
    )


def test_the_audit_is_identical_in_the_notebook(executed):
    notebook, _ = executed
    assert notebook.text("audit").startswith("identical: energy, forces, stress, positions, cell (bit for bit)")


def test_a_new_kernel_goes_on_where_the_old_one_was(executed, kernel):
    """Cells have other file names and line numbers in another kernel; the protocols are the same."""
    _, folder = executed
    path = Path(__file__).parents[2] / "examples" / "notebooks" / "quickstart.ipynb"
    again = Notebook(path, folder)
    again.cell("edited").source = "# another kernel\n\n" + again.cell("edited").source
    with again.client.setup_kernel():
        again.run("imports", "edited", "rattle", "third")
    assert f"{CALLS}/{CALLS} done ({CALLS} earlier), 0 failed" in again.html("third")
    assert "again" not in again.html("third")


SCRIPT = """
from ase.optimize import BFGS
from mlipcluster import reproduce
from mlipcluster.errors import ProtocolError

{protocols}

if __name__ == "__main__":
    audit = reproduce({path!r}, {arguments})
    print(audit.headline)
"""


@pytest.mark.parametrize("how", ["trusted", "given", "in a script of its own", "neither"])
def test_an_output_is_made_again_by_another_process(executed, tmp_path, how):
    notebook, folder = executed
    source = "\n\n".join(notebook.cell(name).source for name in ("rattle", "edited"))
    arguments = {"trusted": "trust=True", "given": "protocols=[rattle, settle]"}.get(how, "")
    if how == "given":  # comments, docstrings and places do not matter
        source = re.sub(r"(?m)^(def .*)$", r'\1\n    """Given by hand."""  # here', source)
    path = os.fspath(Results.open(folder / "runs" / "notebook").outputs[-1].path)
    script = tmp_path / "audit.py"
    protocols = "" if how in ("trusted", "neither") else source
    script.write_text(SCRIPT.format(protocols=protocols, path=path, arguments=arguments))
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    if how == "neither":
        assert "was defined in a script or notebook (__main__)" in done.stderr
        assert "protocols=[…]" in done.stderr
        assert "trust=True" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("identical: energy, forces, stress, positions, cell (bit for bit)")
    assert "as recorded" in done.stdout
