import numpy as np
import pytest

import fruit
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.label.entity_vectors import EntityVectors


class CountingEncoder:
    """Unit vectors that follow from the text's length; remembers what it was asked."""

    dim = 8

    def __init__(self):
        self.asked = []

    def encode_texts_alone(self, texts):
        self.asked += texts
        vectors = np.array([[len(text), *range(1, 8)] for text in texts], np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def kb(tmp_path):
    build_kb(fruit.write_catalogue(tmp_path), out=tmp_path / "kb")
    return KnowledgeBase.open(tmp_path / "kb")


def test_a_text_is_encoded_once_for_all_processes(kb, tmp_path):
    first, second = CountingEncoder(), CountingEncoder()
    vectors = EntityVectors(kb, first, tmp_path / "v.f16").of(np.array([0, 2]))
    again = EntityVectors(kb, second, tmp_path / "v.f16").of(np.array([0, 1, 2]))
    assert len(first.asked) == 2
    assert second.asked == kb.entity_text(np.array([1]))
    assert np.array_equal(vectors, again[[0, 2]])
    np.testing.assert_allclose(
        vectors, CountingEncoder().encode_texts_alone(first.asked), atol=1e-3
    )


def test_a_torn_row_is_computed_again(kb, tmp_path):
    path = tmp_path / "v.f16"
    whole = EntityVectors(kb, CountingEncoder(), path).of(np.arange(4))
    with path.open("r+b") as file:
        file.seek(16 + 4)  # the middle of row 1
        file.write(bytes(8))
    encoder = CountingEncoder()
    assert np.array_equal(EntityVectors(kb, encoder, path).of(np.arange(4)), whole)
    assert encoder.asked == kb.entity_text(np.array([1]))


def test_the_file_is_as_large_as_the_knowledge_base_and_mostly_a_hole(kb, tmp_path):
    path = tmp_path / "v.f16"
    EntityVectors(kb, CountingEncoder(), path)
    assert path.stat().st_size == len(kb) * 8 * 2
    assert path.stat().st_blocks == 0
