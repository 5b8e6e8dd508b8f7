"""Compressed containers: their bytes depend on their content alone, and a changed byte in them never goes unnoticed."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from mlipcluster.errors import InputError, RecordError

# A gzip header (RFC 1952) with an extra field of ours: deflate ignores some bits of a stream, so the stream's own
# SHA-256 stands before it. No time and no file name: the same content gives the same bytes.
_GZ_HEAD = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + struct.pack("<H", 36) + b"ML" + struct.pack("<H", 32)
_GZ_BODY = len(_GZ_HEAD) + 32


@dataclass(frozen=True)
class Compression:
    """One way to compress.

    Attributes
    ----------
    suffix : str
        Suffix of the file name, without its dot.
    magic : bytes
        How a file of that kind begins.
    compress, decompress : callable
        From bytes to bytes.
    is_ours : callable
        Whether a container is, byte for byte, what ``compress`` writes for the content it holds; called with the
        container and its content.
    """

    suffix: str
    magic: bytes
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes], bytes]
    is_ours: Callable[[bytes, bytes], bool]


def _gz_compress(data: bytes) -> bytes:
    deflater = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = deflater.compress(data) + deflater.flush()
    tail = struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)
    return _GZ_HEAD + hashlib.sha256(body).digest() + body + tail


def _gz_is_ours(raw: bytes, _: bytes) -> bool:
    body = raw[_GZ_BODY:-8]
    return raw[:_GZ_BODY] == _GZ_HEAD + hashlib.sha256(body).digest()


def _bz2_is_ours(raw: bytes, content: bytes) -> bool:
    return raw == bz2.compress(content)  # this library writes the same bytes since 2000


def _xz_compress(data: bytes) -> bytes:
    return lzma.compress(data, format=lzma.FORMAT_XZ, check=lzma.CHECK_SHA256, preset=3)


def _always(_: bytes, __: bytes) -> bool:
    return True  # nothing around the text, or xz, which checks every bit of a stream itself


COMPRESSIONS: dict[str, Compression] = {
    "": Compression("", b"", bytes, bytes, _always),
    "gz": Compression("gz", b"\x1f\x8b", _gz_compress, gzip.decompress, _gz_is_ours),
    "bz2": Compression("bz2", b"BZh", bz2.compress, bz2.decompress, _bz2_is_ours),
    "xz": Compression("xz", b"\xfd7zXZ\0", _xz_compress, lzma.decompress, _always),
}


def find_compression(name: str) -> Compression:
    """The compression of that name.

    Raises
    ------
    InputError
        It is unknown; the message lists the known ones.
    """
    if name not in COMPRESSIONS:
        raise InputError(f"compression {name!r} is unknown; known: {', '.join(map(repr, COMPRESSIONS))}")
    return COMPRESSIONS[name]


def unpack(raw: bytes) -> tuple[Compression, bytes]:
    """Tell by its first bytes how *raw* is compressed, and decompress it.

    Raises
    ------
    RecordError
        It is cut short or damaged.
    """
    for compression in COMPRESSIONS.values():
        if compression.magic and raw.startswith(compression.magic):
            try:
                return compression, compression.decompress(raw)
            except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
                raise RecordError(
                    f"the {compression.suffix} container is damaged ({error}); restore the file"
                ) from error
    return COMPRESSIONS[""], raw
