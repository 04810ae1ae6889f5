import json
import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from openmofi.config import LinkSettings
from openmofi.errors import InputError, MismatchError
from openmofi.kb import KnowledgeBase
from openmofi.link import Linker, WordEncoder
from openmofi.link.crawl_priors import CrawlPriors, below_highest, normalised, read_crawl_priors
from openmofi.link.learn_priors import (
    FLOOR,
    MU,
    CaptionSample,
    NamePriors,
    learn_priors,
    posterior_of,
    reestimate,
    senses_of,
)
from openmofi.link.weights import load_link_weights
from shop import SHARED, captions_of_shop, make_shop_kb


@pytest.fixture(scope="module")
def kb(tmp_path_factory) -> KnowledgeBase:
    return make_shop_kb(tmp_path_factory.mktemp("shop"))


def sampled(kb: KnowledgeBase, *batches: list[str], size: int = 1 << 18) -> pa.LargeStringArray:
    sample = CaptionSample(kb, size)
    for batch in batches:
        sample.add(batch)
    return sample.captions


def learn(kb: KnowledgeBase, captions: list[tuple[str, str]]) -> CrawlPriors:
    return learn_priors(Linker(kb), sampled(kb, [text for text, _ in captions]))


@pytest.fixture(scope="module")
def learnt(kb) -> CrawlPriors:
    return learn(kb, captions_of_shop(0))


def right(linker: Linker, captions: list[tuple[str, str]]) -> float:
    found = linker.link([text for text, _ in captions])
    best = dict(zip(found["row"].to_pylist(), found["id"].to_pylist(), strict=True))
    return sum(best.get(row) == id_ for row, (_, id_) in enumerate(captions)) / len(captions)


# ---- what is learnt -----------------------------------------------------------------------------


def test_a_crawl_teaches_what_its_names_mean(kb, learnt):
    unseen = [pair for pair in captions_of_shop(1) if pair[1][2:] in SHARED]
    assert right(Linker(kb), unseen) < 0.6
    assert right(Linker(kb, priors=learnt), unseen) > 0.97


def test_names_that_the_crawl_never_wrote_gain_by_their_company(kb):
    captions = captions_of_shop(0)
    seen = [pair for pair in captions if pair[1][2:] not in ("Ibex", "Otter")]
    unseen = [pair for pair in captions if pair not in seen]
    assert right(Linker(kb, priors=learn(kb, seen)), unseen) > 0.97


def test_brands_and_animals_are_two_groups(kb, learnt):
    rows = kb.rows_of(["b-Puma", "b-Barto", "a-Puma", "a-moppa"])
    groups = learnt.groups[rows].tolist()
    assert groups[0] == groups[1] != groups[2] == groups[3]
    assert {group["types"][0] for group in learnt.about["groups"]} == {"shop", "animal"}


def test_a_rare_sense_wins_with_strong_evidence(kb):
    titles = [pair for pair in captions_of_shop(0, 1500) if pair[1][0] == "b"]
    rare = [("12 photos of a puma in the zoo", "a-Puma")]
    others = [pair for pair in captions_of_shop(0, 1500, shared=0) if pair[1][0] == "a"]
    priors = learn(kb, [*titles, *others, *rare])
    table = Linker(kb, priors=priors).link(["a Puma"], all_candidates=True)
    prior = dict(zip(table["id"].to_pylist(), table["prior"].to_pylist(), strict=True))
    assert prior["a-Puma"] < 0.1
    assert right(Linker(kb, priors=priors), rare) == 1


def test_what_moved_is_listed_with_both_meanings(learnt):
    titles = sum(id_[0] == "b" for _, id_ in captions_of_shop(0))
    assert titles > 400
    for name in learnt.about["moved"]:
        assert name["before"]["id"] == f"a-{name['name'].capitalize()}"
        assert name["after"]["id"] == f"b-{name['name'].capitalize()}"


def test_nothing_is_learnt_from_a_few_hundred_mentions(kb):
    priors = learn(kb, captions_of_shop(0, 250))
    assert "there are 250 mentions of names, and learning needs 600" in priors.off
    texts = [text for text, _ in captions_of_shop(1)]
    assert Linker(kb, priors=priors).link(texts, True).equals(Linker(kb).link(texts, True))


def test_nothing_is_learnt_if_hardly_any_name_has_one_kind_of_meaning(kb):
    priors = learn(kb, captions_of_shop(0, 1000, shared=0.8))
    assert "learning needs 300 of each" in priors.off


def test_one_group_of_types_teaches_nothing(kb):
    titles = [pair for pair in captions_of_shop(0, 2000, shared=0) if pair[1][0] == "b"]
    assert "one group of types" in learn(kb, titles).off


def test_no_captions_teach_nothing(kb):
    assert "no captions" in learn(kb, []).off


# ---- order, sampling ----------------------------------------------------------------------------


