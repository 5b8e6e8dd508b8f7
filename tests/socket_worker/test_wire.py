from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlipcluster.socket_worker import wire

HEADERS = st.dictionaries(
    st.text(max_size=8).filter(lambda name: name != "arrays"),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=5,
    ),
    max_size=4,
)
ARRAYS = st.dictionaries(
    st.text(max_size=8),
    st.sampled_from(list(wire.DTYPES.values())).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    ),
    max_size=4,
)


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


@given(frames=st.lists(st.tuples(HEADERS, ARRAYS, st.integers(0, 2**64 - 1)), max_size=4), data=st.data())
def test_frames_survive_bit_for_bit_however_they_are_split(frames, data):
    stream = b"".join(wire.encode(*frame) for frame in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    decoder, messages = wire.Decoder(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        messages += decoder.feed(stream[start:end])
    assert len(messages) == len(frames)
    for (header, arrays, request_id), message in zip(frames, messages, strict=True):
        assert message.id == request_id
        assert {key: value for key, value in message.header.items() if key != "arrays"} == header
        assert list(message.arrays) == list(arrays)
        assert all(same(message.arrays[name], array) for name, array in arrays.items())


def test_every_single_byte_may_come_alone():
    arrays = {"positions": np.random.default_rng(0).random((7, 3)), "pbc": np.array([True, False, True])}
    stream = wire.encode({"kind": "x"}, arrays, 1) + wire.encode({}, {}, 2)
    decoder = wire.Decoder()
    messages = [message for byte in stream for message in decoder.feed(bytes([byte]))]
    assert [message.id for message in messages] == [1, 2]
    assert same(messages[0].arrays["positions"], arrays["positions"])


@given(st.binary(max_size=200))
def test_noise_is_refused_or_waited_out(noise):
    decoder = wire.Decoder()
    try:
        assert decoder.feed(noise) == []
    except wire.FrameError:
        return
    assert noise[: len(wire.MAGIC)] == wire.MAGIC[: len(noise)] or len(noise) < wire.PREFIX.size


@given(data=st.data())
def test_a_damaged_byte_never_does_more_than_raise_frame_error(data):
    frame = bytearray(wire.encode({"kind": "calculate"}, {"forces": np.ones((2, 3)), "e": np.array(1.0)}, 3))
    place = data.draw(st.integers(0, len(frame) - 1))
    frame[place] ^= data.draw(st.integers(1, 255))
    try:
        for message in wire.Decoder().feed(bytes(frame)):
            assert isinstance(message.header, dict)
    except wire.FrameError:
        pass


def frame(header: object = None, body: bytes = b"", **prefix: object) -> bytes:
    """A frame made by hand, so that it may be wrong."""
    text = header if isinstance(header, bytes) else json.dumps({} if header is None else header).encode()
    text += b" " * wire.padding(len(text))
    stated = {"magic": b"MLIP", "version": 1, "header_length": len(text), "body_length": len(body), "id": 5, **prefix}
    return wire.PREFIX.pack(*stated.values()) + text + body


def arrays(*entries: object) -> dict[str, object]:
    return {"arrays": list(entries)}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (frame(magic=b"HTTP"), "b'HTTP'"),
        (frame(version=2), "version 2 .* version 1"),
        (frame(header_length=1 << 40), "header of 1099511627776 bytes"),
        (frame(body_length=1 << 62), "body of 4611686018427387904 bytes"),
        (frame(body_length=12), "multiples of 8"),
        (frame(b"{"), "not JSON"),
        (frame(b"[" * 4000 * 8), "not JSON"),
        (frame(b"\xff" * 8), "not JSON"),
        (frame([]), "a JSON list"),
        (frame({"arrays": 1}), "'arrays' is not a list"),
        (frame(arrays(*[["a", "<f8", []]] * 2000)), "at most 1024"),
        (frame(arrays(["a", "<f8"])), r"\[name, dtype, shape\]"),
        (frame(arrays([1, "<f8", []])), r"\[name, dtype, shape\]"),
        (frame(arrays(["a", "|O", [1]]), bytes(8)), r"dtype '\|O'"),
        (frame(arrays(["a", "|V8", [1]]), bytes(8)), "dtype"),
        (frame(arrays(["a", "<M8[s]", [1]]), bytes(8)), "dtype"),
        (frame(arrays(["a", ">f8", [1]]), bytes(8)), "dtype"),
        (frame(arrays(["a", ["<f8"], [1]]), bytes(8)), "dtype"),
        (frame(arrays(["a", "<f8", 1]), bytes(8)), "shape"),
        (frame(arrays(["a", "<f8", [-1]]), bytes(8)), "shape"),
        (frame(arrays(["a", "<f8", [1.0]]), bytes(8)), "shape"),
        (frame(arrays(["a", "<f8", [True]]), bytes(8)), "shape"),
        (frame(arrays(["a", "<f8", [1] * 40]), bytes(8)), "shape"),
        (frame(arrays(["a", "<f8", [1 << 32, 1 << 32, 0]])), "shape"),
        (frame(arrays(["a", "<f8", [1 << 32] * 8]), bytes(8)), "the body has 8"),
        (frame(arrays(["a", "<f8", [2]]), bytes(8)), "the arrays need 16 bytes, the body has 8"),
        (frame(arrays(["a", "<f8", [1]]), bytes(16)), "the arrays need 8 bytes, the body has 16"),
        (frame(arrays(["a", "<f8", [1]], ["a", "<f8", [1]]), bytes(16)), "'a' comes twice"),
        (frame({}, bytes(8)), "the arrays need 0 bytes, the body has 8"),
    ],
)
def test_a_bad_frame_names_what_is_wrong(data, words):
    with pytest.raises(wire.FrameError, match=words):
        wire.Decoder().feed(data)


def test_a_lie_in_the_lengths_costs_no_memory():
    decoder = wire.Decoder()
    decoder.feed(frame(body_length=wire.MAX_BODY))
    assert len(decoder.space()) < 1 << 20


def test_a_large_frame_does_not_keep_its_memory():
    decoder = wire.Decoder()
    big = np.zeros(wire.KEPT_BUFFER // 4)
    assert same(decoder.feed(wire.encode({}, {"big": big}))[0].arrays["big"], big)
    assert len(decoder.space()) < 1 << 20


def test_a_head_is_a_template():
    head = wire.head({"kind": "x"}, {}, 1)
    wire.set_id(head, 2**63)
    assert wire.Decoder().feed(bytes(head))[0].id == 2**63


def test_too_much_is_refused_before_it_is_sent():
    with pytest.raises(wire.FrameError, match="header of"):
        wire.head({"text": "x" * wire.MAX_HEADER}, {})
    with pytest.raises(wire.FrameError, match="at most"):
        wire.head({}, {"a": np.broadcast_to(np.float64(0), (1 << 30,))})


@pytest.mark.parametrize("dtype", ["object", "longdouble", "datetime64[s]", "U3", "S3"])
def test_what_has_no_place_on_the_wire_is_not_portable(dtype):
    assert wire.portable(np.zeros(2, dtype)) is None


@pytest.mark.parametrize("array", [np.arange(6.0).reshape(2, 3).T, np.arange(8.0)[::2], np.arange(3, dtype=">f8")])
def test_portable_keeps_values(array):
    portable = wire.portable(array)
    assert portable.flags.c_contiguous
    assert portable.dtype.str in wire.DTYPES
    assert (portable == array).all()
