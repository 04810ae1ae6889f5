from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle

import numpy as np
import pyarrow as pa
import pytest

from openmofi.errors import InputError
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.link import Linker, WordEncoder
from openmofi.link.fit import (
    GOLD,
    LinkExamples,
    LinkFit,
    _Likelihood,
    evidence_in,
    examples_of,
    fit_link_weights,
)
from openmofi.link.weights import TERMS, load_link_weights, save_link_weights

CATALOGUE = """id,name,description,type,weight
country,Turkey,country with a capital and a flag,place,9
bird,turkey,bird for a dinner,animal,3
nice,Nice,city on the coast,place,5
"""


@pytest.fixture(scope="module")
def kb(tmp_path_factory) -> KnowledgeBase:
    folder = tmp_path_factory.mktemp("fit")
    (folder / "c.csv").write_text(CATALOGUE)
    build_kb(folder / "c.csv", out=folder / "kb")
    return KnowledgeBase.open(folder / "kb")


KINDS = [("a nice flag over Turkey", "country"), ("nice dinner: turkey and wine", "bird")]


def gold_of(rows: Sequence[tuple[int, int, int, str | None, bool]], *shares: float) -> pa.Table:
    """Returns a table of `GOLD`, with probabilities in turn."""
    told = [(*row, share) for row, share in zip(rows, cycle(shares or (1.0,)), strict=False)]
    columns = zip(*told, strict=True)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, GOLD, strict=True)], schema=GOLD)


def examples(linker: Linker, count: int, *, complete: bool = True) -> LinkExamples:
    """Returns captions whose context tells what Turkey means, and "nice" that means nothing."""
    texts = [KINDS[i % 2][0] for i in range(count)]
    starts = [text.lower().index("turkey") for text in texts]
    gold = [(i, at, at + 6, KINDS[i % 2][1], False) for i, at in enumerate(starts)]
    return examples_of(linker, texts, gold_of(gold), complete=complete)


def fit(linker: Linker, *groups: LinkExamples, **changes) -> LinkFit:
    return fit_link_weights(groups, start=linker.weights, data="made up", **changes)


def test_fitting_makes_the_truth_more_probable(kb):
    linker = Linker(kb, encoder=WordEncoder(kb))
    found = fit(linker, examples(linker, 200))
    assert (found.mentions, found.nil, found.weights.fitted_on) == (400, 200, "made up")
    assert found.after > found.before
    fitted = Linker(kb, encoder=WordEncoder(kb), weights=found.weights)
    best = fitted.link([text for text, _ in KINDS]).to_pylist()
    scores = {row["id"]: row["score"] for row in best}
    assert scores["country"] > 0.5 < scores["bird"]
    assert "nice" not in scores  # NIL is more probable


def test_terms_that_were_not_computed_keep_their_weights(kb):
    found = fit(Linker(kb), examples(Linker(kb), 200)).weights
    shipped = load_link_weights()
    assert (found.context, found.detected) == (shipped.context, shipped.detected)
    assert found.prior != shipped.prior


def test_incomplete_texts_say_nothing_of_nil(kb):
    linker = Linker(kb)
    found = fit(linker, examples(linker, 200, complete=False))
    assert (found.mentions, found.nil) == (200, 0)
    assert found.weights.nil == linker.weights.nil
    both = fit(linker, examples(linker, 200, complete=False), examples(linker, 200))
    assert both.weights.nil == both.nil_of_group[1] != linker.weights.nil


def test_a_mention_without_a_right_candidate_is_nil_only_where_all_are_annotated(kb):
    gold = gold_of([(0, 0, 4, "paris", False)])
    complete = examples_of(Linker(kb), ["Nice"], gold, complete=True)
    assert (len(complete), complete.target.tolist()) == (1, [0.0])
    assert len(examples_of(Linker(kb), ["Nice"], gold, complete=False)) == 0


@pytest.mark.parametrize("optional", [False, True])
def test_names_that_touch_an_annotated_span_are_no_examples_of_nil(kb, optional):
    texts = ["Nice Turkey", "so Nice"]
    found = examples_of(Linker(kb), texts, gold_of([(0, 2, 8, None, optional)]), complete=True)
    assert found.candidates["row"].to_pylist() == [1]


