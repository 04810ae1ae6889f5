from dataclasses import dataclass, field
from pathlib import Path

import pytest

from openmofi.config import KBSettings
from openmofi.errors import InputError
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.kb.read.records import EntityRecord
from openmofi.kb.read.wordnet import read_wordnet
from openmofi.refused import Refused

REAL = Path("/usr/share/wordnet")
needs_wordnet = pytest.mark.skipif(
    not (REAL / "data.noun").is_file(), reason="Debian's wordnet-base is not installed"
)
LICENCE = "  1 This software and database is being provided to you, the LICENSEE, by  \n"


@dataclass
class Synset:
    """A line of data.noun: lemmas as lemma/lex_id, hypernyms as pointer and offset."""

    offset: int
    file: str
    lemmas: str
    gloss: str
    above: list[tuple[str, int]] = field(default_factory=list)

    def line(self) -> str:
        words = [word.split("/") for word in self.lemmas.split()]
        fields = [f"{self.offset:08d}", self.file, "n", f"{len(words):02x}"]
        fields += [f"{lemma} {lex_id}" for lemma, lex_id in words]
        fields.append(f"{len(self.above):03d}")
        fields += [f"{pointer} {offset:08d} n 0000" for pointer, offset in self.above]
        return f"{' '.join(fields)} | {self.gloss}  \n"


SYNSETS = [
    Synset(1, "03", "entity/0", "what is"),
    Synset(2, "05", "bird/0", 'an animal with wings; "it flew"; "a bird, too"', [("@", 1)]),
    Synset(3, "05", "crane/0", "a large wading bird", [("@", 2), ("~", 9)]),
    Synset(4, "06", "crane/0 hoisting_engine/1", 'a machine: "it lifts"', [("@", 1)]),
    Synset(5, "18", "Crane/1 Hart_Crane/0", "a poet (1899-1932)", [("@i", 6)]),
    Synset(6, "18", "poet/0", 'a writer of verse, as in "poet"', [("@", 1)]),
    Synset(7, "07", "whiteness/0", "a colour without hue", [("@", 1)]),
    Synset(8, "04", "sport/0 athletics/0", "exertion", [("@", 1)]),
    Synset(9, "04", "tennis/0", "a game with rackets", [("@", 8)]),
]
INDEX = [
    "bird n 1 2 @ ~ 1 1 00000002",
    "crane n 3 2 @ ~ 3 2 00000004 00000005 00000003",
    "hart_crane n 1 1 @i 1 0 00000005",
    "hoisting_engine n 1 1 @ 1 1 00000004",
]
COUNTS = ["crane%1:06:00:: 1 2", "hoisting_engine%1:06:01:: 1 5", "crane%2:35:00:: 1 9"]


def wordnet(folder: Path, *more: str, index: list[str] = INDEX, counts: list[str] = COUNTS) -> Path:
    folder.mkdir(exist_ok=True)
    lines = [synset.line() for synset in SYNSETS]
    (folder / "data.noun").write_text(LICENCE + "".join([*lines, *more]))
    (folder / "index.noun").write_text(LICENCE + "".join(f"{line}  \n" for line in index))
    (folder / "cntlist.rev").write_text("".join(f"{line}\n" for line in counts))
    return folder


def records(folder: Path, preset: str = "full") -> dict[str, EntityRecord]:
    read = read_wordnet(folder / "data.noun", preset)
    return {record.id: record for record in read if isinstance(record, EntityRecord)}


def refused(folder: Path, preset: str = "full") -> list[Refused]:
    read = read_wordnet(folder / "data.noun", preset)
    return [record for record in read if isinstance(record, Refused)]


def test_a_synset_has_the_id_that_imagenet_gives_it(tmp_path):
    assert list(records(wordnet(tmp_path)))[:2] == ["n00000001", "n00000002"]


def test_all_lemmas_are_names_and_their_underscores_are_blanks(tmp_path):
    names = records(wordnet(tmp_path))["n00000005"].names
    assert names == [("Crane", "en", "label"), ("Hart Crane", "en", "label")]


def test_the_label_is_the_lemma_that_texts_use_most(tmp_path):
    assert records(wordnet(tmp_path))["n00000004"].label == "hoisting engine"


def test_without_counts_the_label_is_the_first_lemma(tmp_path):
    folder = wordnet(tmp_path)
    (folder / "cntlist.rev").unlink()
    assert records(folder)["n00000004"].label == "crane"


@pytest.mark.parametrize(
    ("id", "description"),
    [
        ("n00000002", "an animal with wings"),
        ("n00000004", "a machine"),
        ("n00000006", 'a writer of verse, as in "poet"'),
    ],
)
def test_the_description_is_the_gloss_without_its_examples(tmp_path, id, description):
    assert records(wordnet(tmp_path))[id].description == description


def test_types_are_all_hypernyms_the_nearest_first(tmp_path):
    read = records(wordnet(tmp_path))
    assert read["n00000003"].types == ["n00000002", "n00000001"]
    assert read["n00000003"].subclass_of == ["n00000002"]


def test_what_a_synset_is_an_instance_of_is_a_type_of_it(tmp_path):
    assert records(wordnet(tmp_path))["n00000005"].types == ["n00000006", "n00000001"]


