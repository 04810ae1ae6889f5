"""Files that were cut off, damaged, or have something behind their end."""

import bz2
import gzip
import io
import random
import zlib
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmofi.files import lines as reading
from openmofi.files.lines import Blocks, Damage, TruncatedFile, read_lines

LINES = [f"{random.Random(i).random()} line {i}".encode() for i in range(20_000)]
CONTENT = b"\n".join(LINES)
GZIP = gzip.compress(CONTENT, 6)
ZSTANDARD = pa.compress(CONTENT, "zstd", asbytes=True)


def read(path: Path) -> tuple[list[bytes], str | None]:
    """The lines, and why there are no more."""
    found = []
    try:
        for _, line in read_lines(path):
            found.append(line)
    except TruncatedFile as error:
        return found, error.damage.reason
    return found, None


def blocks(path: Path) -> tuple[bytes, Damage | None]:
    found = bytearray()
    with Blocks(path) as blocks:
        try:
            for block in blocks:
                found += block
        except TruncatedFile as error:
            return bytes(found), error.damage
    return bytes(found), None


@given(st.integers(20, len(GZIP) - 1), st.sampled_from([1000, 1 << 20]))
def test_a_gzip_file_cut_anywhere_gives_all_before_the_cut(tmp_path_factory, kept, size):
    path = tmp_path_factory.mktemp("cut") / "d.gz"
    path.write_bytes(GZIP[:kept])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "BLOCK_BYTES", size)
        found, damage = blocks(path)
    expected = zlib.decompressobj(31).decompress(GZIP[:kept])
    assert CONTENT.startswith(found)
    assert len(found) >= len(expected) - 16  # igzip decodes some symbols at once
    assert damage is not None
    assert damage.reason == "truncated_file"


@pytest.mark.parametrize("kept", [len(ZSTANDARD) // 2, len(ZSTANDARD) - 1])
def test_a_zstandard_file_that_is_cut_gives_its_whole_frames_blocks(tmp_path, kept, monkeypatch):
    (tmp_path / "d.zst").write_bytes(ZSTANDARD[:kept])
    found, reason = read(tmp_path / "d.zst")
    monkeypatch.setattr(reading, "BLOCK_BYTES", 1)  # loses nothing, slowly
    assert (found, reason) == read(tmp_path / "d.zst")
    assert reason == "truncated_file"
    assert len(found) > 2000


@pytest.mark.parametrize("behind", [b"garbage garbage", b"x", b"\0\0 garbage", GZIP[:1]])
def test_garbage_behind_a_gzip_file_is_counted_and_costs_no_line(tmp_path, behind):
    (tmp_path / "d.gz").write_bytes(GZIP + behind)
    assert read(tmp_path / "d.gz") == (LINES, "trailing_garbage")


@pytest.mark.parametrize("behind", [b"", b"\0", bytes(300_000)])
def test_padding_behind_a_gzip_file_is_none(tmp_path, behind):
    (tmp_path / "d.gz").write_bytes(GZIP + behind)
    assert read(tmp_path / "d.gz") == (LINES, None)


def test_gzip_members_may_be_many_and_padded(tmp_path):
    members = [gzip.compress(b"%d\n" % i) for i in range(500)]
    (tmp_path / "d.gz").write_bytes(b"\0".join(members))
    assert read(tmp_path / "d.gz") == ([b"%d" % i for i in range(500)], None)


def test_a_wrong_checksum_is_damage(tmp_path):
    wrong = bytearray(GZIP)
    wrong[-6] ^= 255
    (tmp_path / "d.gz").write_bytes(wrong)
    assert read(tmp_path / "d.gz")[1] == "truncated_file"


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])
def test_a_file_that_is_not_what_its_name_says_is_damage(tmp_path, suffix):
    (tmp_path / f"d{suffix}").write_bytes(b"plain text\n" * 9)
    assert read(tmp_path / f"d{suffix}") == ([], "truncated_file")


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, bytes])
def test_standard_input_may_be_compressed(monkeypatch, compress):
    pipe = io.BufferedReader(io.BytesIO(compress(CONTENT)))
    monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": pipe}))
    assert read(Path("-")) == (LINES, None)


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\xef\xbb\xbfa", b"\xef", b"ab"])
@pytest.mark.parametrize("compress", [gzip.compress, bytes])
@pytest.mark.parametrize("size", [1, 2, 1 << 20])
def test_only_a_byte_order_mark_is_left_out(tmp_path, monkeypatch, content, compress, size):
    monkeypatch.setattr(reading, "BLOCK_BYTES", size)
    path = tmp_path / ("d.gz" if compress is gzip.compress else "d")
    path.write_bytes(compress(content))
    assert blocks(path) == (content.removeprefix(b"\xef\xbb\xbf"), None)
