import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmofi.config import KBSettings
from openmofi.files.lines import Blocks
from openmofi.kb.read import chunks as cutting
from openmofi.kb.read.chunks import read_chunks
from openmofi.kb.read.decode import LineDecoder
from openmofi.kb.read.parts import make_part
from openmofi.kb.read.records import EntityRecord
from records import read_dump
from wikidata import item, write_dump


def cut(path: Path, **start: int) -> list[cutting.Chunk]:
    with Blocks(path) as blocks:
        return list(read_chunks(blocks, **start))


@pytest.fixture
def small(monkeypatch):
    """Chunks of some lines, read in small blocks."""
    monkeypatch.setattr(cutting, "CHUNK_BYTES", 100)
    monkeypatch.setattr("openmofi.files.lines.BLOCK_BYTES", 37)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["d.json", "d.json.gz"])
def test_chunks_are_whole_lines_and_lose_nothing(tmp_path, name):
    path = write_dump(tmp_path / name, *(item(i, "x" * (i % 50)) for i in range(1, 60)))
    whole = gzip.decompress(path.read_bytes()) if name.endswith("gz") else path.read_bytes()
    found = cut(path)
    assert b"".join(chunk.data for chunk in found) == whole
    assert all(chunk.data.endswith(b"\n") for chunk in found)
    assert [chunk.first_line for chunk in found[1:]] == [chunk.next_line for chunk in found[:-1]]
    assert [chunk.end for chunk in found][-1] == len(whole)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["d.json", "d.json.gz"])
def test_reading_goes_on_where_a_chunk_ended(tmp_path, name):
    found = cut(write_dump(tmp_path / name, *map(item, range(1, 60))))
    for i in (0, 3, len(found) - 1):
        rest = cut(tmp_path / name, start=found[i].end, first_line=found[i].next_line)
        assert b"".join(c.data for c in rest) == b"".join(c.data for c in found[i + 1 :])
        assert [c.first_line for c in rest][:1] == [c.first_line for c in found[i + 1 :]][:1]


@pytest.mark.usefixtures("small")
def test_lines_longer_than_a_chunk_stay_whole(tmp_path):
    things = [item(1, "a" * 5000), item(2)]
    records = list(read_dump(write_dump(tmp_path / "d.json", *things), KBSettings()))
    assert [record.label[:7] for record in records] == ["aaaaaaa", "thing 2"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["d.json", "d.json.gz"])
def test_reading_goes_on_behind_a_byte_order_mark(tmp_path, name):
    compress = gzip.compress if name.endswith("gz") else bytes
    (tmp_path / name).write_bytes(compress(b"\xef\xbb\xbf" + b"0123456789abcde\n" * 30))
    found = cut(tmp_path / name)
    rest = cut(tmp_path / name, start=found[1].end, first_line=found[1].next_line)
    assert b"".join(c.data for c in rest) == b"".join(c.data for c in found[2:])
    assert found[0].data[:4] == b"0123"


def test_several_gzip_members_are_one_file(tmp_path):
    one, other = (json.dumps(item(i)).encode() + b"\n" for i in (1, 2))
    (tmp_path / "d.json.gz").write_bytes(gzip.compress(one) + gzip.compress(other))
    records = list(read_dump(tmp_path / "d.json.gz", KBSettings()))
    assert [record.id for record in records] == ["Q1", "Q2"]


GOOD = json.dumps(item(7)).encode()
PIECES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([GOOD, GOOD[:40], b"[", b"{}", b"null", b"[" * 5000, b'{"id": ' * 5000]),
    st.sampled_from([GOOD.replace(b"thing", b"\\ud800"), GOOD.replace(b"Q7", b"\\ud800")]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(list(item(1))), inner),
    ).map(lambda value: json.dumps(value).encode()),
    st.text(max_size=20).map(lambda text: json.dumps(item(3, text)).encode()),
)


def is_content(line: bytes) -> bool:
    return bool(line.strip(b", \t\r").lstrip(b"[").strip().rstrip(b"], \t"))


@given(st.lists(PIECES, max_size=12), st.sampled_from(["image", "full"]))
def test_every_line_is_an_entity_or_a_counted_refusal(pieces, preset):
    data = b",\n".join(pieces)
    decoder = LineDecoder(KBSettings(preset=preset))
    records = list(decoder.lines(data, 1))
    part = make_part(iter(records))
    assert part.num_entities + sum(part.refused.values()) == len(records)
    lines = [line for line in data.split(b"\n") if is_content(line)]
    assert len(records) == len(lines)


@pytest.mark.slow
@given(st.lists(PIECES, max_size=6), st.integers(0, 400))
def test_a_file_cut_anywhere_is_read_up_to_there(tmp_path_factory, pieces, kept):
    path = tmp_path_factory.mktemp("cut") / "d.json.gz"
    path.write_bytes(gzip.compress(GOOD + b",\n" + b"\n".join(pieces))[:kept])
    records = list(read_dump(path, KBSettings()))
    reasons = Counter(getattr(record, "reason", "entity") for record in records)
    assert reasons["truncated_file"] <= 1
    assert all(isinstance(r, EntityRecord) or r.reason for r in records)
