"""Any text encoder as the linker's context, against one that encodes text by text."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import torch

import fruit
from model.test_dual import write_text_encoder
from openmofi.cli import app, main
from openmofi.config import LabelSettings
from openmofi.errors import InputError, MismatchError
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.label import entity_vectors, label
from openmofi.label.encoder import model_digest
from openmofi.label.entity_vectors import FOLDER, EntityVectors
from openmofi.label.text_context import LatestTexts, text_linker
from openmofi.link import Linker, WordEncoder
from openmofi.link.weights import load_link_weights
from openmofi.model import load_text_encoder
from openmofi.shards import commits

# Of the words that the encoder knows: a, red, flag, two.
CATALOGUE = """id,name,aliases,description,weight
red,red flag,flag,a red two,3
green,two flag,flag,two two two,1
both,red two,,a a red,2
never,two a,,flag,2
"""
CAPTIONS = ["a red flag", "two, and a flag", "a flag and red two", "red two, red flag: a flag"]


@pytest.fixture(scope="module")
def encoder_dir(tmp_path_factory):
    return write_text_encoder(tmp_path_factory.mktemp("text"), Normalize=True)


@pytest.fixture
def kb(tmp_path):
    build_kb(fruit.write_catalogue(tmp_path, CATALOGUE), out=tmp_path / "kb")
    return KnowledgeBase.open(tmp_path / "kb")


class Counting:
    """A text encoder that remembers what it was asked."""

    def __init__(self, folder):
        self._model = load_text_encoder(folder, device="cpu")
        self.dim, self.transform, self.asked = self._model.dim, self._model.transform, []

    def encode_texts_alone(self, texts):
        self.asked += texts
        return self._model.encode_texts_alone(texts)


def linked(kb, encoder, path, captions=CAPTIONS):
    return text_linker(kb, encoder, path).link(captions, all_candidates=True).to_pylist()


def run(line):
    app(line, exit_on_error=False, result_action="return_value")


# ---- the numbers --------------------------------------------------------------------------------


def slow_vectors(folder, texts):
    """Encodes every text by itself and averages its tokens, in float64."""
    from transformers import AutoTokenizer, BertModel

    network = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"][:6]])
        with torch.inference_mode():
            tokens = network(input_ids=ids).last_hidden_state[0].double().numpy()
        vector = sum(tokens) / len(tokens)
        found.append(vector / math.sqrt(sum(x * x for x in vector)))
    return found


def slow_terms(kb, folder, rows):
    """Returns (context, coherence) of every candidate, from cosines of pairs of texts."""
    entities = dict(
        zip(kb.ids.to_pylist(), slow_vectors(folder, kb.entity_text(range(4))), strict=True)
    )
    captions = slow_vectors(folder, CAPTIONS)
    pairs = [(a, b) for a in entities for b in entities if a < b]
    cosines = [float(entities[a] @ entities[b]) for a, b in pairs]
    mean = sum(cosines) / len(cosines)
    spread = math.sqrt(sum((c - mean) ** 2 for c in cosines) / len(cosines))
    terms = []
    for row in rows:
        own = entities[row["id"]]
        others: dict[int, float] = {}
        for other in rows:
            if other["row"] == row["row"] and other["start"] != row["start"]:
                part = other["prior"] * float(own @ entities[other["id"]])
                others[other["start"]] = others.get(other["start"], 0.0) + part
        among = (sum(others.values()) / len(others) - mean) / spread if others else 0.0
        terms.append(((float(own @ captions[row["row"]]) - mean) / spread, among))
    return terms


def test_context_and_coherence_are_standardised_cosines_of_texts_encoded_one_by_one(
    kb, encoder_dir, tmp_path
):
    rows = linked(kb, load_text_encoder(encoder_dir, device="cpu"), tmp_path / "v.f16")
    terms = slow_terms(kb, encoder_dir, rows)
    assert len(rows) == 10
    # The stored vectors are fp16, and few texts lie close together.
    assert [row["context"] for row in rows] == pytest.approx([c for c, _ in terms], abs=0.02)
    assert [row["coherence"] for row in rows] == pytest.approx([c for _, c in terms], abs=0.02)
    assert [row["coherence"] == 0 for row in rows] == [row["row"] < 2 for row in rows]


def test_the_score_is_the_softmax_of_the_weighted_terms(kb, encoder_dir, tmp_path):
    rows = linked(kb, load_text_encoder(encoder_dir, device="cpu"), tmp_path / "v.f16")
    weights = load_link_weights(standardised=True)
    for place in {(row["row"], row["start"]) for row in rows}:
        own = [row for row in rows if (row["row"], row["start"]) == place]
        most = max(row["prior"] for row in own)
        sums = [
            weights.prior * math.log(row["prior"] / most)
            + sum(getattr(weights, name) * row[name] for name in ("context", "coherence", "case"))
            for row in own
        ]
        total = sum(map(math.exp, [*sums, weights.nil]))
        expected = [math.exp(value) / total for value in sums]
        assert [row["score"] for row in own] == pytest.approx(expected, rel=1e-4)


def test_a_caption_gets_the_same_bits_alone_and_among_others(kb, encoder_dir, tmp_path):
    together = linked(kb, load_text_encoder(encoder_dir, device="cpu"), tmp_path / "v.f16")
    encoder = load_text_encoder(encoder_dir, device="cpu")
    linker = text_linker(kb, encoder, tmp_path / "w.f16")
    for row in reversed(range(len(CAPTIONS))):
        alone = linker.link([CAPTIONS[row]], all_candidates=True).to_pylist()
        expected = [{**found, "row": 0} for found in together if found["row"] == row]
        assert alone == expected


# ---- what is encoded ----------------------------------------------------------------------------


def test_only_candidates_and_the_sample_are_encoded_and_only_once(
    kb, encoder_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr(entity_vectors, "_SAMPLE", 2)  # the first and the last, both candidates
    first, second = Counting(encoder_dir), Counting(encoder_dir)
    assert linked(kb, first, tmp_path / "v.f16") == linked(kb, second, tmp_path / "v.f16")
    entities = kb.entity_text(kb.rows_of(["red", "green", "both"]))  # no caption names the other
    assert sorted(first.asked) == sorted([*CAPTIONS, *entities])
    assert sorted(second.asked) == sorted(CAPTIONS)


def test_texts_of_the_last_call_are_not_encoded_again(encoder_dir):
    encoder, told = Counting(encoder_dir), []
    texts = LatestTexts(encoder, told.append)
    first = texts.encode_texts(["a", "two", "a"])
    again = texts.encode_texts(["two", "flag"])
    assert (encoder.asked, told) == (["a", "two", "flag"], [2, 1])
    assert np.array_equal(first[0], first[2])
    assert np.array_equal(first[1], again[0])


_KILLED_ENCODING = """
    import os, signal, sys
    from pathlib import Path
    from openmofi.kb import KnowledgeBase
    from openmofi.label import entity_vectors
    from openmofi.model import load_text_encoder
    entity_vectors._AT_ONCE, count = 1, []
    def advance(texts):
        count.append(texts)
        if len(count) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    kb, encoder = KnowledgeBase.open(sys.argv[1]), load_text_encoder(sys.argv[2], device="cpu")
    entity_vectors.EntityVectors(kb, encoder, Path(sys.argv[3]), advance=advance).unrelated()