def test_a_mention_that_probably_means_something_counts_in_its_share(kb):
    linker, texts = Linker(kb), [KINDS[0][0]] * 400
    start = texts[0].index("Turkey")
    place = start, start + 6
    apart = [(row, *place, "country" if row % 4 else "bird", False) for row in range(400)]
    both = [(row, *place, id_, False) for row in range(400) for id_ in ("country", "bird")]
    tables = gold_of(apart), gold_of(both, 0.75, 0.25)
    groups = [examples_of(linker, texts, gold, complete=False) for gold in tables]
    assert [len(group) for group in groups] == [400, 400]
    own, shared = (fit(linker, group, terms=("prior", "case")) for group in groups)
    assert shared.after == pytest.approx(own.after, abs=1e-9)
    assert shared.weights.prior == pytest.approx(own.weights.prior, abs=1e-3)


def test_groups_count_the_same_whatever_their_size(kb):
    linker = Linker(kb, encoder=WordEncoder(kb))
    small, large, others = (examples(linker, n) for n in (100, 1000, 200))
    others = LinkExamples(others.candidates, 1 - others.target, others.types, complete=True)
    terms = ("prior", "context")
    few, many = fit(linker, small, others, terms=terms), fit(linker, large, others, terms=terms)
    for name in (*terms, "nil"):
        assert getattr(few.weights, name) == pytest.approx(getattr(many.weights, name), abs=0.01)


def test_a_group_may_lack_terms_of_another(kb):
    plain, full = Linker(kb), Linker(kb, encoder=WordEncoder(kb))
    found = fit(plain, examples(plain, 200), examples(full, 200))
    assert found.weights.context != plain.weights.context
    assert found.mentions == 800


def test_other_terms_can_be_held(kb):
    linker = Linker(kb, encoder=WordEncoder(kb))
    found = fit(linker, examples(linker, 200), terms=("context",)).weights
    assert replace(found, context=0, nil=0, fitted_on="") == replace(
        linker.weights, context=0, nil=0, fitted_on=""
    )
    assert found.context != linker.weights.context


def test_types_get_odds_from_the_data(kb):
    found = fit(Linker(kb), examples(Linker(kb), 200)).weights
    assert set(found.types) == {"place", "animal"}
    assert found.types["animal"] > found.types["place"]


def test_the_gradient_leads_to_a_maximum(kb):
    linker = Linker(kb, encoder=WordEncoder(kb))
    best = fit(linker, examples(linker, 200))
    again = Linker(kb, encoder=WordEncoder(kb), weights=best.weights)
    refitted = fit(again, examples(again, 200))
    assert refitted.after >= best.after - 1e-6
    values = [[getattr(one.weights, name) for name in TERMS] for one in (best, refitted)]
    assert np.all(np.array(values) >= 0)


def test_the_gradient_is_the_slope(kb):
    linker = Linker(kb, encoder=WordEncoder(kb))
    groups = [examples(linker, 60), examples(linker, 40, complete=False)]
    evidence = [evidence_in(group, {}) for group in groups]
    likelihood = _Likelihood(groups, evidence, ["prior", "context", "case"], {"coherence": 2.0})
    at, step = np.array([0.7, 3.0, 0.4, -1.0, -2.0]), 1e-5
    slope = likelihood(at)[1]
    for i, nudge in enumerate(np.eye(5) * step):
        rise = likelihood(at + nudge)[0] - likelihood(at - nudge)[0]
        assert slope[i] == pytest.approx(rise / (2 * step), abs=1e-6)


def test_too_few_examples_are_refused(kb):
    linker = Linker(kb)
    with pytest.raises(InputError, match=r"20 mentions .* fitting needs 100"):
        fit(linker, examples(linker, 20, complete=False))


def test_weights_survive_the_disk(tmp_path):
    weights = load_link_weights()
    save_link_weights(weights, tmp_path / "w.json")
    assert load_link_weights(tmp_path / "w.json") == weights


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"prior": "x"}', "{"])
def test_files_that_hold_no_weights_are_refused(tmp_path, content):
    (tmp_path / "w.json").write_text(content)
    with pytest.raises(InputError, match="does not hold the linker's weights"):
        load_link_weights(tmp_path / "w.json")
