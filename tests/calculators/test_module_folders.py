from __future__ import annotations

import sys

import ase
import pytest

from mlipcluster.calculators.module_folders import folder_of


@pytest.mark.parametrize("module", [ase.__name__, "ase.calculators.emt", "json", "sys", "no.such.module"])
def test_what_every_python_of_the_environment_finds_needs_no_folder(module):
    assert folder_of(module) == ""


def test_others_are_found_from_the_folder_above_their_package(tmp_path, monkeypatch):
    package = tmp_path / "a_package_of_mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("")
    (tmp_path / "a_module_of_mine.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    import a_module_of_mine  # noqa: F401
    import a_package_of_mine.inner  # noqa: F401

    assert folder_of("a_package_of_mine.inner") == folder_of("a_module_of_mine") == str(tmp_path)
    for name in ("a_package_of_mine", "a_package_of_mine.inner", "a_module_of_mine"):
        monkeypatch.delitem(sys.modules, name)
