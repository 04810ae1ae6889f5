"""Readers of hard mentions: trained on a small world of names with two senses each."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel

from model.test_dual import write_text_encoder
from openmofi.cli import main
from openmofi.config import FusionSettings, LinkSettings
from openmofi.errors import InputError, MismatchError, SettingsError
from openmofi.evaluate.linking import evaluate_linking
from openmofi.evaluate.linking_data import read_linking
from openmofi.evaluate.linking_fit import examples_in
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.label.fusion import open_fusion
from openmofi.link import Linker, WordEncoder
from openmofi.link.fusion import HardMentions
from openmofi.model.pointer import (
    VERSION,
    Pointer,
    keep_layers,
    load_pointer,
    tokenise_mentions,
)
from openmofi.model.precision import fast_dtype
from openmofi.train import fusion
from openmofi.train.fusion import fit_fusion
from openmofi.train.fusion_examples import examples_of_descriptions, examples_of_group
from openmofi.train.pointer_training import PointerTraining, listwise_loss
from selected import in_processes

TOPICS = {
    "water": ["river", "fish", "boat", "wet"],
    "money": ["coin", "loan", "pay", "cash"],
    "music": ["song", "drum", "sing", "band"],
    "sky": ["bird", "wing", "fly", "cloud"],
}
NAMES = [f"{first}{second}" for first in "bdfgklmn" for second in ("al", "em", "ir", "os", "un")]
OTHERS = ["old", "the", "near", "our"]
WORDS = sorted({word for words in TOPICS.values() for word in words} | {*OTHERS, *NAMES})
SETTINGS = FusionSettings(epochs=12, learning_rate=2e-3, heads=2, evaluate_every=20)


def write_world(folder: Path) -> None:
    """Writes names of which each has senses of two topics, and texts that tell which.

    A description has two words of its topic, a text another of its words, so they share none.
    """
    rng, rows, lines = np.random.default_rng(0), [], []
    for name in NAMES:
        topics = rng.choice(list(TOPICS), 2, replace=False).tolist()
        for topic in topics:
            described = " ".join(TOPICS[topic][:2])
            rows.append({"id": f"{name}-{topic}", "name": name, "description": described})
            for _ in range(6):
                word = rng.choice(TOPICS[topic][2:])
                around = rng.choice(OTHERS, 2)
                text = f"{around[0]} {name} {word} {around[1]}"
                answer = {"mentions": [name], "entities": [name], "answer": [f"{name}-{topic}"]}
                lines.append({"id": str(len(lines)), "sentence": text, **answer})
    (folder / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    build_kb(folder / "c.jsonl", out=folder / "kb")
    write_text_encoder(folder / "encoder", words=WORDS, max_length=32)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


def fit(world: Path, out: Path, settings: FusionSettings = SETTINGS, encoder: Path | None = None):
    linker = Linker(KnowledgeBase.open(world / "kb"))
    data = [read_linking(world / "texts.jsonl")]
    return fit_fusion(
        linker, data, encoder=encoder or world / "encoder", out=out, settings=settings, device="cpu"
    )


@pytest.fixture(scope="module")
def trained(world):
    return fit(world, world / "pointer")


def linker_of(world: Path, folder: Path, **settings) -> Linker:
    kb = KnowledgeBase.open(world / "kb")
    reader = open_fusion(folder, kb, world, device="cpu")
    return Linker(kb, fusion=reader, settings=LinkSettings(**settings))


def texts_of(world: Path) -> list[str]:
    return [document.text for document in read_linking(world / "texts.jsonl").documents]


@pytest.fixture(scope="module")
def untrained(world):
    fit(world, world / "untrained", replace(SETTINGS, learning_rate=0, epochs=1))
    return world / "untrained"


@pytest.mark.slow
def test_a_reader_learns_what_shared_words_cannot_tell_and_for_unseen_names(trained):
    assert trained.before["accuracy"] < 0.7
    assert trained.after["accuracy"] > 0.9
    assert trained.after["log_likelihood"] > trained.before["log_likelihood"] + 0.2
    assert trained.steps > 0
    assert 0 < trained.held_out < trained.mentions / 4


@pytest.mark.slow
def test_what_is_linked_is_better_by_as_much(world, trained):
    data = read_linking(world / "texts.jsonl")
    without = evaluate_linking(Linker(KnowledgeBase.open(world / "kb")), data)
    found = evaluate_linking(linker_of(world, trained.out, read_above=0), data)
    assert without.accuracy < 0.7
    assert found.accuracy > 0.9


def test_an_untrained_reader_leaves_the_linear_score(world, untrained):
    texts = texts_of(world)[:40]
    plain = Linker(KnowledgeBase.open(world / "kb")).link(texts, all_candidates=True)
    read = linker_of(world, untrained, read_above=0).link(texts, all_candidates=True)
    assert set(read["fusion"].to_pylist()) == {0}
    assert read.drop_columns("fusion").equals(plain)


def test_only_what_is_uncertain_is_read_and_once(world, untrained):
    linker = linker_of(world, untrained, read_above=0.3)
    texts = texts_of(world)[:1] * 5
    assert linker.link(texts)["fusion"].null_count == 0
    assert linker.fusion.num_read == 1
    certain = linker_of(world, untrained, read_above=0.9)
    assert certain.link(texts)["fusion"].null_count == 5
    assert certain.fusion.num_read == 0


def test_equal_captions_are_encoded_once(world, untrained, monkeypatch):
    rows = []
    encode = Pointer.encode_captions
    monkeypatch.setattr(
        Pointer, "encode_captions", lambda *a: rows.append(len(a[1].unique(dim=0))) or encode(*a)
    )
    linker = linker_of(world, untrained, read_above=0)
    linker.link([f"old {NAMES[0]} near {NAMES[1]}", f"our {NAMES[2]}", f"our {NAMES[2]} fish"])
    assert linker.fusion.num_read == 4
    assert sum(rows) == 3


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_short_numbers_hardly_change_what_is_read(world, trained, monkeypatch, dtype):
    texts = texts_of(world)[:60]
    monkeypatch.setattr("openmofi.model.pointer.fast_dtype", lambda device: torch.float32)
    exact = linker_of(world, trained.out, read_above=0).link(texts, all_candidates=True)
    monkeypatch.setattr("openmofi.model.pointer.fast_dtype", lambda device: dtype)
    found = linker_of(world, trained.out, read_above=0).link(texts, all_candidates=True)
    assert np.ptp(exact["fusion"].to_numpy()) > 2
    by_place = [("row", "ascending"), ("start", "ascending"), ("id", "ascending")]
    exact, found = (table.sort_by(by_place)["fusion"].to_numpy() for table in (exact, found))
    assert found == pytest.approx(exact, abs=1e-5 if dtype == torch.float32 else 0.3)


@pytest.mark.parametrize(
    ("able", "expected"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx512_f": True, "avx512_bf16": False}, torch.float32),
    ],
)
def test_only_what_multiplies_short_numbers_is_given_them(monkeypatch, able, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    assert fast_dtype(torch.device("cpu")) == expected


@pytest.mark.slow
def test_a_mention_is_read_alike_whatever_is_read_beside_it(world, trained):
    texts = texts_of(world)
    together = linker_of(world, trained.out, read_above=0).link(texts, all_candidates=True)
    alone = linker_of(world, trained.out, read_above=0)
    for row in (0, 7, 101):
        expected = together.filter(pa.compute.equal(together["row"], row))["fusion"]
        found = alone.link([texts[row]], all_candidates=True)["fusion"]
        assert found.to_pylist() == expected.to_pylist()


def test_what_it_begins_with_is_the_optimum_of_few_numbers(world):
    linker = Linker(KnowledgeBase.open(world / "kb"))
    data = read_linking(world / "texts.jsonl")
    texts = [document.text for document in data.documents]
    examples = examples_of_group(linker, examples_in(linker, data), texts)
    described = examples.texts.described
    learner = PointerTraining(str(world / "encoder"), described, SETTINGS, torch.device("cpu"))
    network = learner.network

    @torch.no_grad()
    def loss() -> float:
        penalty = 1e-3 * float((network.linear.weight.double() ** 2).sum())
        return float(learner.loss(examples).double().mean()) + penalty

    with torch.no_grad():
        assert not learner.network.eval()(*random_inputs(5)).any()  # adds nothing
    before = loss()
    learner.begin(examples)
    best = loss()
    assert best < before
    for number, parameter in ((0, network.closeness), (1, network.linear.weight)):
        for sign in (-1, 1):
            with torch.no_grad():
                parameter.add_(0.03 * sign)
                assert loss() > best, number
                parameter.sub_(0.03 * sign)


# ---- the network -------------------------------------------------------------------------------


def random_pointer(untrained: Path):
    pointer = load_pointer(untrained, device="cpu").network
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in pointer.named_parameters():
            if not name.startswith("encoder."):
                parameter.normal_(std=0.3)
    return pointer.eval()


def random_inputs(width: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    caption, mention = torch.randn(2, 3, 16, generator=generator)
    entity = torch.nn.functional.normalize(torch.randn(3, width, 16, generator=generator), dim=-1)
    features = torch.randn(3, width, 8, generator=generator)
    offered = torch.arange(width) < torch.tensor([[width], [2], [1]])
    return caption, mention, entity, features, offered


def test_the_order_of_the_candidates_changes_nothing(untrained):
    pointer = random_pointer(untrained)
    caption, mention, entity, features, offered = random_inputs(5)
    order = torch.tensor([3, 0, 4, 2, 1])
    with torch.no_grad():
        plain = pointer(caption, mention, entity, features, offered)
        moved = (entity[:, order], features[:, order], offered[:, order])
        found = pointer(caption, mention, *moved)
    assert torch.allclose(found[offered[:, order]], plain[:, order][offered[:, order]], atol=1e-5)


def test_padding_changes_nothing(untrained):
    pointer = random_pointer(untrained)
    caption, mention, entity, features, offered = random_inputs(5)
    with torch.no_grad():
        padded = pointer(caption, mention, entity, features, offered)
        short = pointer(
            caption[1:2], mention[1:2], entity[1:2, :2], features[1:2, :2], offered[1:2, :2]
        )
    assert torch.allclose(padded[1, :2], short[0], atol=1e-5)


def slow_pointer(pointer, caption, mention, entity, features) -> list[float]:
    """The same of one mention, a row at a time, in numpy."""

    def array(name):
        return dict(pointer.named_parameters())[name].detach().double().numpy()

    def unit(x):
        return x / np.linalg.norm(x)

    def norm(x, name):
        scaled = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
        return scaled * array(f"{name}.weight") + array(f"{name}.bias")

    def gelu(x):
        return np.array([v * (1 + torch.erf(torch.tensor(v / 2**0.5)).item()) / 2 for v in x])

    entity = [unit(array("entity.weight") @ one) for one in entity]
    query = unit(array("query.weight") @ np.r_[caption, mention] + array("query.bias"))
    closeness = np.array([20 * query @ one for one in entity])
    closeness -= closeness.mean()
    role = array("role")
    rows = [unit(caption) + role[0], unit(mention) + role[1], role[2]]
    for one, told, near in zip(entity, features, closeness, strict=True):
        learnt = array("features.weight") @ (np.r_[told, near] / 4) + array("features.bias")
        rows.append(one + np.tanh(learnt) + role[3])
    heads, width = pointer.shape.heads, len(caption)
    for layer in range(pointer.shape.layers):
        at = f"attention.layers.{layer}"
        normed = [norm(row, f"{at}.norm1") for row in rows]
        weight, bias = (
            array(f"{at}.self_attn.in_proj_weight"),
            array(f"{at}.self_attn.in_proj_bias"),
        )
        q, k, v = (
            [
                weight[i * width : (i + 1) * width] @ x + bias[i * width : (i + 1) * width]
                for x in normed
            ]
            for i in range(3)
        )
        after = []
        for i, row in enumerate(rows):
            parts = []
            for head in range(heads):
                own = slice(head * width // heads, (head + 1) * width // heads)
                logit = np.array([q[i][own] @ k[j][own] for j in range(len(rows))])
                share = np.exp(logit / (width // heads) ** 0.5)
                share /= share.sum()
                parts.append(sum(s * v[j][own] for j, s in enumerate(share)))
            out = array(f"{at}.self_attn.out_proj.weight") @ np.concatenate(parts)
            row = row + out + array(f"{at}.self_attn.out_proj.bias")
            inner = array(f"{at}.linear1.weight") @ norm(row, f"{at}.norm2")
            inner = gelu(inner + array(f"{at}.linear1.bias"))
            after.append(row + array(f"{at}.linear2.weight") @ inner + array(f"{at}.linear2.bias"))
        rows = after
    score = [float(array("head.weight")[0] @ row) for row in rows]
    corrected = [float(array("linear.weight")[0] @ one) for one in features]
    near = float(array("closeness")) * closeness
    parts = zip(near, corrected, score[3:], strict=True)
    return [close + linear + own - score[2] for close, linear, own in parts]


def test_the_network_is_a_slow_one(untrained):
    pointer = random_pointer(untrained)
    caption, mention, entity, features, offered = random_inputs(5)
    with torch.no_grad():
        found = pointer(caption, mention, entity, features, offered)
    for row in range(3):
        kept = offered[row]
        arrays = (caption[row], mention[row], entity[row, kept], features[row, kept])
        expected = slow_pointer(pointer, *(part.double().numpy() for part in arrays))
        assert found[row, kept].tolist() == pytest.approx(expected, abs=1e-4)


def test_the_mention_is_found_among_the_tokens(untrained):
    tokenizer = load_pointer(untrained, device="cpu").captions.tokenizer
    text = "x " * 600 + "old boat near"
    start = text.index("boat")
    one = np.array([start]), np.array([start + 4])
    nothing = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 8), np.float32)
    for most in (8, 128):
        read = tokenise_mentions(tokenizer, HardMentions([text], *one, *nothing), most=most)
        assert read.tokens_BL.shape[1] <= most
        assert tokenizer.decode(read.tokens_BL[0][read.inside_BL[0]]) == "boat"


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "mpnet", "modernbert"])
def test_of_six_layers_every_second_is_kept(kind):
    sizes = {"vocab_size": 60, "hidden_size": 16, "num_attention_heads": 2}
    sizes |= {"num_hidden_layers": 6, "intermediate_size": 32, "pad_token_id": 0}
    encoder = AutoModel.from_config(AutoConfig.for_model(kind, **sizes)).eval()
    whole = {id(parameter) for parameter in encoder.parameters()}
    keep_layers(encoder, 3)
    found = encoder(input_ids=torch.ones(1, 4, dtype=torch.long), output_hidden_states=True)
    assert len(found.hidden_states) == 4
    names = [name for name, _ in encoder.named_parameters() if ".2." in name]
    assert names
    assert not any(".3." in name for name, _ in encoder.named_parameters())
    assert {id(parameter) for parameter in encoder.parameters()} < whole
    with pytest.raises(SettingsError, match="cannot be 4; the text encoder has 3 layers"):
        keep_layers(encoder, 4)


def test_a_reader_of_fewer_layers_learns_and_loads(world, tmp_path):
    write_text_encoder(tmp_path / "deep", words=WORDS, max_length=32, layers=3)
    settings = replace(SETTINGS, text_layers=1, epochs=2)
    fit(world, tmp_path / "p", settings, encoder=tmp_path / "deep")
    loaded = load_pointer(tmp_path / "p", device="cpu")
    layers = [
        one.network.text_model.config.num_hidden_layers
        for one in (loaded.captions, loaded.entities)
    ]
    assert layers == [1, 3]


def test_of_many_probable_candidates_those_that_are_kept_share_what_is_meant(world):
    linker, data = Linker(KnowledgeBase.open(world / "kb")), read_linking(world / "texts.jsonl")
    examples = examples_of_group(
        linker, examples_in(linker, data), [d.text for d in data.documents]
    )
    soft = replace(examples, target=np.where(examples.target > 0, 0.6, 0.4))
    rows = np.array([3, 1])
    assert soft.some(rows).target.reshape(2, 2).sum(1) == pytest.approx([1, 1])
    assert soft.some(rows, 1).target.tolist() == [1.0, 1.0]
    nothing = replace(examples, target=np.zeros(len(examples.target)))
    assert nothing.some(rows, 1).target.tolist() == [0.0, 0.0]


# ---- the loss ----------------------------------------------------------------------------------


def slow_loss(logit, linear, target, knows_nil) -> float:
    def share(values):
        weights = np.exp([0.0, *values])
        return weights / weights.sum()

    def cross_entropy(truth, found):
        return -sum(t * np.log(p) for t, p in zip(truth, found, strict=True) if t)

    after, before = share(logit), share(linear)
    if knows_nil:
        return cross_entropy([1 - sum(target), *target], after)
    moved = sum(
        b * np.log(b / a) for b, a in ((before[0], after[0]), (1 - before[0], 1 - after[0]))
    )
    return cross_entropy(target, after[1:] / after[1:].sum()) + moved


@pytest.mark.parametrize(
    ("knows_nil", "target"),
    [
        *[(nil, own) for nil in (True, False) for own in ([1.0, 0.0, 0.0], [0.0, 0.25, 0.75])],
        (True, [0.0] * 3),
    ],
)
def test_the_loss_is_a_slow_one(knows_nil, target):
    logit, linear = [0.3, -2.0, 1.5], [1.0, 0.2, -0.4]
    offered = [[True] * 3 + [False]]
    padded = ([*values, 77.0] for values in (logit, linear))
    found = listwise_loss(
        *(torch.tensor([values]) for values in padded),
        torch.tensor([[*target, 0.0]]),
        torch.tensor(offered),
        torch.tensor([knows_nil]),
    )
    assert found.item() == pytest.approx(slow_loss(logit, linear, target, knows_nil), abs=1e-5)


def test_where_nil_is_annotated_the_reader_learns_it(world, tmp_path):
    lines = []
    for number, name in enumerate(NAMES * 4):
        topic, means = ("old our", None) if number % 2 else ("boat wet", "water")
        text = f"near {name} {topic}"
        at = text.index(name)
        label = {"id": 0, "span": [at, at + len(name)], "name": name, "type": ""}
        label["entity_id"] = f"{name}-{means}" if means else "<NIL>"
        lines.append({"id": str(number), "text": text, "labels": [label]})
    (tmp_path / "elevant_texts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    linker = Linker(KnowledgeBase.open(world / "kb"))
    data = [read_linking(tmp_path / "elevant_texts.jsonl")]
    settings = replace(SETTINGS, epochs=20)
    found = fit_fusion(
        linker, data, encoder=world / "encoder", out=tmp_path / "p", settings=settings, device="cpu"
    )
    assert found.nil >= 80
    assert found.after["accuracy"] > found.before["accuracy"] + 0.1


# ---- going on ----------------------------------------------------------------------------------


def test_an_interrupted_training_ends_with_the_same_bits(world, tmp_path, monkeypatch):
    settings = replace(SETTINGS, epochs=2)
    whole = fit(world, tmp_path / "whole", settings)
    save, saved = fusion._Training.save, []

    def killed(run, path, described):
        save(run, path, described)
        saved.append(run.step)
        if len(saved) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(fusion._Training, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(world, tmp_path / "again", settings)
    assert not (tmp_path / "again").exists()
    again = fit(world, tmp_path / "again", settings)
    assert saved[0] == 20
    assert again == replace(whole, out=tmp_path / "again")
    files = sorted(path.name for path in whole.out.glob("*.safetensors"))
    assert len(files) == 2
    for name in (*files, "metrics.jsonl"):
        assert (whole.out / name).read_bytes() == (again.out / name).read_bytes()
    assert not (tmp_path / ".again.training").exists()


def test_other_settings_do_not_go_on(world, tmp_path, monkeypatch):
    save = fusion._Training.save

    def killed(run, path, described):
        save(run, path, described)
        raise KeyboardInterrupt

    monkeypatch.setattr(fusion._Training, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(world, tmp_path / "p", replace(SETTINGS, epochs=2))
    with pytest.raises(MismatchError, match=r"interrupted training with other settings"):
        fit(world, tmp_path / "p", replace(SETTINGS, epochs=3))
    # The same texts, of which another linear score thinks otherwise.
    kb = KnowledgeBase.open(world / "kb")
    data = [read_linking(world / "texts.jsonl")]
    where = {"encoder": world / "encoder", "out": tmp_path / "p", "device": "cpu"}
    with pytest.raises(MismatchError, match=r"interrupted training with other examples"):
        fit_fusion(Linker(kb, encoder=WordEncoder(kb)), data, settings=SETTINGS, **where)


def fit_in_a_process(world: Path, out: Path, settings: FusionSettings) -> None:
    fit(world, out, settings)


@pytest.mark.slow
def test_two_processes_train_the_reader_that_one_trains(world, tmp_path):
    own = shutil.copytree(world, tmp_path / "world")
    # What a step leaves out is another thing in each process.
    config = json.loads((own / "encoder" / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0}
    (own / "encoder" / "config.json").write_text(json.dumps(config))
    settings = replace(SETTINGS, epochs=2, dropout=0)
    one = fit(own, tmp_path / "one", settings)
    in_processes(2, fit_in_a_process, own, tmp_path / "two", settings)
    two = load_file(tmp_path / "two" / "pointer.safetensors")
    for name, value in load_file(one.out / "pointer.safetensors").items():
        # A bias of all keys changes no attention, so that its gradient is rounding.
        assert "in_proj_bias" in name or torch.allclose(value, two[name], atol=5e-3), name
    card = json.loads((tmp_path / "two" / "fusion.json").read_text())
    assert card["processes"] == 2
    assert card["after"] == pytest.approx(one.after, abs=2e-3)


# ---- descriptions ------------------------------------------------------------------------------

LAKES = """id,name,description,type
lake,lake,a body of water,
colour,lake,a purplish red,
alps,alps,mountains,
ammer,Ammersee,lake near the alps,lake
como,Como,a deep lake,lake
red,Red Lake,a colour and a lake,colour
both,Both,a lake,lake|colour
"""


def described(folder: Path, **changes):
    (folder / "c.csv").write_text(LAKES)
    build_kb(folder / "c.csv", out=folder / "kb")
    linker = Linker(KnowledgeBase.open(folder / "kb"))
    return examples_of_descriptions(linker, **{"most": 100, **changes})


def test_a_name_in_a_description_means_the_type_of_what_is_described(tmp_path):
    found = described(tmp_path)
    # Not «alps», which has one meaning, nor what could mean either type.
    assert sorted(found.mentions.texts) == [
        "a colour and a lake",
        "a deep lake",
        "lake near the alps",
    ]
    meant = {}
    for row, text in enumerate(found.mentions.texts):
        own = slice(found.begin[row], found.begin[row + 1])
        (entity,) = found.mentions.entity[own][found.target[own] > 0]
        meant[text] = found.texts.ids[entity]
        assert len(found.target[own]) == 2
    assert meant["a deep lake"] == meant["lake near the alps"] == "lake"
    assert meant["a colour and a lake"] == "colour"
    assert not found.knows_nil.any()
    assert set(found.names) == {"lake"}


def test_descriptions_are_capped_and_filtered(tmp_path, monkeypatch):
    assert len(described(tmp_path, most=1)) == 1
    assert len(described(tmp_path, keep=lambda name: name != "lake")) == 0
    monkeypatch.setattr("openmofi.train.fusion_examples._PER_SENSE", 1)
    assert len(described(tmp_path)) == 2


# ---- refusals and the command line -------------------------------------------------------------


def test_what_is_no_reader_is_refused_in_one_sentence(world, untrained, tmp_path):
    kb = KnowledgeBase.open(world / "kb")
    with pytest.raises(InputError, match=r"holds no fusion reader.*kb fit --fusion"):
        open_fusion(world / "encoder", kb, tmp_path / "v")
    card = json.loads((untrained / "fusion.json").read_text())
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "fusion.json").write_text(json.dumps({**card, "version": VERSION + 1}))
    with pytest.raises(InputError, match=rf"version {VERSION + 1}.*train it again"):
        open_fusion(copy, kb, tmp_path / "v")


def test_weights_of_ones_own_are_refused_beside_a_reader(world, untrained):
    kb = KnowledgeBase.open(world / "kb")
    reader = open_fusion(untrained, kb, world, device="cpu")
    with pytest.raises(SettingsError, match="leave out --weights"):
        Linker(kb, fusion=reader, settings=LinkSettings(weights="w.json"))


def test_damaged_weights_are_refused(untrained, tmp_path):
    shutil.copytree(untrained, tmp_path / "p")
    (tmp_path / "p" / "pointer.safetensors").write_bytes(b"12")
    with pytest.raises(InputError, match="is damaged"):
        load_pointer(tmp_path / "p", device="cpu")


def test_a_dual_encoder_and_too_few_texts_are_refused(world, tmp_path, nano_dir):
    linker, data = Linker(KnowledgeBase.open(world / "kb")), read_linking(world / "texts.jsonl")
    with pytest.raises(InputError, match="is a dual encoder"):
        fit_fusion(linker, [data], encoder=nano_dir, out=tmp_path / "p", device="cpu")
    with pytest.raises(SettingsError, match="'heads' cannot be 5; expected a divisor of 16"):
        fit(world, tmp_path / "p", replace(SETTINGS, heads=5))
    few = replace(data, documents=data.documents[:50])
    with pytest.raises(InputError, match=r"has 50 mentions.*needs 100"):
        fit_fusion(linker, [few], encoder=world / "encoder", out=tmp_path / "p", device="cpu")


def test_an_encoder_of_few_positions_reads_long_captions(world, untrained, tmp_path):
    short = shutil.copytree(untrained, tmp_path / "short")
    for folder in (short, short / "entities"):
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config["model_max_length"] = 12
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    linker = linker_of(world, short, read_above=0)
    found = linker.link(["old " * 200 + "bal boat " + "near " * 200])
    assert found["fusion"].null_count == 0
    assert len(found) == 1


def test_settings_of_a_reader_without_one_are_refused(world, tmp_path, capsys):
    line = ["kb", "fit", str(world / "texts.jsonl"), "--kb", str(world / "kb")]
    with pytest.raises(SystemExit):
        main([*line, "--out", str(tmp_path / "w.json"), "--set", "epochs=1"])
    assert "add --fusion ENCODER" in capsys.readouterr().err


def run(capsys, *line: str) -> list | dict:
    with pytest.raises(SystemExit) as ended:
        main([*line, "--json"])
    assert not ended.value.code
    return json.loads(capsys.readouterr().out)


def test_the_command_line_trains_links_and_measures(world, tmp_path, capsys):
    where, out = ["--kb", str(world / "kb")], str(tmp_path / "reader")
    reader = ["--fusion", str(world / "encoder"), "--set", "epochs=1", "--set", "heads=2"]
    data, count = str(world / "texts.jsonl"), len(NAMES) * 12
    summary = run(capsys, "kb", "fit", data, *where, *reader, "--out", out, "--device", "cpu")
    assert summary["mentions"] == count
    use = [*where, "--fusion", out, "--read-above", "0"]
    (found,) = run(capsys, "link", "the bal boat", *use)
    assert isinstance(found["fusion"], float)
    (measured,) = run(capsys, "evaluate", "linking", "--data", data, *use)
    assert measured["mentions"] == count
