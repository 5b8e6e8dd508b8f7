from __future__ import annotations

import bz2
import gzip
import lzma
import sys

import pytest

from mlipcluster.errors import InputError, RecordError
from mlipcluster.recreation import containers

WAYS = {"plain": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("way", WAYS)
def test_content_is_told_without_the_name(tmp_path, way):
    path = tmp_path / "no suffix\nat 'all'"
    path.write_bytes(WAYS[way](b"one\ntwo\nrest"))
    assert containers.read(path) == b"one\ntwo\nrest"
    assert list(containers.lines(path)) == [b"one\n", b"two\n", b"rest"]
    assert containers.first(path, 2) == b"on"


@pytest.mark.parametrize("way", WAYS)
def test_a_bomb_is_stopped_at_the_limit(tmp_path, way):
    path = tmp_path / "bomb"
    path.write_bytes(WAYS[way](bytes(5_000_000)))
    for read in (containers.read, lambda *given: list(containers.lines(*given))):
        with pytest.raises(RecordError, match=r"more than 1000 bytes.*--max_bytes"):
            read(path, 1000)
    assert len(containers.read(path, 5_000_000)) == 5_000_000


@pytest.mark.parametrize("way", ["gz", "bz2", "xz"])
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_damage_is_named(tmp_path, way, damage):
    path = tmp_path / "file"
    data = bytearray(WAYS[way](bytes(range(256)) * 50))
    if damage == "cut":
        del data[len(data) // 2 :]
    else:
        data[len(data) // 2] ^= 255
    path.write_bytes(data)
    with pytest.raises(RecordError, match=r"damaged.*restore the file"):
        containers.read(path)


def test_what_is_no_file(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        containers.read(tmp_path / "gone")
    with pytest.raises(InputError, match="is a folder"):
        containers.read(tmp_path)
    with pytest.raises(InputError, match="is no file"):
        containers.read(type(tmp_path)("/dev/null"))


@pytest.mark.parametrize("head", [b"PK\x03\x04....", b"\x28\xb5\x2f\xfd...."])
def test_what_cannot_be_decompressed_here(tmp_path, head):
    (tmp_path / "file").write_bytes(head)
    with pytest.raises(InputError, match="decompress it"):
        containers.read(tmp_path / "file")


def test_a_python_without_the_module(tmp_path, monkeypatch):
    (tmp_path / "file.xz").write_bytes(lzma.compress(b"x"))
    monkeypatch.setitem(sys.modules, "lzma", None)
    with pytest.raises(InputError, match="lacks the module lzma"):
        containers.read(tmp_path / "file.xz")
