"""Class texts and the accuracies of the nearest one, against references by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmofi.errors import InputError
from openmofi.evaluate import metrics
from openmofi.evaluate.zeroshot import (
    PLAIN_TEMPLATES,
    TEMPLATES,
    benchmark_texts,
    benchmarks,
    class_vectors,
    template_vectors,
    zero_shot,
)


class _Model:
    """Encodes a text by its letters."""

    dim = 8

    def encode_texts(self, texts):
        seeds = [sum(ord(c) * (i + 1) for i, c in enumerate(text)) for text in texts]
        found = [np.random.default_rng(seed).standard_normal(self.dim) for seed in seeds]
        vectors = np.array(found, dtype=np.float32).reshape(-1, self.dim)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _mean_of(prompts):
    vector = np.mean([_Model().encode_texts([prompt])[0] for prompt in prompts], axis=0)
    return vector / np.linalg.norm(vector)


def test_described_classes_are_asked_for_by_name_and_description():
    got = class_vectors(_Model(), ["Lime", "Plum"], ["a citrus", ""])
    prompts = [template.format(name="Lime", description="a citrus") for template in TEMPLATES]
    np.testing.assert_allclose(got, [_mean_of(prompts), _mean_of(["Plum"])], atol=1e-6)


def test_templates_stand_in_for_absent_descriptions_only():
    got = class_vectors(_Model(), ["Lime", "Plum"], ["a citrus", ""], ["one {c}"])
    plain = class_vectors(_Model(), ["Lime", "Plum"], ["a citrus", ""])
    np.testing.assert_array_equal(got[0], plain[0])
    np.testing.assert_allclose(got[1], _mean_of(["one Plum"]), atol=1e-6)


def test_without_descriptions_the_plain_templates_ask():
    got = class_vectors(_Model(), ["Plum"])
    prompts = [template.replace("{c}", "Plum") for template in PLAIN_TEMPLATES]
    np.testing.assert_allclose(got[0], _mean_of(prompts), atol=1e-6)


def test_braces_in_names_and_templates_are_letters():
    got = template_vectors(_Model().encode_texts, ["{x}", "{c}"], ["{} {c}"])
    np.testing.assert_allclose(got[0], _mean_of(["{} {x}"]), atol=1e-6)
    assert np.isfinite(got).all()


def test_long_prompts_weigh_no_more_than_short_ones():
    def encode(texts):  # vectors of any length are made unit vectors first
        return np.array([[9.0, 0.0] if "long" in text else [0.0, 1.0] for text in texts])

    got = template_vectors(encode, ["x"], ["long {c}", "{c}"])
    np.testing.assert_allclose(got, [[0.5**0.5, 0.5**0.5]])


@pytest.mark.parametrize("templates", [[], ["a photo"], ["{c}", "{name}"]])
def test_templates_without_a_place_for_the_class_are_refused(templates):
    with pytest.raises(InputError, match=r"Templates need \{c\}"):
        template_vectors(_Model().encode_texts, ["x"], templates)


def _slow(vectors, labels, classes, k):
    hits = []
    for vector, label in zip(vectors, labels, strict=True):
        order = sorted(range(len(classes)), key=lambda c: (-float(vector @ classes[c]), c))
        hits.append(label in order[:k])
    return np.array(hits)


@given(st.integers(0, 10_000), st.integers(5, 9), st.booleans())
def test_accuracies_equal_the_slow_reference_with_ties_in_class_order(seed, count, tied):
    rng = np.random.default_rng(seed)
    values = rng.integers(-1, 2, (40 + count, 3)) if tied else rng.standard_normal((40 + count, 3))
    vectors, classes = np.split(values.astype(np.float32), [40])
    labels = rng.integers(count, size=40)
    scores = dict(zero_shot(vectors, labels, classes))
    first = _slow(vectors, labels, classes, 1)
    assert scores["zero_shot"] == first.mean()
    assert scores["zero_shot_top5"] == _slow(vectors, labels, classes, 5).mean()
    recalls = [first[labels == c].mean() for c in set(labels.tolist())]
    assert scores["zero_shot_per_class"] == pytest.approx(np.mean(recalls))


def test_top_1_comes_first_and_is_that_of_argmax(rng):
    vectors, classes = (rng.standard_normal((n, 4)).astype(np.float32) for n in (50, 6))
    labels = rng.integers(6, size=50)
    name, value = next(zero_shot(vectors, labels, classes))
    assert (name, value) == ("zero_shot", float(((vectors @ classes.T).argmax(1) == labels).mean()))


def test_blocks_change_no_rank(rng, monkeypatch):
    vectors, classes = (rng.standard_normal((n, 4)).astype(np.float32) for n in (50, 6))
    labels = rng.integers(6, size=50)
    whole = dict(zero_shot(vectors, labels, classes))
    monkeypatch.setattr(metrics, "_SCORES", 13)
    assert dict(zero_shot(vectors, labels, classes)) == whole


def test_fewer_than_five_classes_have_no_top_5():
    eye = np.eye(4, dtype=np.float32)
    assert dict(zero_shot(eye, np.arange(4), eye)) == {"zero_shot": 1.0, "zero_shot_per_class": 1.0}


def test_vectors_that_are_not_finite_are_refused():
    eye = np.eye(4, dtype=np.float32)
    with pytest.raises(InputError, match="1 of 4 embeddings"):
        dict(zero_shot(np.where(eye == 1, [1, 1, 1, np.nan], 0), np.arange(4), eye))


def test_benchmarks_bring_names_and_templates():
    names, templates = benchmark_texts("imagenet1k")
    assert (len(names), len(templates), names[0]) == (1000, 80, "tench")
    assert all("{c}" in t for known in benchmarks().values() for t in known["templates"])
    assert all(len(known["templates"]) for known in benchmarks().values())


def test_an_unknown_benchmark_names_its_neighbours():
    with pytest.raises(InputError, match="mean cifar10"):
        benchmark_texts("cifar-10")
