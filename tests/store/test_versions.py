from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given
from packaging.specifiers import SpecifierSet

from mlipcluster.errors import InputError
from mlipcluster.store.versions import allows


@pytest.mark.parametrize(
    ("specifier", "yes", "no"),
    [
        ("", (3, 9, 0), None),
        (">=3.10", (3, 10, 0), (3, 9, 18)),
        (">=3.10,<3.13", (3, 12, 9), (3, 13, 0)),
        (">3.10", (3, 10, 1), (3, 10, 0)),
        ("<=3.10", (3, 10, 0), (3, 10, 1)),
        ("==3.11.*", (3, 11, 7), (3, 12, 0)),
        ("!=3.11.*", (3, 12, 0), (3, 11, 7)),
        ("==3.11.7", (3, 11, 7), (3, 11, 8)),
        ("===3.11.7", (3, 11, 7), (3, 11, 8)),
        ("!=3.11.7", (3, 11, 8), (3, 11, 7)),
        ("~=3.10", (3, 12, 0), (3, 9, 0)),
        ("~=3.11.2", (3, 11, 7), (3, 12, 0)),
        (" >= 3.9 , ", (3, 9, 0), (3, 8, 0)),
    ],
)
def test_versions(specifier, yes, no):
    assert allows(specifier, yes)
    assert no is None or not allows(specifier, no)


@pytest.mark.parametrize("specifier", ["three", "3.10", ">=", ">=3.*", ">=3.9,nonsense", "^3.9"])
def test_what_is_no_specifier(specifier):
    with pytest.raises(InputError, match="cannot be read; write it as in"):
        allows(specifier, ())


_NUMBERS = st.lists(st.integers(0, 4), min_size=1, max_size=3).map(lambda numbers: ".".join(map(str, numbers)))
_CLAUSES = st.one_of(
    st.builds("{}{}".format, st.sampled_from(["==", "!=", ">=", "<=", ">", "<"]), _NUMBERS),
    st.builds("{}{}.*".format, st.sampled_from(["==", "!="]), _NUMBERS),
    st.builds("~={}.{}".format, _NUMBERS.filter(lambda text: text.count(".") < 2), st.integers(0, 4)),
)


@given(st.lists(_CLAUSES, max_size=3).map(",".join), st.tuples(*[st.integers(0, 4)] * 3))
def test_as_installers_read_them(specifier, version):
    assert allows(specifier, version) == SpecifierSet(specifier).contains(".".join(map(str, version)))
