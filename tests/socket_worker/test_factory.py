from __future__ import annotations

import os.path

import pytest

from mlipcluster.socket_worker.factory import callable_of, find, parts, table_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b:C.d", ("a.b", "C.d", None)),
        ("a:T[mace-medium]", ("a", "T", "mace-medium")),
        ("a:T.b[x[1]: y.z\n]", ("a", "T.b", "x[1]: y.z\n")),
        ("a:T[]]", ("a", "T", "]")),
    ],
)
def test_the_forms(text, expected):
    assert parts(text) == expected


@pytest.mark.parametrize(
    "text", ["", "a", "a:", ":b", "a:b c", "a b:c", "a:T[]", "a:T[x", "a:[x]", "a:T]", "a[x]:b", 3, None]
)
def test_what_has_none_is_refused(text):
    with pytest.raises(ValueError, match="module:callable"):
        parts(text)


def test_names_and_items_are_found(tmp_path, monkeypatch):
    (tmp_path / "found_here.py").write_text(
        "class Model:\n    def get_calculator(self):\n        return 7\n\n"
        "TABLE = {'a b': int, 'model': Model()}\n\n\ndef table():\n    return TABLE\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert find("os.path:join") is os.path.join
    assert find("found_here:TABLE[a b]") is int
    assert find("found_here:table[a b]") is int
    assert find("found_here:TABLE[model]")() == 7
    with pytest.raises(KeyError, match="other"):
        find("found_here:TABLE[other]")


def test_what_is_no_table_is_told():
    with pytest.raises(TypeError, match="list is no table"):
        table_of([1])
    with pytest.raises(TypeError, match="list is no table"):
        table_of(lambda: [1])
    assert callable_of(3) == 3
