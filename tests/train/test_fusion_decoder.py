"""Fusion decoders: forced decoding against a token-by-token one, and a small one that learns."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from openmofi.cli import main
from openmofi.config import LinkSettings
from openmofi.errors import InputError, SettingsError
from openmofi.evaluate.linking_data import read_linking
from openmofi.kb import KnowledgeBase
from openmofi.label.fusion import check_fusion, open_fusion
from openmofi.link import Linker
from openmofi.link.fusion import CandidateTexts, HardMentions
from openmofi.model.fusion_decoder import FusionDecoder, load_encoder_decoder
from openmofi.model.pointer import load_pointer
from openmofi.train.fusion import fit_fusion
from train.test_fusion import NAMES, SETTINGS, TOPICS, WORDS, run, write_world

VOCABULARY = [*WORDS, *TOPICS, "(", ")", "-", ":", "Q", "1"]


def write_encoder_decoder(folder, kind="t5"):
    """Writes a small T5 or BART and its tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        BartConfig,
        BartForConditionalGeneration,
        PreTrainedTokenizerFast,
        T5Config,
        T5ForConditionalGeneration,
    )

    torch.manual_seed(5)
    known = {word: n for n, word in enumerate(["<pad>", "</s>", "<unk>", *VOCABULARY])}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "vocab_size": len(known)}
    if kind == "t5":
        config = T5Config(
            d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4, dropout_rate=0,
            decoder_start_token_id=0, **ids,
        )  # fmt: skip
        network = T5ForConditionalGeneration(config)
    else:
        config = BartConfig(
            d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, dropout=0,
            max_position_embeddings=64, decoder_start_token_id=1, bos_token_id=1,
            forced_eos_token_id=None, **ids,
        )  # fmt: skip
        network = BartForConditionalGeneration(config)
    network.save_pretrained(folder)
    backend = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()]
    )
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **names)
    tokenizer.save_pretrained(folder)
    return folder


PASSAGES = ["old <s1> bal <e1> boat bal: river fish", "old <s1> bal <e1> boat loan: pay", "bal"]
TITLES = ["bal", "loan pay (Q1)", "river"]


@pytest.fixture(scope="module", params=["t5", "bart"])
def decoder(request, tmp_path_factory) -> FusionDecoder:
    folder = write_encoder_decoder(tmp_path_factory.mktemp("ed"), request.param)
    loaded = load_encoder_decoder(str(folder), device="cpu")
    loaded.network.eval()
    return loaded


def slow_log_probability(decoder: FusionDecoder, passages: list[str], title: str) -> float:
    """Encodes passage by passage, and spells the title token by token."""
    network, tokenizer = decoder.network, decoder.tokenizer
    parts = [
        network.get_encoder()(input_ids=torch.tensor([tokenizer(text)["input_ids"]]))[0][0]
        for text in passages
    ]
    from transformers.modeling_outputs import BaseModelOutput

    encoded = BaseModelOutput(last_hidden_state=torch.cat(parts)[None])
    spelt, total = [network.config.decoder_start_token_id], 0.0
    for token in tokenizer(title)["input_ids"]:
        found = network(encoder_outputs=encoded, decoder_input_ids=torch.tensor([spelt]))
        total += float(found.logits[0, -1].double().log_softmax(-1)[token])
        spelt.append(token)
    return total


@torch.no_grad()
def test_forced_decoding_equals_spelling_token_by_token(decoder):
    states, mask = decoder.encode([PASSAGES, PASSAGES[:2]])
    for number, passages in enumerate((PASSAGES, PASSAGES[:2])):
        for title in TITLES:
            one = decoder.log_probability(states[[number]], mask[[number]], [title])
            expected = slow_log_probability(decoder, passages, title)
            assert float(one) == pytest.approx(expected, abs=1e-4)
    together = decoder.log_probability(states[[0, 0, 0]], mask[[0, 0, 0]], TITLES)
    slow = [slow_log_probability(decoder, PASSAGES, title) for title in TITLES]
    assert together.tolist() == pytest.approx(slow, abs=1e-4)


@torch.no_grad()
def test_shares_are_among_the_candidates_in_whatever_order(decoder):
    found = decoder.log_shares(PASSAGES, TITLES)
    assert float(found.exp().sum()) == pytest.approx(1, abs=1e-5)
    order = [2, 0, 1]
    moved = decoder.log_shares([PASSAGES[i] for i in order], [TITLES[i] for i in order])
    assert moved.tolist() == pytest.approx([float(found[i]) for i in order], abs=1e-4)


def test_passages_mark_the_mention_and_equal_titles_have_their_ids(decoder):
    nothing = np.zeros((3, 8), np.float32)
    spans = np.array([4]), np.array([7])
    mentions = HardMentions(
        ["old bal boat"], *spans, np.zeros(3, int), np.array([2, 0, 1]), nothing
    )
    texts = CandidateTexts(
        ["Q1", "Q2", "Q3"], ["Bal", "Bal", "Other"], ["Bal: a", "Bal: b", "Other"]
    )
    passages, titles = decoder.passages_of(mentions, texts)
    marked = "old <s1> bal <e1> boat"
    assert passages == [[f"{marked} Other", f"{marked} Bal: a", f"{marked} Bal: b"]]
    assert titles == [["Other", "Bal (Q1)", "Bal (Q2)"]]


