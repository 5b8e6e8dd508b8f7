"""The wire between a calculator and its socket worker: frames in, frames out, no sockets.

One frame::

    offset  bytes
    0       4      magic, b"MLIP"
    4       4      version, unsigned
    8       8      length of the header, a multiple of 8
    16      8      length of the body, a multiple of 8
    24      8      id: a request's own, and its answer's
    32      …      header: JSON object in UTF-8, padded with spaces
    …       …      body: the arrays named in the header, each padded with zeros to a multiple of 8

All numbers are little-endian. ``header["arrays"]`` lists ``[name, dtype, shape]`` in the order of the body; the bytes
are those of a C-ordered array, so that floats arrive bit for bit. There is no pickle anywhere.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

MAGIC = b"MLIP"
VERSION = 1
PREFIX = struct.Struct("<4sIQQQ")
ID_OFFSET = 24
ALIGNMENT = 8

#: Arrays of a structure's info are named with this before their key.
INFO = "info:"

MAX_HEADER = 1 << 24
MAX_BODY = 1 << 32
MAX_ARRAYS = 1024
MAX_DIMENSIONS = 32
KEPT_BUFFER = 1 << 25

DTYPES = {
    text: np.dtype(text)
    for text in (
        *("|b1", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8"),
        *("<f2", "<f4", "<f8", "<c8", "<c16"),
    )
}
_USUAL_DTYPES = frozenset((np.dtype("<f8"), np.dtype("<f4")))


class FrameError(ValueError):
    """Bytes that are not a frame of this wire; the message says what was wrong with them."""


class Message(NamedTuple):
    """One frame, decoded.

    Attributes
    ----------
    id : int
        The request's id, and its answer's.
    header : dict
        The JSON header. Decoders share equal headers between messages: read it, do not change it.
    arrays : dict of str to numpy.ndarray
        Read-only views of the decoder's buffer: copy what must outlive the next ``space()``.
    frame : memoryview
        All its bytes, a view like the arrays: for whoever hands it on.
    """

    id: int
    header: dict[str, Any]
    arrays: dict[str, np.ndarray]
    frame: memoryview = memoryview(b"")


def padding(length: int) -> int:
    """Bytes that bring *length* to a multiple of 8."""
    return -length % ALIGNMENT


def portable(array: np.ndarray) -> np.ndarray | None:
    """*array* C-contiguous and little-endian, or None if its dtype does not travel."""
    if array.dtype in _USUAL_DTYPES and array.flags.c_contiguous:
        return array
    if array.dtype.str not in DTYPES:
        array = array.astype(array.dtype.newbyteorder("<")) if array.dtype.kind in "iufc" else array
        if array.dtype.str not in DTYPES:
            return None
    return array if array.flags.c_contiguous else array.copy(order="C")


def layout(arrays: Mapping[str, np.ndarray]) -> list[list[Any]]:
    """What the header says of *arrays*: name, dtype and shape of each."""
    return [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]


def head(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], request_id: int = 0) -> bytearray:
    """Prefix and header of a frame that carries *arrays*; :func:`set_id` makes it a template.

    Raises
    ------
    FrameError
        It is more than a frame carries.
    """
    if len(arrays) > MAX_ARRAYS:
        raise FrameError(f"{len(arrays)} arrays; at most {MAX_ARRAYS} travel in one message")
    full = {**header, "arrays": layout(arrays)} if arrays else dict(header)
    text = json.dumps(full, separators=(",", ":")).encode()
    text += b" " * padding(len(text))
    body = sum(array.nbytes + padding(array.nbytes) for array in arrays.values())
    if len(text) > MAX_HEADER:
        raise FrameError(f"header of {len(text)} bytes; at most {MAX_HEADER} travel")
    if body > MAX_BODY:
        raise FrameError(f"arrays of {body} bytes; at most {MAX_BODY} travel in one message")
    return bytearray(PREFIX.pack(MAGIC, VERSION, len(text), body, request_id) + text)


def set_id(frame_head: bytearray, request_id: int) -> None:
    """Write another id into a frame's head."""
    struct.pack_into("<Q", frame_head, ID_OFFSET, request_id)


def body(arrays: Mapping[str, np.ndarray]) -> list[Any]:
    """The buffers of a frame's body, to be gathered by ``sendmsg``; nothing is copied.

    *arrays* must be :func:`portable`.
    """
    buffers: list[Any] = []
    for array in arrays.values():
        if array.nbytes:
            buffers.append(array.data if array.ndim else array.tobytes())
            if pad := padding(array.nbytes):
                buffers.append(bytes(pad))
    return buffers


def encode(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None, request_id: int = 0) -> bytes:
    """One whole frame, in one piece."""
    arrays = arrays or {}
    return b"".join([bytes(head(header, arrays, request_id)), *body(arrays)])


