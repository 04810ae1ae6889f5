"""A Hugging Face token classifier as mention detector; a tiny one with weights set by hand."""

import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

from openmofi.errors import InputError
from openmofi.link.detectors import DETECTED
from openmofi.model.mentions import TokenClassificationDetector, Word, spans_of

LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
TAGGED = {"Ada": 1, "Love": 2, "Par": 3, "Rome": 3, "York": 4, "New": 3}
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *TAGGED, "##lace", "##is", "in", "and"]
WINDOW = 24


@pytest.fixture(scope="session")
def tagger(tmp_path_factory):
    """A BERT whose classifier reads the label off the token's own embedding."""
    folder = tmp_path_factory.mktemp("tagger")
    ids = {piece: i for i, piece in enumerate(PIECES)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=special
    )
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=WINDOW, sep_token="[SEP]", **names
    )
    fast.save_pretrained(folder)
    _network(ids).save_pretrained(folder)
    return folder


def _network(ids):
    config = BertConfig(
        vocab_size=len(ids),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
    )
    torch.manual_seed(0)
    network = BertForTokenClassification(config)
    layer, embeddings = network.bert.encoder.layer[0], network.bert.embeddings
    with torch.no_grad():
        for silent in (
            layer.attention.output.dense,
            layer.output.dense,
            embeddings.position_embeddings,
            embeddings.token_type_embeddings,
        ):
            for parameter in silent.parameters():
                parameter.zero_()
        embeddings.word_embeddings.weight.zero_()
        for piece, number in ids.items():
            embeddings.word_embeddings.weight[number, TAGGED.get(piece, 0)] = 1.0
        network.classifier.weight.copy_(torch.eye(len(LABELS), 16) * 5)
        network.classifier.bias.zero_()
    return network


def found(detector, *captions):
    table = detector.detect(pa.array(captions, pa.string()))
    assert table.schema == DETECTED
    return [
        (r["row"], captions[r["row"]][r["start"] : r["end"]], r["label"]) for r in table.to_pylist()
    ]


def test_words_are_joined_into_names(tagger):
    detector = TokenClassificationDetector(str(tagger))
    text = "Ada Lovelace in Paris and New York"
    expected = [(0, "Ada Lovelace", "PER"), (0, "Paris", "LOC"), (0, "New York", "LOC")]
    assert found(detector, text) == expected


def test_spans_are_code_points_and_rows_are_the_callers(tagger):
    detector = TokenClassificationDetector(str(tagger), batch_size=2)
    captions = (None, "🦊𝒳 Ada", "", "in and in", "Rome, Paris")
    expected = [(1, "Ada", "PER"), (4, "Rome", "LOC"), (4, "Paris", "LOC")]
    assert found(detector, *captions) == expected


def test_long_captions_are_read_in_windows_to_their_end(tagger):
    detector = TokenClassificationDetector(str(tagger))
    words = ["in"] * 300
    for at in (0, 21, 22, 23, 40, 150, 299):
        words[at] = "Paris"
    assert len(found(detector, " ".join(words))) == 7


@pytest.mark.parametrize("shift", range(0, 24, 3))
def test_a_name_is_not_cut_where_a_window_ends(tagger, shift):
    detector = TokenClassificationDetector(str(tagger))
    text = " ".join(["and"] * shift + ["Ada Lovelace in New York"] * 6)
    assert [name for _, name, _ in found(detector, text)] == ["Ada Lovelace", "New York"] * 6


def test_scores_are_probabilities(tagger):
    table = TokenClassificationDetector(str(tagger)).detect(pa.array(["Ada in Rome"]))
    assert all(0.9 < score <= 1 for score in table["score"].to_pylist())


def test_no_captions_give_no_spans(tagger):
    detector = TokenClassificationDetector(str(tagger))
    assert found(detector) == []


SCHEMES = [
    ("B-A I-A O B-A", [(0, 2, "A"), (3, 4, "A")]),
    ("B-A B-A I-B", [(0, 1, "A"), (1, 2, "A"), (2, 3, "B")]),
    ("I-A I-A O I-A", [(0, 2, "A"), (3, 4, "A")]),
    ("B-A I-A L-A U-A O", [(0, 3, "A"), (3, 4, "A")]),
    ("S-A S-A B-A E-A I-A", [(0, 1, "A"), (1, 2, "A"), (2, 4, "A"), (4, 5, "A")]),
    ("PER PER o LOC", [(0, 2, "PER"), (3, 4, "LOC")]),
    ("B_A I_A", [(0, 2, "A")]),
    ("", []),
]


@pytest.mark.parametrize(("labels", "expected"), SCHEMES)
def test_label_schemes(labels, expected):
    words = [Word(i, i + 1, label, 0.5, 0) for i, label in enumerate(labels.split())]
    assert [span[:3] for span in spans_of(words)] == expected


def test_a_directory_without_a_classifier_is_refused(tmp_path):
    with pytest.raises(InputError, match="Cannot load a token classifier"):
        TokenClassificationDetector(str(tmp_path))
