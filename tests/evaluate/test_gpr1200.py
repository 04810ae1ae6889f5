"""GPR1200 against the definition: sort every row, mean of hits / rank."""

import numpy as np
import pytest

from openmofi.errors import InputError
from openmofi.evaluate import gpr1200


def _clustered(rng, spread, dim=24):
    """Classes around centres, with rows of different lengths."""
    centres = np.repeat(rng.standard_normal((1200, dim)), 10, axis=0)
    rows = centres + spread * rng.standard_normal(centres.shape)
    return (rows * rng.uniform(0.1, 9, (12_000, 1))).astype(np.float32)


def _slow_precisions(embeddings):
    """Average precision of each query, from its whole ranking."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    classes = np.arange(12_000) // 10
    for query in range(12_000):
        ranking = np.argsort(-(unit @ unit[query]))
        (ranks,) = np.nonzero(classes[ranking] == classes[query])
        yield np.mean(np.arange(1, 11) / (ranks + 1))


@pytest.mark.slow
@pytest.mark.parametrize("spread", [1.0, 50.0])
def test_map_equals_the_definition_to_four_decimals(rng, spread):
    embeddings = _clustered(rng, spread)
    slow = np.array(list(_slow_precisions(embeddings.astype(np.float64))))
    scores = gpr1200.mean_average_precision(embeddings)
    assert scores["all"] == pytest.approx(slow.mean(), abs=5e-6)
    for number, domain in enumerate(gpr1200.DOMAINS):
        part = slow[2000 * number : 2000 * number + 2000]
        assert scores[domain] == pytest.approx(part.mean(), abs=5e-6), domain


def test_it_is_perfect_for_perfect_classes(rng):
    scores = gpr1200.mean_average_precision(_clustered(rng, 0, dim=64))
    assert scores["all"] == pytest.approx(1.0)
    assert list(scores) == ["all", "landmarks", "inat", "sketch", "instre", "products", "faces"]


def test_the_query_is_one_of_its_positives(rng):
    """Where nothing is like anything, each image still finds itself: a tenth of all."""
    scores = gpr1200.mean_average_precision(_clustered(rng, 1e6))
    assert 0.1 < scores["all"] < 0.11


@pytest.mark.slow
@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_other_precisions_score_the_same(rng, kind):
    embeddings = _clustered(rng, 0.8).astype(np.float16)
    expected = gpr1200.mean_average_precision(embeddings.astype(np.float32))
    assert gpr1200.mean_average_precision(embeddings.astype(kind)) == pytest.approx(expected)


@pytest.mark.slow
def test_scores_do_not_depend_on_the_rows_lengths(rng):
    embeddings = _clustered(rng, 0.8)
    expected = gpr1200.mean_average_precision(embeddings)
    scale = 10.0 ** rng.integers(-30, 30, (12_000, 1))
    assert gpr1200.mean_average_precision(embeddings * scale) == pytest.approx(expected, abs=1e-6)


def _with_row(value):
    embeddings = np.ones((12_000, 3), dtype=np.float32)
    embeddings[7] = value
    return embeddings


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (np.ones((11_999, 4), np.float32), "GPR1200 has 12,000 images; got 11,999 embeddings"),
        (_with_row(np.nan), "1 of 12000 embeddings hold NaN or infinity"),
        (_with_row(-np.inf), "1 of 12000 embeddings hold NaN or infinity"),
        (_with_row(0), "1 of 12000 embeddings are all zeros, the first in row 7"),
        ([[1.0, 2.0]] * 11_999 + [[1.0]], "all rows equally long"),
        ([["a", "b"]] * 12_000, "are not rows of numbers"),
        (np.ones(12_000, np.float32), r"shape \(12000,\)"),
        (np.ones((12_000, 0), np.float32), r"shape \(12000, 0\)"),
    ],
)
def test_embeddings_that_would_score_silently_wrong_are_refused(embeddings, message):
    with pytest.raises(InputError, match=message):
        gpr1200.mean_average_precision(embeddings)


def test_the_benchmark_yields_its_name(rng):
    names = [name for name, _ in gpr1200.gpr1200(_clustered(rng, 1, dim=4))]
    assert names[:2] == ["gpr1200_all", "gpr1200_landmarks"]


def _names():
    return [f"images/{i // 10}_{i % 10}_x.jpg" for i in range(12_000)]


def test_names_are_ordered_by_their_number_and_not_by_their_letters(rng):
    names = np.array(_names())
    shuffled = rng.permutation(names)
    assert shuffled[gpr1200.class_order(list(shuffled))].tolist() == names.tolist()


@pytest.mark.parametrize(
    ("row", "name", "message"),
    [
        (25, "3_x.jpg", "Class 2 of GPR1200 has 9 images, expected 10 named 2_"),
        (25, "1200_x.jpg", "'1200_x.jpg' is not an image of GPR1200"),
        (25, "readme.md", "'readme.md' is not an image"),
        (25, "2.jpg", "'2.jpg' is not an image"),
        (25, "-2_x.jpg", "'-2_x.jpg' is not an image"),
        (25, "²_x.jpg", "is not an image"),
    ],
)
def test_names_that_are_not_the_benchmark_are_refused(row, name, message):
    names = _names()
    names[row] = name
    with pytest.raises(InputError, match=message):
        gpr1200.class_order(names)


def test_a_missing_image_is_counted():
    with pytest.raises(InputError, match="has 12,000 images; found 11,999"):
        gpr1200.class_order(_names()[1:])
