"""The skip policy of conftest.py: in CI nothing is left out unseen."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
TESTS = """
import pytest

def test_home(): assert __import__("os").environ["HOME"] != {home!r}
def test_marked(): pytest.skip("no such thing here")
def test_imported(): pytest.importorskip("no_such_module")
@pytest.mark.xfail(strict=True, reason="known")
def test_expected(): raise AssertionError
"""
ALLOWED = '[[allowed]]\ntest = "test_some.py::test_*ed"\nreason = "tried out"\n'


@pytest.fixture
def suite(pytester, monkeypatch):
    def run(*, ci, skips="", module=""):
        monkeypatch.setenv("CI", ci)
        monkeypatch.setenv("HOME", "/nobody")
        shutil.copy(CONFTEST, pytester.path / "conftest.py")
        (pytester.path / "skips.toml").write_text(skips, encoding="utf-8")
        pytester.makepyfile(test_some=module + TESTS.format(home="/nobody"))
        return pytester.runpytest_subprocess("-p", "no:cacheprovider")

    return run


def test_here_a_skip_is_a_skip(suite):
    result = suite(ci="")
    result.assert_outcomes(passed=1, skipped=2, xfailed=1)
    assert result.ret == 0


def test_in_ci_a_skip_is_a_failure_that_says_what_to_do(suite):
    result = suite(ci="true")
    result.assert_outcomes(passed=1, failed=2, xfailed=1)
    result.stdout.fnmatch_lines("*not run in CI (*no such thing here*); provide what it needs or list it*")


def test_in_ci_a_listed_skip_may_be(suite):
    suite(ci="true", skips=ALLOWED).assert_outcomes(passed=1, skipped=2, xfailed=1)


def test_in_ci_a_file_left_out_is_a_failure(suite):
    result = suite(ci="true", module='import pytest\npytest.skip("all of it", allow_module_level=True)\n')
    assert result.ret != 0
    result.stdout.fnmatch_lines("*not run in CI (*all of it*")
