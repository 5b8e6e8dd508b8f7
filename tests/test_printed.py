from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlipcluster.printed import KEPT, Marker, PrintedText


@pytest.fixture
def stream(monkeypatch):
    """Writing end and reader of a pipe; the writing end stands for file descriptor 1."""
    reading, writing = os.pipe()
    monkeypatch.setattr("mlipcluster.printed.os.dup", lambda fd: writing)
    yield writing, Marker(), PrintedText(reading)
    os.close(reading)
    os.close(writing)


def test_each_call_has_its_own_text_however_late_it_is_read(stream):
    writing, marker, printed = stream
    os.write(writing, b"warnings of imports")
    marker.begin()
    for text in (b"one\n", b"", b"three \xff\n"):
        os.write(writing, text)
        marker.end()
    os.write(writing, b"four, and then")
    assert [printed.of_finished() for _ in range(3)] == ["one\n", "", "three \ufffd\n"]
    assert printed.of_unfinished() == "four, and then"


def test_without_a_mark_there_is_nothing(stream):
    writing, _, printed = stream
    os.write(writing, b"text")
    assert printed.of_finished() == ""


def test_the_end_of_the_stream_is_noticed():
    reading, writing = os.pipe()
    printed = PrintedText(reading)
    os.write(writing, b"last words")
    os.close(writing)
    assert printed.read()
    assert not printed.is_open
    assert printed.of_unfinished() == "last words"
    os.close(reading)


@given(st.data())
def test_texts_do_not_depend_on_how_they_arrive(data):
    texts = data.draw(st.lists(st.binary(max_size=30) | st.sampled_from([b"\0", b"\0\x1e", b"\0\x1ecall"]), max_size=5))
    whole = b"noise\0\x1ecall\x1eB" + b"".join(text + b"\0\x1ecall\x1eE" for text in texts) + b"rest"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=10)))
    reading, writing = os.pipe()
    try:
        printed = PrintedText(reading)
        for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
            os.write(writing, whole[start:end])
            printed.read()
        assert [printed.of_finished() for _ in texts] == [text.decode("utf-8", "replace") for text in texts]
        assert printed.of_unfinished() == "rest"
    finally:
        os.close(reading)
        os.close(writing)


def test_only_the_end_is_kept(stream):
    writing, marker, printed = stream
    marker.begin()
    for _ in range(10):
        os.write(writing, b"x" * (KEPT // 2))
        printed.read()
    os.write(writing, b"end")
    assert len(printed._text) <= 3 * KEPT
    printed.read()
    marker.end()
    text = printed.of_finished()
    assert len(text) == KEPT
    assert text.endswith("xend")
