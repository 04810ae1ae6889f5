"""Zero-shot classification: class texts, normalised, averaged, normalised (CLIP's protocol)."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.resources import files

import numpy as np

from openmofi.errors import InputError
from openmofi.evaluate.metrics import accuracies, true_ranks
from openmofi.model import MofiModel
from openmofi.progress import track

TEMPLATES = ("{name}: {description}", "a photo of {name}, {description}")
"""A name alone can be ambiguous: India is a country and a signal flag."""
PLAIN_TEMPLATES = ("a photo of a {c}.", "a photo of the {c}.", "a photo of {c}.")
"""For names without descriptions: OpenAI's two for SUN397 and STL-10, and one for proper names."""

_SCORES_AT_ONCE = 1 << 25
EncodeTexts = Callable[[Sequence[str]], np.ndarray]


def class_vectors(
    model: MofiModel,
    names: Sequence[str],
    descriptions: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
) -> np.ndarray:
    """Returns one unit vector per class, [classes, dim].

    Args:
        model: encodes the texts.
        names: names of the classes.
        descriptions: descriptions of the classes, "" for a class without one; classes with a
            description use TEMPLATES.
        templates: texts with {c} for classes without a description; by default PLAIN_TEMPLATES if
            no class has a description, else the bare name.

    Raises:
        InputError: a template lacks {c}.
    """
    if descriptions is None:
        return template_vectors(model.encode_texts, names, templates or PLAIN_TEMPLATES)
    sums = np.zeros((len(names), model.dim), dtype=np.float32)
    for template in TEMPLATES:
        texts = [
            template.format(name=name, description=text) if text else name
            for name, text in zip(names, descriptions, strict=True)
        ]
        sums += model.encode_texts(texts)
    vectors = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    bare = [row for row, text in enumerate(descriptions) if not text]
    if templates and bare:
        vectors[bare] = template_vectors(model.encode_texts, [names[r] for r in bare], templates)
    return vectors


def template_vectors(
    encode_texts: EncodeTexts, names: Sequence[str], templates: Sequence[str]
) -> np.ndarray:
    """Returns one unit vector per name, [names, dim]: the mean of its templates' unit vectors.

    Raises:
        InputError: there are no templates, or one lacks {c}.
    """
    wrong = [template for template in templates if "{c}" not in template]
    if wrong or not templates:
        found = repr(wrong[0]) if wrong else "none"
        raise InputError(
            f"Templates need {{c}} where the class name goes, as in {PLAIN_TEMPLATES[0]!r}; "
            f"found {found}."
        )
    sums = 0.0
    for template in track(templates, "class texts", total=len(templates), unit="templates"):
        # Not format(): a name or template may contain other braces.
        vectors = encode_texts([template.replace("{c}", name) for name in names])
        sums = sums + vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return sums / np.linalg.norm(sums, axis=1, keepdims=True)


def benchmark_texts(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns (class names in label order, templates with {c}) of a benchmark of CLIP_benchmark.

    The names are empty if CLIP_benchmark takes them from the data itself.

    Raises:
        InputError: the name is unknown.
    """
    known = benchmarks()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or sorted(known)
        raise InputError(f"There are no class texts for {name!r}; did you mean {', '.join(near)}?")
    texts = known[name]
    return tuple(texts["classes"]), tuple(texts["templates"])


@cache
def benchmarks() -> dict[str, dict[str, list[str]]]:
    """Returns CLIP_benchmark's English "classes" and "templates" by the name of the dataset."""
    return json.loads((files("openmofi.evaluate") / "class_names.json").read_text("utf-8"))


def zero_shot(
    vectors: np.ndarray, labels: np.ndarray, classes: np.ndarray
) -> Iterator[tuple[str, float]]:
    """Yields top-1, top-5 and mean per-class accuracy; `labels` are rows of `classes`."""
    yield from accuracies("zero_shot", true_ranks(vectors, labels, classes), labels, len(classes))