"""


@pytest.mark.slow
def test_what_was_encoded_before_a_kill_is_kept(kb, encoder_dir, tmp_path):
    path = tmp_path / "v.f16"
    arguments = [sys.executable, "-c", textwrap.dedent(_KILLED_ENCODING)]
    arguments += [f"{kb.path}", f"{encoder_dir}", f"{path}"]
    killed = subprocess.run(arguments, env=os.environ)
    assert killed.returncode == -signal.SIGKILL
    encoder = Counting(encoder_dir)
    EntityVectors(kb, encoder, path).of(np.arange(4))
    assert encoder.asked == kb.entity_text([3])


def test_the_cosines_of_unrelated_entities_equal_a_slow_count(kb, encoder_dir, tmp_path):
    entities = EntityVectors(kb, Counting(encoder_dir), tmp_path / "v.f16")
    vectors = entities.of(np.arange(4)).astype(float)
    cosines = [sum(vectors[a] * vectors[b]) for a in range(4) for b in range(a)]
    mean, spread = entities.unrelated()
    assert mean == pytest.approx(np.mean(cosines), abs=1e-4)
    assert spread == pytest.approx(max(np.std(cosines), 0.01), abs=1e-4)


def test_a_single_entity_is_not_unrelated_to_anything(encoder_dir, tmp_path):
    (tmp_path / "one.csv").write_text("id,name\n1,red flag\n")
    build_kb(tmp_path / "one.csv", out=tmp_path / "kb1")
    kb = KnowledgeBase.open(tmp_path / "kb1")
    assert EntityVectors(kb, Counting(encoder_dir), tmp_path / "v.f16").unrelated() == (0.0, 1.0)


def test_a_change_of_the_pooling_is_another_encoder(encoder_dir, tmp_path):
    other = shutil.copytree(encoder_dir, tmp_path / "other")
    assert model_digest(str(other)) == model_digest(str(encoder_dir))
    (other / "1_Pooling/config.json").write_text('{"pooling_mode_cls_token": true}')
    assert model_digest(str(other)) != model_digest(str(encoder_dir))


# ---- weights ------------------------------------------------------------------------------------


def test_weights_of_words_are_refused_for_a_text_encoder_and_the_other_way_round(
    kb, encoder_dir, tmp_path
):
    encoder = load_text_encoder(encoder_dir, device="cpu")
    with pytest.raises(InputError, match="with words as context, which now is a text encoder"):
        text_linker(kb, encoder, tmp_path / "v.f16", weights=load_link_weights())
    with pytest.raises(InputError, match="with a text encoder as context, which now is words"):
        Linker(kb, encoder=WordEncoder(kb), weights=load_link_weights(standardised=True))


def test_fitted_weights_are_for_the_context_that_they_were_fitted_with(
    kb, encoder_dir, tmp_path, capsys
):
    line = {"sentence": "two two two: flag", "mentions": "flag", "entities": "", "answer": "green"}
    (tmp_path / "mel.jsonl").write_text(f"{json.dumps(line)}\n" * 120)
    out = tmp_path / "w.json"
    context = ["--kb", f"{kb.path}", "--context", f"{encoder_dir}"]
    run(["kb", "fit", f"{tmp_path}/mel.jsonl", "--out", f"{out}", *context])
    assert f"--context {encoder_dir}" in capsys.readouterr().out
    assert load_link_weights(out).standardised
    arguments = ["evaluate", "linking", "--data", f"{tmp_path}/mel.jsonl", "--weights", f"{out}"]
    run([*arguments, *context, "--json"])
    (result,) = json.loads(capsys.readouterr().out)
    assert result["accuracy"] == 1  # where the prior says red
    with pytest.raises(SystemExit):
        main([*arguments, "--kb", f"{kb.path}"])
    assert "change the context" in capsys.readouterr().err


# ---- link and label -----------------------------------------------------------------------------


def test_link_keeps_the_vectors_in_the_knowledge_base(kb, encoder_dir, capsys):
    line = ["link", "a flag", "--all-candidates", "--json"]
    line += ["--kb", f"{kb.path}", "--context", f"{encoder_dir}"]
    run(line)
    first = json.loads(capsys.readouterr().out)
    assert first[0]["context"] is not None
    (file,) = (kb.path / FOLDER).iterdir()
    assert file.name == f"{model_digest(str(encoder_dir))}-auto.f16"
    before = file.read_bytes()
    run(line)
    assert json.loads(capsys.readouterr().out) == first
    assert file.read_bytes() == before


def test_link_keeps_them_in_the_cache_folder_if_the_knowledge_base_is_read_only(
    kb, encoder_dir, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("OPENMOFI_CACHE", f"{tmp_path}/cache")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    run(
        [
            "link",
            "flag",
            "--all-candidates",
            "--kb",
            f"{kb.path}",
            "--context",
            f"{encoder_dir}",
            "--json",
        ]
    )
    assert json.loads(capsys.readouterr().out)
    assert not (kb.path / FOLDER).exists()
    assert list((tmp_path / "cache/kb" / kb.fingerprint / FOLDER).iterdir())


@pytest.fixture
def fruit_kb(tmp_path):
    return build_kb(fruit.write_catalogue(tmp_path), out=tmp_path / "kb").out


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return fruit.write_pairs(tmp_path_factory.mktemp("pairs"), shards=4, per_shard=9)


def _digests(out):
    return {commit.shard: commit.sha256 for commit in commits(out)}


@pytest.mark.slow
def test_shards_are_the_same_bytes_whoever_labels_them_and_in_whatever_order(
    fruit_kb, pairs, encoder_dir, nano_dir, tmp_path
):
    settings = LabelSettings(background=16, workers=1, context=str(encoder_dir))
    for name, workers, ranks in (("one", 1, [0]), ("two", 2, [0]), ("ranks", 1, [1, 0])):
        own = shutil.copytree(fruit_kb, tmp_path / f"kb-{name}")  # nothing is encoded there yet
        for rank in ranks:
            placed = replace(settings, workers=workers)
            if len(ranks) > 1:
                placed = replace(placed, engine="rank", rank=rank, world_size=len(ranks))
            label(pairs, kb=own, model=str(nano_dir), out=tmp_path / name, settings=placed)
    assert _digests(tmp_path / "one") == _digests(tmp_path / "two") == _digests(tmp_path / "ranks")
    words = replace(settings, context="words")
    label(pairs, kb=fruit_kb, model=str(nano_dir), out=tmp_path / "words", settings=words)
    assert _digests(tmp_path / "words") != _digests(tmp_path / "one")


_KILLED = """
    import os, signal, sys
    import openmofi.shards.worker as worker
    from openmofi.cli import main
    commit, count = worker.publish, []
    def killing(*arguments, **more):
        count.append(1)
        if len(count) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return commit(*arguments, **more)
    worker.publish = killing
    main(sys.argv[1:])