def test_of_a_long_caption_as_much_is_read_as_leaves_room_for_the_candidate(decoder):
    text = "old " * 60 + "bal boat" + " near" * 60
    spans, nothing = (np.array([240]), np.array([243])), np.zeros((2, 8), np.float32)
    mentions = HardMentions([text], *spans, np.zeros(2, int), np.arange(2), nothing)
    described = ["Bal: river", "Bal: loan"]
    texts = CandidateTexts(["Q1", "Q2"], ["Bal", "Other"], described)
    ((*passages,),), _ = decoder.passages_of(mentions, texts)
    for passage, words in zip(passages, described, strict=True):
        assert "<s1> bal <e1>" in passage
        assert passage.endswith(words)
        assert 20 < len(decoder.tokenizer(passage)["input_ids"]) <= 64


def test_an_encoder_without_its_decoder_is_refused(tmp_path):
    from transformers import AutoModelForSeq2SeqLM

    write_encoder_decoder(tmp_path)
    network = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    weights = {n: w for n, w in network.state_dict().items() if not n.startswith("decoder.block")}
    save_file({n: w.clone() for n, w in weights.items()}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"lacks weights.*such as decoder.block"):
        load_encoder_decoder(str(tmp_path), device="cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


@pytest.mark.slow
def test_a_decoder_learns_keeps_nil_and_is_a_directory_of_hugging_face(world, tmp_path):
    from transformers import AutoModelForSeq2SeqLM

    kb, data = KnowledgeBase.open(world / "kb"), read_linking(world / "texts.jsonl")
    encoder = write_encoder_decoder(tmp_path / "t5")
    settings = replace(SETTINGS, epochs=2)
    where = {"encoder": encoder, "out": tmp_path / "reader", "device": "cpu"}
    with pytest.raises(SettingsError, match="'text_layers' is for pointers"):
        fit_fusion(Linker(kb), [data], settings=replace(settings, text_layers=1), **where)
    found = fit_fusion(Linker(kb), [data], settings=settings, **where)
    assert found.mentions == len(NAMES) * 12
    log = [json.loads(line) for line in (found.out / "metrics.jsonl").read_text().splitlines()]
    assert max(line["log_likelihood"] for line in log[1:]) > log[0]["log_likelihood"]
    check_fusion(found.out, standardised=False)
    AutoModelForSeq2SeqLM.from_pretrained(found.out)
    reader = open_fusion(found.out, kb, tmp_path / "unused", device="cpu")
    texts = [document.text for document in data.documents[:20]]
    linker = Linker(kb, fusion=reader, settings=LinkSettings(read_above=0))
    read = linker.link(texts, all_candidates=True)
    plain = Linker(kb).link(texts, all_candidates=True)
    assert any(read["fusion"].to_pylist())
    total, before = (
        table.group_by(["row", "start"]).aggregate([("score", "sum")])["score_sum"].to_pylist()
        for table in (read, plain)
    )
    assert total == pytest.approx(before, abs=1e-4)


def test_the_command_line_uses_a_decoder(world, tmp_path, capsys):
    encoder, where = write_encoder_decoder(tmp_path / "t5"), ["--kb", str(world / "kb")]
    data, out = str(world / "texts.jsonl"), str(tmp_path / "reader")
    fit = ["--fusion", str(encoder), "--set", "epochs=1", "--set", "batch_size=256"]
    run(capsys, "kb", "fit", data, *where, *fit, "--out", out, "--device", "cpu")
    (found,) = run(capsys, "link", "the bal boat", *where, "--fusion", out, "--read-above", "0")
    assert isinstance(found["fusion"], float)
    with pytest.raises(SystemExit):
        main(["link", "the bal boat", *where, "--fusion", str(tmp_path / "nowhere")])
    assert "holds no fusion reader" in capsys.readouterr().err


def test_one_reader_is_not_taken_for_another(world, tmp_path):
    kb, data = KnowledgeBase.open(world / "kb"), read_linking(world / "texts.jsonl")
    encoder = write_encoder_decoder(tmp_path / "t5")
    where = {"encoder": encoder, "out": tmp_path / "reader", "device": "cpu"}
    settings = replace(SETTINGS, epochs=1, learning_rate=0, batch_size=256)
    fit_fusion(Linker(kb), [data], settings=settings, **where)
    with pytest.raises(InputError, match=r"holds a decoder of version 2.* reads a pointer"):
        load_pointer(tmp_path / "reader")
    (tmp_path / "reader" / "model.safetensors").write_bytes(b"1")
    with pytest.raises(InputError, match="is damaged"):
        open_fusion(tmp_path / "reader", kb, tmp_path / "v", device="cpu")
