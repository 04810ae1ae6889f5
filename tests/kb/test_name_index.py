import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmofi.kb.hashing import Hasher, _mix_int
from openmofi.kb.index import NameIndex, build_index, hash_text


def slow_hash(seed: int, data: bytes) -> int:
    """The definition in hashing.py, byte by byte."""
    base = (_mix_int((seed + 1) * 0x9E3779B97F4A7C15 % 2**64) & ~7) | 5
    return _mix_int(sum(byte * pow(base, i, 2**64) for i, byte in enumerate(data)) % 2**64)


def index_of(names: dict[str, list[tuple[int, float]]], hasher: Hasher) -> NameIndex:
    rows = [(name, row, weight) for name, found in names.items() for row, weight in found]
    keys = pa.array([name for name, _, _ in rows], pa.string())
    return build_index(
        hasher.strings(keys),
        np.array([row for _, row, _ in rows], np.int64),
        np.array([weight for _, _, weight in rows], np.float32),
        first_hashes=hasher.strings(pa.array([name.split()[0] for name, _, _ in rows])),
        num_tokens=np.array([len(name.split()) for name, _, _ in rows]),
    )


@given(st.text(), st.integers(0, 7))
def test_hash_follows_its_definition(text, seed):
    assert int(hash_text(Hasher(seed), text)[0]) == slow_hash(seed, text.encode())


def test_hash_never_changes():
    assert f"{int(hash_text(Hasher(0), 'new york')[0]):x}" == "eaa24b4ef01df11a"


def test_substrings_hash_like_strings():
    hasher, buffer = Hasher(0), np.frombuffer(b"in new york city", np.uint8)
    inside = hasher.spans(buffer, np.array([3]), np.array([11]))
    assert inside[0] == hash_text(hasher, "new york")[0]


@given(st.sets(st.text("abc ", min_size=1).map(str.strip).filter(bool), min_size=1), st.data())
def test_every_name_is_found_and_no_other(names, data):
    hasher = Hasher(0)
    index = index_of({name: [(i, 1.0)] for i, name in enumerate(names)}, hasher)
    asked = data.draw(st.lists(st.sampled_from(sorted(names)) | st.text("abcd ", min_size=1)))
    keys = index.find(hasher.strings(pa.array(asked, pa.string())))
    found = [index.rows[index.offsets[key]] if key >= 0 else None for key in keys]
    assert found == [list(names).index(name) if name in names else None for name in asked]


def test_candidates_come_most_probable_first():
    index = index_of({"georgia": [(4, 1.0), (2, 9.0), (1, 1.0)]}, Hasher(0))
    assert index.rows.tolist() == [2, 1, 4]
    assert index.weights.tolist() == [9.0, 1.0, 1.0]


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 30])
def test_first_tokens_know_the_lengths_of_names(length):
    hasher = Hasher(0)
    index = index_of({" ".join(["buffalo"] * length): [(0, 1.0)]}, hasher)
    mask = int(index.lengths(hash_text(hasher, "buffalo"))[0])
    assert mask == 1 << (min(length, 16) - 1)


def test_index_survives_the_disk(tmp_path):
    hasher = Hasher(0)
    index = index_of({"a b": [(0, 1.0)], "c": [(1, 2.0)]}, hasher)
    index.save(tmp_path)
    opened = NameIndex.open(tmp_path)
    assert opened.find(hasher.strings(pa.array(["c", "a b", "x"]))).min() == -1
    assert opened.rows.tolist() == index.rows.tolist()