"""


@pytest.mark.slow
def test_after_kill_9_the_same_command_goes_on_to_the_same_bytes(
    fruit_kb, pairs, encoder_dir, tmp_path
):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    settings = LabelSettings(workers=1, context=str(encoder_dir))
    label(pairs, kb=fruit_kb, out=whole, settings=settings)
    shutil.rmtree(fruit_kb / FOLDER)
    line = f"label {pairs} --kb {fruit_kb} --out {cut} --workers 1 --context {encoder_dir}"
    command = [sys.executable, "-c", textwrap.dedent(_KILLED), *line.split()]
    assert subprocess.run(command, env=os.environ).returncode == -signal.SIGKILL
    assert len(commits(cut)) == 2
    label(pairs, kb=fruit_kb, out=cut, settings=settings)
    assert _digests(cut) == _digests(whole)


@pytest.mark.slow
def test_another_text_encoder_is_not_mixed_in(fruit_kb, pairs, encoder_dir, tmp_path):
    own = shutil.copytree(encoder_dir, tmp_path / "text")
    settings = LabelSettings(workers=1, context=str(own))
    label(pairs, kb=fruit_kb, out=tmp_path / "o", settings=settings)
    (own / "1_Pooling/config.json").write_text('{"pooling_mode_cls_token": true}')
    with pytest.raises(MismatchError, match="context_sha256"):
        label(pairs, kb=fruit_kb, out=tmp_path / "o", settings=settings)


@pytest.mark.slow
def test_the_text_tower_of_the_model_shares_the_vectors_that_images_are_compared_with(
    fruit_kb, pairs, nano_dir, tmp_path
):
    settings = LabelSettings(background=16, workers=1, context="model")
    label(pairs, kb=fruit_kb, model=str(nano_dir), out=tmp_path / "o", settings=settings)
    assert len(list((fruit_kb / FOLDER).iterdir())) == 1
