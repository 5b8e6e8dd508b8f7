from __future__ import annotations

import bz2
import gzip
import lzma

import pytest

from mlipcluster.errors import InputError, RecordError
from mlipcluster.outputs.compression import COMPRESSIONS, find_compression, unpack

TEXT = b"4\nmlipcluster=1\n" + b"Cu 0.1 0.2 0.3\n" * 40
PACKED = [name for name in COMPRESSIONS if name]
READERS = {"gz": gzip.decompress, "bz2": bz2.decompress, "xz": lzma.decompress}


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_round_trip_is_told_by_content(name):
    compression = find_compression(name)
    raw = compression.compress(TEXT)
    assert raw == compression.compress(TEXT)
    assert unpack(raw) == (compression, TEXT)
    assert compression.is_ours(raw, TEXT)


@pytest.mark.parametrize("name", PACKED)
def test_any_other_program_can_read_it(name):
    assert READERS[name](find_compression(name).compress(TEXT)) == TEXT


def test_gz_holds_neither_time_nor_name():
    assert find_compression("gz").compress(TEXT)[4:8] == bytes(4)


@pytest.mark.parametrize("name", PACKED)
def test_every_bit_of_a_container_is_watched(name):
    compression = find_compression(name)
    raw = compression.compress(TEXT)
    silent = []
    for position in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[position] ^= 1 << bit
            try:
                found, content = unpack(bytes(changed))
            except RecordError:
                continue
            if content == TEXT and found.is_ours(bytes(changed), content):
                silent.append((position, bit))
    assert silent == []


@pytest.mark.parametrize("name", PACKED)
def test_a_container_cut_anywhere_is_damaged(name):
    compression = find_compression(name)
    raw = compression.compress(TEXT)
    for length in range(8, len(raw)):
        with pytest.raises(RecordError, match=f"the {name} container is damaged"):
            unpack(raw[:length])


@pytest.mark.parametrize("raw", [gzip.compress(TEXT), bz2.compress(TEXT, 1)], ids=["gz", "bz2"])
def test_another_program_s_container_is_read_but_not_ours(raw):
    compression, content = unpack(raw)
    assert content == TEXT
    assert not compression.is_ours(raw, content)


def test_unknown_name_lists_the_known():
    with pytest.raises(InputError, match=r"'zip' is unknown; known: '', 'gz', 'bz2', 'xz'"):
        find_compression("zip")