@pytest.mark.parametrize(
    ("id", "popularity"),
    [
        ("n00000004", 2 + 5 + 1),  # both lemmas' counts; the first sense of crane
        ("n00000003", 1 / 3),  # the third sense of crane; the verb's count is not its own
        ("n00000005", 1),  # the only sense of Hart Crane
    ],
)
def test_popularity_is_the_counts_and_the_best_rank(tmp_path, id, popularity):
    assert records(wordnet(tmp_path))[id].popularity == popularity


def test_the_preset_image_leaves_out_what_no_photo_shows(tmp_path):
    folder = wordnet(tmp_path)
    assert len(records(folder)) == 9
    assert set(records(folder)) - set(records(folder, "image")) == {"n00000001", "n00000007"}
    assert [(r.reason, r.line, r.text) for r in refused(folder, "image")] == [
        ("not_visible", 2, ""),
        ("not_visible", 8, ""),
    ]


def test_a_sport_is_an_act_that_a_photo_shows(tmp_path):
    assert {"n00000008", "n00000009"} < set(records(wordnet(tmp_path), "image"))


@pytest.mark.parametrize(
    "line",
    [
        "no synset\n",
        "00000010 05 n 01 heron 0 000\n",  # without a gloss
        "00000010 05 n 02 heron 0 000 | a bird\n",  # one lemma too few
        "00000010 05 n 01 heron 0 002 @ 00000002 n 0000 | a bird\n",  # one pointer too few
        "00000010 05 n 00 000 | a bird\n",
        "00000010 29 v 01 fly 0 000 | a verb\n",
        "10 05 n 01 heron 0 000 | a bird\n",
    ],
)
def test_a_damaged_line_costs_itself_alone(tmp_path, line):
    folder = wordnet(tmp_path, line)
    (reject,) = refused(folder)
    assert (reject.reason, reject.line, reject.text) == ("bad_structure", 11, line)
    assert len(records(folder)) == 9


def test_a_second_synset_at_one_place_is_refused(tmp_path):
    folder = wordnet(tmp_path, Synset(3, "05", "stork/0", "another bird").line())
    assert [(r.reason, r.line) for r in refused(folder)] == [("duplicate_id", 11)]
    assert records(folder)["n00000003"].label == "crane"


def test_hypernyms_in_a_circle_end(tmp_path):
    circle = [Synset(10, "05", "a/0", "a", [("@", 11)]), Synset(11, "05", "b/0", "b", [("@", 10)])]
    read = records(wordnet(tmp_path, *(synset.line() for synset in circle)))
    assert read["n00000010"].types == ["n00000011"]


def test_a_missing_index_is_one_sentence(tmp_path):
    folder = wordnet(tmp_path / "wn")
    (folder / "index.noun").unlink()
    with pytest.raises(InputError, match=r"wn has WordNet's data.noun, but no index.noun, which"):
        build_kb(folder, out=tmp_path / "kb")


@pytest.mark.parametrize("line", ["crane n", "crane n many @ 1 1 00000003"])
def test_a_damaged_index_is_named_by_its_line(tmp_path, line):
    folder = wordnet(tmp_path, index=["bird n 1 1 @ 1 1 00000002", line])
    with pytest.raises(InputError, match=r"index.noun is damaged in line 3, 'crane n.*expected"):
        records(folder)


@pytest.mark.parametrize("line", ["crane%1:05:00::", "crane%1:05:00:: 1 often"])
def test_damaged_counts_are_named_by_their_line(tmp_path, line):
    folder = wordnet(tmp_path, counts=[line])
    with pytest.raises(InputError, match=r"cntlist.rev is damaged in line 1, 'crane%1.*expected"):
        records(folder)


def test_a_folder_that_is_not_wordnet_is_told_what_is_expected(tmp_path):
    (tmp_path / "nouns").mkdir()
    with pytest.raises(InputError, match=r"is a folder; expected a Wikidata dump.*data.noun"):
        build_kb(tmp_path / "nouns", out=tmp_path / "kb")


def test_an_empty_database_is_refused(tmp_path):
    folder = wordnet(tmp_path / "wn")
    (folder / "data.noun").write_text(LICENCE)
    with pytest.raises(InputError, match=r"holds no synsets"):
        build_kb(folder, out=tmp_path / "kb")


def test_a_knowledge_base_says_what_it_made_of_wordnet(tmp_path):
    folder = wordnet(tmp_path / "wn", "no synset\n")
    (folder / "cntlist.rev").unlink()
    (source,) = build_kb(folder, out=tmp_path / "kb").sources
    assert (source.kind, source.entities) == ("wordnet", 7)
    assert source.rejected == {"bad_structure": 1, "not_visible": 2}
    assert source.note == "the nouns of WordNet; without counts: no cntlist.rev"
    assert KnowledgeBase.open(tmp_path / "kb").show("n00000003").label == "crane"


@needs_wordnet
@pytest.mark.slow
def test_the_real_wordnet_is_read_whole(tmp_path):
    settings = KBSettings(preset="full")
    summary = build_kb(REAL, out=tmp_path / "kb", settings=settings)
    assert (summary.entities, summary.rejected) == (82_115, {})
    bird = KnowledgeBase.open(tmp_path / "kb").show("n02012849")
    assert (bird.label, bird.names) == ("crane", {"en": ["crane"]})
    assert "n01503061" in bird.types  # bird


@needs_wordnet
@pytest.mark.slow
def test_the_real_crane_is_a_bird_a_machine_two_writers_and_a_constellation():
    senses = {r.id for r in records(REAL, "image").values() if "crane" in str(r.names).lower()}
    assert {"n02012849", "n03126707", "n10914331", "n10914447", "n09295455"} <= senses