def test_neither_order_nor_shards_nor_repeated_captions_matter(kb, learnt, tmp_path):
    texts = [text for text, _ in captions_of_shop(0)]
    shuffled = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))]
    sample = sampled(kb, shuffled[:500], shuffled[500:], shuffled[:300])
    learn_priors(Linker(kb), sample).save(tmp_path / "shuffled")
    learnt.save(tmp_path / "in order")
    assert (tmp_path / "shuffled").read_bytes() == (tmp_path / "in order").read_bytes()


def test_a_sample_is_bounded_and_the_same_for_every_order(kb):
    texts = [str(number) for number in range(1000)]
    whole, some = sampled(kb, texts), sampled(kb, texts, size=100)
    assert some.equals(whole[:100])
    assert sampled(kb, texts[600:], texts[:600], [None, ""][:1], size=100).equals(some)


# ---- the file -----------------------------------------------------------------------------------


def test_what_was_written_is_read_again(kb, learnt, tmp_path):
    learnt.save(tmp_path / "priors")
    texts = [text for text, _ in captions_of_shop(1)]
    settings = LinkSettings(priors=str(tmp_path / "priors"))
    again = Linker(kb, settings=settings).link(texts, all_candidates=True)
    assert again.equals(Linker(kb, priors=learnt).link(texts, all_candidates=True))


def test_another_knowledge_base_is_refused_in_one_sentence(kb, learnt, tmp_path):
    learnt.save(tmp_path / "priors")
    (tmp_path / "c.csv").write_text("id,name\nx,Puma\n")
    from openmofi.kb import build_kb

    build_kb(tmp_path / "c.csv", out=tmp_path / "other")
    with pytest.raises(MismatchError, match=r"another knowledge base.*kb count") as caught:
        read_crawl_priors(tmp_path / "priors", KnowledgeBase.open(tmp_path / "other"))
    assert "\n" not in str(caught.value)


def test_counting_names_leaves_the_priors_valid(kb, learnt, tmp_path):
    from openmofi.link.linkability import count_names

    learnt.save(tmp_path / "priors")
    own = make_shop_kb(tmp_path)
    count_names(own, [["Puma men shoes"]])
    assert read_crawl_priors(tmp_path / "priors", own).kb == kb.fingerprint


def test_another_version_and_other_files_are_refused(kb, learnt, tmp_path, monkeypatch):
    monkeypatch.setattr("openmofi.link.crawl_priors.VERSION", 99)
    learnt.save(tmp_path / "priors")
    monkeypatch.undo()
    with pytest.raises(MismatchError, match="version 99"):
        read_crawl_priors(tmp_path / "priors", kb)
    (tmp_path / "text").write_text("no priors")
    for name in ("text", "missing"):
        with pytest.raises(InputError, match="does not hold the priors"):
            read_crawl_priors(tmp_path / name, kb)


# ---- the linker ---------------------------------------------------------------------------------


def test_priors_sum_to_one_and_the_best_by_prior_and_company_has_zero(kb, learnt):
    texts = [text for text, _ in captions_of_shop(1)]
    linker = Linker(kb, priors=learnt)
    table = linker.link(texts, all_candidates=True)
    row, prior, company = (table[name].to_numpy() for name in ("row", "prior", "type"))
    assert np.bincount(row, prior) == pytest.approx(np.ones(len(texts)), abs=1e-6)
    both = linker.weights.prior * below_highest(np.log(prior), row) + company
    assert np.maximum.reduceat(both, np.unique(row, return_index=True)[1]) == pytest.approx(
        0, abs=1e-5
    )


def test_names_of_one_group_are_linked_as_before(kb, learnt):
    texts = [text for text, _ in captions_of_shop(1, shared=0)]
    before, after = Linker(kb).link(texts, True), Linker(kb, priors=learnt).link(texts, True)
    assert after["score"].to_numpy() == pytest.approx(before["score"].to_numpy(), abs=1e-6)


def test_given_spans_get_the_same_scores(kb, learnt):
    texts = [text for text, _ in captions_of_shop(1)]
    linker = Linker(kb, priors=learnt)
    found = linker.link(texts, all_candidates=True)
    spans = found.filter(pa.compute.equal(found["rank"], 0)).select(["row", "start", "end"])
    assert linker.link_spans(texts, spans, all_candidates=True).equals(found)


def test_a_name_without_a_table_of_its_own_is_tilted(kb, learnt):
    without = replace(learnt, pairs=learnt.pairs[:0], prior=learnt.prior[:0])
    table = Linker(kb, priors=without).link(["a puma"], all_candidates=True)
    tilt = {id_: learnt.tilt[learnt.groups[kb.row_of(id_)]] for id_ in ("a-Puma", "b-Puma")}
    plain = {"a-Puma": 0.8, "b-Puma": 0.4}
    odds = {id_: plain[id_] * tilt[id_] for id_ in plain}
    found = dict(zip(table["id"].to_pylist(), table["prior"].to_pylist(), strict=True))
    assert found["b-Puma"] == pytest.approx(odds["b-Puma"] / sum(odds.values()), abs=1e-5)


