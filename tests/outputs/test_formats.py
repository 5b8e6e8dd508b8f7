from __future__ import annotations

import pytest

from mlipcluster.errors import InputError
from mlipcluster.outputs.formats import FORMATS, find_format, recognise


@pytest.mark.parametrize("name", FORMATS)
def test_a_frame_is_split_where_its_record_is(name, rich):
    form = find_format(name)
    made = form.frame(rich)
    text = made.before + form.opening + form.escape('{"a":"\\"\\n"}') + form.closing + made.after
    before, embedded, after = form.split(text)
    assert (before, form.unescape(embedded), after) == (made.before, '{"a":"\\"\\n"}', made.after)
    assert recognise(text) is form


@pytest.mark.parametrize("name", FORMATS)
def test_escaping_goes_piece_by_piece(name):
    form = find_format(name)
    assert form.escape('a"\\') + form.escape('\\"b') == form.escape('a"\\\\"b')


def test_unknown_name_lists_the_known():
    with pytest.raises(InputError, match="'cif' is unknown; known: extxyz, json"):
        find_format("cif")
