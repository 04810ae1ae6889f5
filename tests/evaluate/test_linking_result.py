"""A linker and a benchmark become figures; the linker here answers from a dictionary."""

import json
import math

import pyarrow as pa
import pytest

from openmofi.cli import main
from openmofi.config import LinkSettings
from openmofi.errors import OpenMOFIError, SettingsError
from openmofi.evaluate.linking import evaluate_linking
from openmofi.evaluate.linking_data import GoldDocument, GoldMention, LinkingData
from openmofi.evaluate.linking_report import published, write_linking
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.link.detectors import detected
from openmofi.schema import CANDIDATES

# id, English article, sitelinks
ENTITIES = [
    ("Q90", "Paris", 250),
    ("Q167646", "Paris (mythology)", 60),
    ("Q830149", "Paris, Texas", 5),
    ("Q142", "France", 300),
    ("Q9", "", 0),
]
NAMES = {
    "Paris": [("Q90", 0.8), ("Q167646", 0.15), ("Q830149", 0.05)],
    "France": [("Q142", 1.0)],
    "Zed": [("Q9", 1.0)],
}


class FakeKB:
    meta = {"names": 5}  # noqa: RUF012 - a fake

    def entities(self, columns):
        arrays = [pa.array([entity[i] for entity in ENTITIES]) for i in range(3)]
        return pa.table(arrays, ["id", "enwiki", "sitelinks"]).select(columns)

    def __len__(self):
        return len(ENTITIES)

    def row_of(self, identifier):
        return next((i for i, e in enumerate(ENTITIES) if e[0] == identifier), None)


class FakeLinker:
    """Knows its names; `favourite` outranks the prior."""

    def __init__(self, favourite=""):
        self.kb, self.favourite = FakeKB(), favourite

    def link(self, captions, all_candidates=False):
        spans = [
            (row, text.index(name), text.index(name) + len(name))
            for row, text in enumerate(captions)
            for name in NAMES
            if name in text
        ]
        return self._table(captions, sorted(spans), all_candidates)

    def link_spans(self, captions, spans, all_candidates=False):
        rows = [tuple(s.values()) for s in spans.select(["row", "start", "end"]).to_pylist()]
        return self._table(captions, rows, all_candidates)

    def _table(self, captions, spans, all_candidates):
        lines = []
        for row, start, end in spans:
            offers = NAMES.get(captions[row][start:end], [])
            offers = sorted(offers, key=lambda offer: offer[0] != self.favourite)
            for rank, (identifier, prior) in enumerate(offers[: None if all_candidates else 1]):
                line = {"row": row, "start": start, "end": end, "id": identifier, "rank": rank}
                lines.append({**line, "prior": prior, "score": prior})
        return pa.Table.from_pylist(lines, schema=CANDIDATES)


def document(text, *mentions, **more):
    found = [GoldMention(text.index(name), text.index(name) + len(name), i) for name, i in mentions]
    return GoldDocument("d", text, tuple(found), **more)


DATA = LinkingData(
    "toy",
    "melbench",
    (
        document("Paris in France", ("Paris", "Q90"), ("France", "Q142")),
        document("Paris took Helen", ("Paris", "Q167646"), ("Helen", "Q7")),
        document("Zed's dead", ("Zed", None)),
    ),
)


def test_the_three_questions_are_answered():
    result = evaluate_linking(FakeLinker(), DATA)
    assert (result.documents, result.mentions, result.nil, result.not_in_kb) == (3, 4, 1, 1)
    assert result.recall_at == {"1": 0.5, "5": 0.75, "30": 0.75}
    assert (result.accuracy, result.in_kb_accuracy) == (0.5, pytest.approx(2 / 3))
    ends = result.end_to_end
    assert (ends.true_positives, ends.false_positives, ends.false_negatives) == (2, 2, 2)


def test_entities_outside_the_kb_count_as_nil_inside_it():
    ends = evaluate_linking(FakeLinker(), DATA).in_kb_end_to_end
    assert (ends.true_positives, ends.false_positives, ends.false_negatives) == (2, 2, 1)


def test_recall_is_by_prior_and_accuracy_by_score():
    result = evaluate_linking(FakeLinker(favourite="Q167646"), DATA)
    assert result.recall_at["1"] == 0.5
    assert result.accuracy == 0.5
    assert result.by_frequency["10-99"].accuracy == 1
    assert result.by_frequency["10-99"].recall_at["1"] == 0


def test_slices_add_up_to_the_whole():
    result = evaluate_linking(FakeLinker(), DATA)
    for slices in (result.by_frequency, result.by_ambiguity):
        assert sum(s.mentions for s in slices.values()) == result.mentions
        for count in ("true_positives", "false_positives", "false_negatives"):
            parts = sum(getattr(s.end_to_end, count) for s in slices.values())
            assert parts == getattr(result.end_to_end, count)


def test_buckets_are_those_of_the_gold_entity_and_its_mention():
    result = evaluate_linking(FakeLinker(), DATA)
    sizes = {name: s.mentions for name, s in result.by_frequency.items()}
    assert sizes == {"0": 0, "10-99": 1, "100+": 2, "not_in_kb": 1}
    sizes = {name: s.mentions for name, s in result.by_ambiguity.items()}
    assert sizes == {"1": 1, "2-5": 2, "unknown_name": 1}


def test_wikipedia_titles_become_ids_of_the_kb():
    gold = [("Paris", "paris_(mythology)"), ("France", "France"), ("took", "No such article")]
    data = LinkingData("z", "zelda", (document("Paris took France", *gold),), "enwiki")
    result = evaluate_linking(FakeLinker(), data)
    assert (result.not_in_kb, result.recall_at["5"]) == (1, pytest.approx(2 / 3))