class Decoder:
    """Turns bytes, in whatever pieces they come, into messages.

    Let the next bytes be written into :meth:`space`, tell :meth:`received` how many came, then take messages with
    :meth:`next` until there is none. Once a :class:`FrameError` was raised the stream is beyond repair.

    Parameters
    ----------
    max_header, max_body : int
        Bytes that they may have; the latter may be changed at any time.
    views : bool
        Whether messages bring their arrays; who only hands frames on does without.
    """

    def __init__(self, max_header: int = MAX_HEADER, max_body: int = MAX_BODY, *, views: bool = True) -> None:
        self._max_header, self.max_body = max_header, max_body
        self._views = views
        self._resize(1 << 16)
        self._start = self._end = 0
        self._last: _Header = _Header(b"", {}, (), 0)

    def space(self) -> memoryview:
        """Where the next bytes belong; never empty. Earlier messages' arrays are void from here on."""
        if self._start == self._end:
            self._start = self._end = 0
            if len(self._buffer) > KEPT_BUFFER:
                self._resize(1 << 16)
        elif self._end == len(self._buffer):
            self._make_room()
        return self._view[self._end :]

    def received(self, count: int) -> None:
        """*count* bytes were written into :meth:`space`."""
        self._end += count

    def next(self) -> Message | None:
        """The next complete message, or None.

        Raises
        ------
        FrameError
            What came is not a frame.
        """
        if self._end - self._start < PREFIX.size:
            return None
        magic, version, header_length, body_length, request_id = PREFIX.unpack_from(self._buffer, self._start)
        self._check_prefix(magic, version, header_length, body_length)
        header_start = self._start + PREFIX.size
        body_start = header_start + header_length
        end = body_start + body_length
        if self._end < end:
            return None
        header = self._header(bytes(self._view[header_start:body_start]))
        if header.body_length != body_length:
            raise FrameError(f"the arrays need {header.body_length} bytes, the body has {body_length}")
        buffer = self._bytes
        arrays = {
            name: np.ndarray(shape, dtype, buffer, body_start + offset)
            for name, dtype, shape, offset in (header.arrays if self._views else ())
        }
        frame = buffer[self._start : end]
        self._start = end
        return Message(request_id, header.values, arrays, frame)

    def feed(self, data: bytes) -> list[Message]:
        """Messages completed by *data*, their arrays copied: for tests and callers in no hurry."""
        messages, rest = [], memoryview(data)
        while rest:
            space = self.space()
            count = min(len(rest), len(space))
            space[:count] = rest[:count]
            rest = rest[count:]
            self.received(count)
            while (message := self.next()) is not None:
                arrays = {name: array.copy() for name, array in message.arrays.items()}
                messages.append(message._replace(arrays=arrays, frame=memoryview(bytes(message.frame))))
        return messages

    def _resize(self, size: int) -> None:
        self._buffer = bytearray(size)
        self._view = memoryview(self._buffer)
        self._bytes = self._view.toreadonly()

    def _make_room(self) -> None:
        """Move what is unread to the front; double the buffer if that frees less than half.

        It grows with what has come, not with what a prefix promises, so that a lie costs no memory.
        """
        unread = bytes(self._view[self._start : self._end])
        self._resize(len(self._buffer) * (2 if len(unread) * 2 > len(self._buffer) else 1))
        self._view[: len(unread)] = unread
        self._start, self._end = 0, len(unread)

    def _check_prefix(self, magic: bytes, version: int, header_length: int, body_length: int) -> None:
        if magic != MAGIC:
            raise FrameError(f"a frame starts with {MAGIC!r}, found {bytes(magic)!r}")
        if version != VERSION:
            raise FrameError(f"the other side speaks version {version} of the wire, this side version {VERSION}")
        if header_length > self._max_header:
            raise FrameError(f"header of {header_length} bytes announced; at most {self._max_header} are taken")
        if body_length > self.max_body:
            raise FrameError(f"body of {body_length} bytes announced; at most {self.max_body} are taken")
        if header_length % ALIGNMENT or body_length % ALIGNMENT:
            raise FrameError(f"lengths {header_length} and {body_length} are not multiples of {ALIGNMENT}")

    def _header(self, text: bytes) -> _Header:
        if text != self._last.text:  # in a relaxation every frame has the header of the one before
            self._last = _read_header(text)
        return self._last


class _Header(NamedTuple):
    """A header, read once: its values, and name, dtype, shape and offset in the body of each array."""

    text: bytes
    values: dict[str, Any]
    arrays: tuple[tuple[str, np.dtype, tuple[int, ...], int], ...]
    body_length: int


def _read_header(text: bytes) -> _Header:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"the header is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise FrameError(f"the header is a JSON {type(values).__name__}, not an object")
    entries = values.get("arrays", [])
    if not isinstance(entries, list) or len(entries) > MAX_ARRAYS:
        raise FrameError(f"'arrays' is not a list of at most {MAX_ARRAYS} entries")
    arrays, offset = {}, 0
    for entry in entries:
        name, dtype, shape, nbytes = _entry(entry)
        if name in arrays:
            raise FrameError(f"array {name!r} comes twice")
        arrays[name] = (name, dtype, shape, offset)
        offset += nbytes + padding(nbytes)
    return _Header(text, values, tuple(arrays.values()), offset)


def _entry(entry: Any) -> tuple[str, np.dtype, tuple[int, ...], int]:
    """Name, dtype, shape and byte count of one entry of ``arrays``, checked."""
    if not (isinstance(entry, list) and len(entry) == 3 and isinstance(entry[0], str)):
        raise FrameError(f"an entry of 'arrays' is [name, dtype, shape], found {str(entry)[:100]}")
    name, text, shape = entry
    dtype = DTYPES.get(text) if isinstance(text, str) else None
    if dtype is None:
        raise FrameError(f"array {name!r} has dtype {text!r}; only {', '.join(DTYPES)} travel")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        raise FrameError(f"array {name!r} has shape {str(shape)[:100]}")
    nbytes = extent = dtype.itemsize
    for length in shape:
        if type(length) is not int or not 0 <= length <= MAX_BODY:
            raise FrameError(f"array {name!r} has shape {str(shape)[:100]}")
        nbytes *= length
        extent *= length or 1
    if not nbytes and extent > MAX_BODY:  # NumPy makes no such array
        raise FrameError(f"array {name!r} has shape {str(shape)[:100]}")
    return name, dtype, tuple(shape), nbytes