# ---- references ---------------------------------------------------------------------------------


def slow_step(names: NamePriors, pair: np.ndarray, posterior: np.ndarray) -> tuple[list, list]:
    """The M step of the module's docstring, one number after the other."""
    groups, cells = (
        range(len(names.tilt)),
        list(zip(names.name.tolist(), names.group.tolist(), names.start.tolist(), strict=True)),
    )
    tilt = [
        (sum(p for i, p in zip(pair, posterior, strict=True) if cells[i][1] == g) + MU)
        / (sum(cells[i][2] for i in pair if cells[i][1] == g) + MU)
        for g in groups
    ]
    tilt[-1] = 1.0
    prior = []
    for m, g, start in cells:
        of_name = [cell for cell in cells if cell[0] == m]
        q = {h: sum(tilt[h] * p for _, k, p in of_name if k == h) for h in groups}
        counts = {
            h: sum(p for i, p in zip(pair, posterior, strict=True) if cells[i][:2] == (m, h))
            for h in groups
        }
        mass = {h: counts[h] + MU * q[h] / sum(q.values()) for h in groups}
        own = sum(p for _, k, p in of_name if k == g)
        found = mass[g] / sum(mass.values()) * start / own
        prior.append(max(found, min(start, FLOOR)))
    totals = {m: sum(p for p, c in zip(prior, cells, strict=True) if c[0] == m) for m, *_ in cells}
    return [p / totals[c[0]] for p, c in zip(prior, cells, strict=True)], tilt


@pytest.mark.parametrize("seed", range(5))
def test_a_step_is_that_of_a_slow_reference(seed):
    rng = np.random.default_rng(seed)
    name = np.repeat(np.arange(6), rng.integers(1, 5, 6))
    start = normalised(rng.random(len(name)) ** 6, name)
    group = rng.integers(0, 3, len(name))
    names = NamePriors(np.arange(len(name)), name, group, start, start, np.ones(3))
    pair = rng.integers(0, len(name), 400)
    posterior = rng.random(400)
    found = reestimate(names, pair, posterior)
    prior, tilt = slow_step(names, pair, posterior)
    assert found.prior == pytest.approx(prior)
    assert found.tilt == pytest.approx(tilt)


def test_no_meaning_falls_below_the_floor():
    name, start = np.zeros(3, np.int64), np.array([0.6, 0.395, 0.005])
    names = NamePriors(np.arange(3), name, np.array([0, 1, 2]), start, start, np.ones(4))
    pair = np.zeros(100_000, np.int64)
    for _ in range(20):
        names = reestimate(names, pair, np.ones(len(pair)))
    assert names.prior[1:] == pytest.approx([FLOOR, 0.005], rel=0.02)
    assert names.prior.sum() == pytest.approx(1)


def test_mentions_of_one_entity_share_its_value_and_others_may_not(kb):
    texts = pa.array(["a puma", "a moppa in the wood"], pa.large_string())
    senses = senses_of(Linker(kb), texts)
    of_entity = np.array([id_.startswith("a") for id_ in kb.ids.to_pylist()], np.int64)
    lowest, highest = senses.extremes(of_entity)
    names = kb.canonical_names(senses.key)
    assert dict(zip(names, lowest.tolist(), strict=True)) == {"puma": 0, "moppa": 1}
    assert highest.tolist() == [1, 1]
    assert dict(zip(names, senses.common(of_entity), strict=True)) == {"puma": -1, "moppa": 1}


def test_posteriors_are_the_scores_of_the_linker(kb):
    texts = pa.array([text for text, _ in captions_of_shop(2, 50)], pa.large_string())
    weights = replace(load_link_weights(), prior=1.0)
    linker = Linker(kb, encoder=WordEncoder(kb), weights=weights)
    senses = senses_of(linker, texts)
    found = posterior_of(linker, senses, senses.prior, 0.0)
    scores = linker.link(texts, all_candidates=True)["score"].to_numpy()
    assert found == pytest.approx(scores, abs=1e-5)


def test_runs_are_scaled_each_by_itself():
    values, item = np.array([1.0, 3.0, 5.0]), np.array([0, 0, 2])
    assert normalised(values, item).tolist() == [0.25, 0.75, 1.0]
    assert below_highest(values, item).tolist() == [-2.0, 0.0, 0.0]
    assert len(normalised(values[:0], item[:0])) == len(below_highest(values[:0], item[:0])) == 0


def test_the_card_of_a_file_is_json_that_people_can_read(kb, learnt, tmp_path):
    from safetensors import safe_open

    learnt.save(tmp_path / "priors")
    with safe_open(tmp_path / "priors", "numpy") as file:
        head = json.loads(file.metadata()["openmofi crawl priors"])
    assert head["about"] == learnt.about
    assert math.isfinite(head["trust"])
    assert head["trust"] > 0
