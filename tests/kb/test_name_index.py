from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmofi.arrays.hashing import Hasher
from openmofi.arrays.splitmix64 import finalise_int
from openmofi.kb.index import NameIndex, hash_text, lengths_after
from openmofi.kb.index_builder import HashCollision, IndexBuilder
from openmofi.kb.spelling import CAPITALS, CASE, LARGE, SMALL, spellings
from openmofi.schema import NAMES


def slow_hash(seed: int, data: bytes) -> int:
    """The definition in hashing.py, byte by byte."""
    base = (finalise_int((seed + 1) * 0x9E3779B97F4A7C15 % 2**64) & ~7) | 5
    return finalise_int(sum(byte * pow(base, i, 2**64) for i, byte in enumerate(data)) % 2**64)


def index_of(names: dict[str, list[tuple[int, float]]], folder: Path, size: int = 3) -> NameIndex:
    """Builds an index from batches of `size` rows, as a builder gets them."""
    rows = [
        {"key": name, "spelling": LARGE, "entity": row, "weight": weight}
        for name, found in sorted(names.items(), key=lambda item: item[0].encode())
        for row, weight in found
    ]
    columns = [field for field in NAMES if field.name in ("key", "spelling", "entity", "weight")]
    builder = IndexBuilder(folder, Hasher(0), num_names=len(names))
    for at in range(0, len(rows), size):
        builder.add(pa.Table.from_pylist(rows[at : at + size], pa.schema(columns)))
    builder.finish()
    return NameIndex.open(folder)


@given(st.text(), st.integers(0, 7))
def test_hash_follows_its_definition(text, seed):
    assert int(hash_text(Hasher(seed), text)[0]) == slow_hash(seed, text.encode())


def test_hash_never_changes():
    assert f"{int(hash_text(Hasher(0), 'new york')[0]):x}" == "eaa24b4ef01df11a"


def test_substrings_hash_like_strings():
    hasher, buffer = Hasher(0), np.frombuffer(b"in new york city", np.uint8)
    inside = hasher.spans(buffer, np.array([3]), np.array([11]))
    assert inside[0] == hash_text(hasher, "new york")[0]


@pytest.mark.slow
@given(st.sets(st.text("abc ", min_size=1).map(str.strip).filter(bool), min_size=1), st.data())
def test_every_name_is_found_and_no_other(tmp_path_factory, names, data):
    index = index_of({name: [(i, 1.0)] for i, name in enumerate(names)}, folder(tmp_path_factory))
    asked = data.draw(st.lists(st.sampled_from(sorted(names)) | st.text("abcd ", min_size=1)))
    found = index.candidates(index.find(Hasher(0).strings(pa.array(asked, pa.string()))))
    expected = [(i, list(names).index(name)) for i, name in enumerate(asked) if name in names]
    assert list(zip(found.item.tolist(), found.entity.tolist(), strict=True)) == expected


def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("index") / "index"


@pytest.mark.parametrize("size", [1, 2, 100])
def test_names_may_go_on_in_the_next_batch(tmp_path, size):
    names = {"a b": [(3, 4.0), (1, 4.0)], "b": [(7, 1.0)], "c": [(i, 40.0 - i) for i in range(40)]}
    index = index_of(names, tmp_path / "index", size)
    found = index.candidates(index.find(Hasher(0).strings(pa.array(["c", "b", "a b"]))))
    assert found.entity.tolist() == [*range(30), 7, 3, 1]
    assert found.rank.tolist() == [*range(30), 0, 0, 1]
    assert np.bincount(found.item, found.prior) == pytest.approx([1, 1, 1])


def test_fewer_candidates_share_the_probability(tmp_path):
    index = index_of({"georgia": [(4, 3.0), (2, 1.0), (1, 1.0)]}, tmp_path / "index")
    found = index.candidates(np.array([0, -1, 0]), 2)
    assert found.item.tolist() == [0, 0, 2, 2]
    assert found.prior.tolist() == pytest.approx([0.75, 0.25] * 2)


def test_names_without_capitals_are_marked(tmp_path):
    names = [("turkey", "Turkey", 0), ("turkey", "turkey", 1), ("中", "中", 2), ("us", "US", 3)]
    table = {
        "key": [key for key, _, _ in names],
        "spelling": spellings(pa.array([raw for _, raw, _ in names])),
        "entity": pa.array([row for _, _, row in names], pa.int32()),
        "weight": pa.array([1.0] * 4, pa.float32()),
    }
    builder = IndexBuilder(tmp_path / "index", Hasher(0), num_names=3)
    builder.add(pa.table(table))
    builder.finish()
    index = NameIndex.open(tmp_path / "index")
    found = index.candidates(index.find(Hasher(0).strings(pa.array(["turkey", "中", "us"]))))
    assert found.is_lower.tolist() == [False, True, False, False]
    assert found.is_upper.tolist() == [False, False, False, True]
    assert found.entity.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("name", "spelling"),
    [
        *[("turkey", SMALL), ("école", SMALL), ("москва", SMALL)],
        *[("Turkey", LARGE), ("iPhone", LARGE), ("A", LARGE), ("U2", LARGE), ("東京", LARGE)],
        *[("US", CAPITALS), ("U.S.", CAPITALS), ("ČSSR", CAPITALS), ("США", CAPITALS)],
    ],
)
def test_names_are_small_large_or_in_capitals(name, spelling):
    assert (spellings(pa.array(["x", name])) & CASE).tolist() == [SMALL, spelling]


def test_some_candidates_are_ranked_anew(tmp_path):
    index = index_of({"a": [(0, 0.5), (1, 0.3), (2, 0.2)], "b": [(3, 1.0)]}, tmp_path / "index")
    both = index.candidates(index.find(Hasher(0).strings(pa.array(["a", "b"]))))
    some = both.only(np.array([False, True, True, False]))
    assert (some.item.tolist(), some.rank.tolist()) == ([0, 0], [0, 1])
    assert some.prior.tolist() == pytest.approx([0.6, 0.4])
    assert len(both.only(np.zeros(4, bool))) == 0


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 30])
def test_first_tokens_know_the_lengths_of_names(tmp_path, length):
    index = index_of({" ".join(["buffalo"] * length): [(0, 1.0)]}, tmp_path / "index")
    mask = int(lengths_after(hash_text(Hasher(0), "buffalo")[0], index.arrays))
    assert mask == 1 << (min(length, 16) - 1)


def test_equal_hashes_are_noticed(tmp_path):
    class Same(Hasher):
        def strings(self, strings):
            return np.zeros(len(strings), np.uint64)

    builder = IndexBuilder(tmp_path / "index", Same(0), num_names=2)
    row = {"spelling": [LARGE, LARGE], "entity": pa.array([0, 1], pa.int32()), "weight": [1.0, 1.0]}
    builder.add(pa.table({"key": ["a", "b"], **row}))
    with pytest.raises(HashCollision):
        builder.finish()


def test_no_names_are_no_error(tmp_path):
    index = index_of({}, tmp_path / "index")
    assert index.find(np.array([5], np.uint64)).tolist() == [-1]