def test_a_detector_replaces_the_gazetteer():
    class OnlyFrance:
        def detect(self, captions):
            at = [(row, text.find("France")) for row, text in enumerate(captions.to_pylist())]
            return detected((row, i, i + 6, "GPE", 1.0) for row, i in at if i >= 0)

    result = evaluate_linking(FakeLinker(), DATA, detector=OnlyFrance())
    ends = result.end_to_end
    assert result.detector == "OnlyFrance"
    assert (ends.true_positives, ends.false_positives, ends.false_negatives) == (1, 0, 3)
    assert result.accuracy == 0.5


def test_oven_is_scored_by_the_best_entity_of_the_text():
    def ask(text, identifier, split):
        return document(text, entity=GoldMention(0, 0, identifier), split=split)

    asked = (
        ask("Paris?", "Q90", "val_seen"),
        ask("Zed in Paris", "Q90", "val_seen"),
        ask("in France", "Q142", "val_unseen"),
        ask("nothing", "Q5", "val_unseen"),
    )
    result = evaluate_linking(FakeLinker(), LinkingData("o", "oven", asked))
    assert result.splits == {"seen": 0.5, "unseen": 0.5, "harmonic_mean": 0.5}
    assert (result.accuracy, result.not_in_kb) == (0.5, 1)


def test_a_benchmark_without_entities_has_no_accuracy():
    data = LinkingData(
        "n",
        "elevant",
        (
            document("Zed", ("Zed", None)),
            document(
                "",
            ),
        ),
    )
    result = evaluate_linking(FakeLinker(), data)
    assert math.isnan(result.accuracy)
    assert result.end_to_end.false_positives == 1


def test_verbatim_ignores_case_and_nameless_labels():
    mentions = (GoldMention(0, 5, "Q1", "PARIS"), GoldMention(6, 9, "Q2", "Helen of Troy"))
    data = LinkingData("v", "melbench", (GoldDocument("d", "Paris Hel", mentions),))
    assert evaluate_linking(FakeLinker(), data).verbatim == 0.5


def test_settings_beside_a_linker_are_refused():
    with pytest.raises(SettingsError, match="has its encoder"):
        evaluate_linking(FakeLinker(), DATA, settings=LinkSettings())


def test_published_figures_have_sources_and_belong_to_the_dataset():
    found = published("elevant_derczynski", "elevant")
    assert {p.system: p.score for p in found}["GENRE"] == 0.539
    assert {p.metric for p in published("zelda_tweeki", "zelda")} > {"accuracy"}
    assert all("arXiv" in p.source for p in found)
    assert published("mine", "melbench") == []


def test_linking_json_holds_null_for_nothing_measured(tmp_path):
    data = LinkingData("n", "elevant", (document("Zed", ("Zed", None)),))
    path = write_linking([evaluate_linking(FakeLinker(), data)], tmp_path / "new")
    record = json.loads(path.read_text())[0]
    assert record["accuracy"] is None
    assert record["end_to_end"]["false_positives"] == 1


# ---- with a real knowledge base -----------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("linking")
    rows = ["id,name,aliases,description,weight"]
    rows += ["Q90,Paris,City of Light,capital of France,250", "Q142,France,,country,300"]
    rows += ["Q167646,Paris,Alexander,prince of Troy,60"]
    (folder / "kb.csv").write_text("\n".join(rows))
    build_kb([folder / "kb.csv"], out=folder / "kb")
    line = {"sentence": "🗼 Paris, capital of France", "mentions": ["Paris", "France"]}
    line |= {"answer": ["Q90", "Q142"], "entities": ["Paris", "France"]}
    (folder / "mel.jsonl").write_text(json.dumps(line) + "\n")
    return folder


def test_a_real_linker_finds_what_its_kb_holds(world):
    data = LinkingData("t", "melbench", DATA.documents[:1])
    result = evaluate_linking(KnowledgeBase.open(world / "kb"), data)
    assert (result.accuracy, result.end_to_end.f1) == (1, 1)


def run(command):
    with pytest.raises(SystemExit, match="0"):
        main(command.split())


def test_the_verb_prints_a_table_and_writes_json(world, capsys):
    out = world / "scores"
    run(f"evaluate linking --kb {world}/kb --data {world}/mel.jsonl --out {out}")
    printed = capsys.readouterr().out
    assert "recall@1" in printed
    assert "next: openmofi link" in printed
    assert json.loads((out / "linking.json").read_text())[0]["end_to_end"]["f1"] == 1


def test_the_verb_prints_json(world, capsys):
    run(f"evaluate linking --kb {world}/kb --data {world}/mel.jsonl --json")
    assert json.loads(capsys.readouterr().out)[0]["dataset"] == "mel"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--data no.jsonl", "does not exist"),
        ("--data {world}/kb.csv", "no readable line"),
        ("--data {world}/mel.jsonl --detector nltk", "no detector 'nltk'"),
        ("--data {world}/mel.jsonl --detector hf:", "no detector 'hf:'"),
        ("--data {world}/mel.jsonl --detector hf:./nowhere", "Cannot load a token classifier"),
    ],
)
def test_the_verb_refuses_in_one_sentence(world, capsys, arguments, words):
    command = f"evaluate linking --kb {world}/kb " + arguments.format(world=world)
    with pytest.raises(SystemExit, match="1"):
        main(command.split())
    printed = capsys.readouterr().err
    assert words in printed
    assert printed.count("\n") == 1


def test_evaluate_itself_still_wants_a_model(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "./linking", "--data", "a=nowhere"])
    assert "evaluation data" in capsys.readouterr().err
    assert issubclass(SettingsError, OpenMOFIError)
