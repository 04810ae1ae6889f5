"""Closed forms against slow references, what is held out in folds, and centred maps in encoders."""

import csv
import importlib
import json

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny_models import write_model

from openmofi.model import load_model, save_model
from openmofi.model.dual import DualModel, unit_power
from openmofi.train import closed_forms as forms_module
from openmofi.train.adapt import Choice, adapt
from openmofi.train.adapt_score import FEW, HeldOutScore, num_folds, split
from openmofi.train.closed_forms import FLOORS, SHRINKAGES, ClosedForm, closed_forms, moments
from openmofi.train.folding import TOLERANCE, can_fold, folded
from openmofi.train.linear_maps import EntityTexts, Maps, unit_floats

QUICK = {"steps": 20, "evaluate_every": 10, "batch_size": 128}


def _labelled(*, count=60, dim=5, classes=6, seed=0):
    """Vectors around class means, off the origin, longer in some directions than in others."""
    random = np.random.default_rng(seed)
    targets = random.permutation(np.arange(count) % classes)
    means = random.normal(size=(classes, dim)) + 1
    vectors = means[targets] + random.normal(size=(count, dim)) * np.linspace(0.2, 1.0, dim)
    return vectors.astype(np.float32), targets


def _found(vectors, targets):
    return moments(vectors, np.arange(len(vectors)), targets)


def _slow_moments(vectors, targets):
    """The mean, and the covariances within and between classes, one image after the other."""
    unit = [np.array(v, float) / np.linalg.norm(np.array(v, float)) for v in vectors.tolist()]
    mean = sum(unit) / len(unit)
    within, between = np.zeros((2, len(mean), len(mean)))
    for target in sorted(set(targets.tolist())):
        own = [x for x, t in zip(unit, targets, strict=True) if t == target]
        centre = sum(own) / len(own)
        for x in own:
            within += np.outer(x - centre, x - centre) / len(unit)
            between += np.outer(centre - mean, centre - mean) / len(unit)
    return mean, within, between


def _slow_forms(vectors, targets):
    """Every map up to its size: roots of matrices in place of eigenvectors."""
    _, within, between = _slow_moments(vectors, targets)
    one = np.eye(len(within))
    yield from ((name, one) for name in ("identity", "centred"))
    for shrinkage in SHRINKAGES:
        ridge = shrinkage * sum(within[i, i] for i in range(len(within))) / len(within)
        whitening = np.linalg.inv(scipy.linalg.sqrtm(within + ridge * one))
        yield f"whitened, shrinkage {shrinkage:g}", whitening
        ratio = whitening @ between @ whitening
        weight = ratio @ np.linalg.inv(ratio + 0.1 * one)
        for floor in FLOORS:
            raised = scipy.linalg.sqrtm(floor * one + weight) @ whitening
            yield f"whitened, shrinkage {shrinkage:g}, floor {floor:g}", raised.real


def test_the_moments_equal_a_slow_count():
    vectors, targets = _labelled()
    found, (mean, within, between) = _found(vectors, targets), _slow_moments(vectors, targets)
    np.testing.assert_allclose(found.mean_D, mean, atol=1e-7)
    np.testing.assert_allclose(found.within_DD, within, atol=1e-7)
    np.testing.assert_allclose(found.between_DD, between, atol=1e-7)


def test_only_the_chosen_rows_count_and_a_class_without_vectors_is_none():
    vectors, targets = _labelled()
    rows = np.flatnonzero(targets != 2)
    found = moments(vectors, rows, targets[rows])
    mean, within, between = _slow_moments(vectors[rows], targets[rows])
    np.testing.assert_allclose(found.mean_D, mean, atol=1e-7)
    np.testing.assert_allclose(found.within_DD, within, atol=1e-7)
    np.testing.assert_allclose(found.between_DD, between, atol=1e-7)


def test_chunks_change_no_moment(monkeypatch):
    vectors, targets = _labelled()
    whole = _found(vectors, targets)
    monkeypatch.setattr(forms_module, "_CHUNK", 7)
    chunked = _found(vectors, targets)
    np.testing.assert_allclose(chunked.within_DD, whole.within_DD, atol=1e-12)
    np.testing.assert_allclose(chunked.between_DD, whole.between_DD, atol=1e-12)


def test_every_closed_form_equals_a_slow_one_of_the_identitys_size():
    vectors, targets = _labelled()
    found, expected = list(closed_forms(_found(vectors, targets), None)), {}
    expected = dict(_slow_forms(vectors, targets))
    assert [form.name for form in found] == list(expected)
    for form in found:
        slow = expected[form.name]
        size = sum(x * x for row in slow.tolist() for x in row) ** 0.5
        scaled = slow * len(slow) ** 0.5 / size
        np.testing.assert_allclose(form.maps.image_DD.numpy(), scaled, atol=1e-5)
        assert form.plain == ("floor" not in form.name)


def test_all_forms_but_the_identity_take_the_mean_off():
    vectors, targets = _labelled()
    found = _found(vectors, targets)
    first, *others = closed_forms(found, None)
    assert first.maps.is_linear
    for form in others:
        np.testing.assert_allclose(form.maps.image_mean_D.numpy(), found.mean_D, atol=1e-6)


def test_texts_go_through_the_images_map_less_their_own_mean_or_stay_as_they_are():
    vectors, targets = _labelled()
    found, text_mean = _found(vectors, targets), np.linspace(0.1, 0.5, 5)
    for alone, both in zip(closed_forms(found, None), closed_forms(found, text_mean), strict=True):
        assert torch.equal(alone.maps.text_DD, torch.eye(5))
        assert not alone.maps.text_mean_D.any()
        if both.name != "identity":
            assert torch.equal(both.maps.text_DD, both.maps.image_DD)
            np.testing.assert_allclose(both.maps.text_mean_D.numpy(), text_mean, atol=1e-7)


@given(st.integers(0, 50), st.integers(2, 8), st.integers(2, 6))
@hypothesis_settings(max_examples=30)
def test_whitening_without_shrinkage_leaves_the_same_spread_within_classes_everywhere(
    seed, dim, classes
):
    vectors, targets = _labelled(count=80, dim=dim, classes=classes, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forms_module, "SHRINKAGES", (1e-9,))
        form = list(closed_forms(_found(vectors, targets), None))[2]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    mapped = (unit - form.maps.image_mean_D.numpy()) @ form.maps.image_DD.double().numpy().T
    inner = np.concatenate([m - m.mean(0) for m in (mapped[targets == t] for t in set(targets))])
    spread = inner.T @ inner
    expected = np.trace(spread) / dim * np.eye(dim)
    # A direction of length 1 has next to no spread in two numbers, and so a great factor.
    np.testing.assert_allclose(spread, expected, atol=0.02 * expected[0, 0])


@given(st.integers(0, 50), st.integers(0, 50))
@hypothesis_settings(max_examples=30)
def test_the_order_of_the_rows_and_the_lengths_of_vectors_change_nothing(seed, order):
    vectors, targets = _labelled(seed=seed)
    random = np.random.default_rng(order)
    turned = random.permutation(len(vectors))
    lengths = random.uniform(0.5, 2, (len(vectors), 1)).astype(np.float32)
    others = closed_forms(_found((vectors * lengths)[turned], targets[turned]), None)
    for form, other in zip(closed_forms(_found(vectors, targets), None), others, strict=True):
        torch.testing.assert_close(form.maps.image_DD, other.maps.image_DD, atol=1e-4, rtol=0)
        torch.testing.assert_close(form.maps.image_mean_D, other.maps.image_mean_D)


def test_a_power_is_taken_of_unit_vectors_which_stay_of_length_one():
    vectors = np.array([[3.0, -4.0, 0.0], [0.0, 0.0, 2.0]], np.float32)
    found = unit_floats(vectors, 0.5).numpy()
    raised = np.array([0.6**0.5, -(0.8**0.5), 0.0])
    np.testing.assert_allclose(found[0], raised / np.linalg.norm(raised), atol=1e-5)
    np.testing.assert_allclose(found[1], [0, 0, 1])


def test_forms_of_a_power_are_those_of_vectors_raised_beforehand():
    vectors, targets = _labelled()
    raised = unit_floats(vectors, 0.7).numpy()
    found = closed_forms(moments(vectors, np.arange(60), targets, power=0.7), None, power=0.7)
    plain = [f for f in closed_forms(_found(raised, targets), None) if "whitened" in f.name]
    for form, other in zip(found, plain, strict=True):
        assert form.name == f"power 0.7, {other.name}"
        torch.testing.assert_close(form.maps.image_DD, other.maps.image_DD, atol=1e-4, rtol=0)
        both = form.maps.apply_to_images(vectors), other.maps.apply_to_images(raised)
        np.testing.assert_allclose(*both, atol=1e-4)


def test_a_power_has_a_finite_slope_where_a_number_is_zero():
    features = torch.tensor([[0.0, 1.0, -1.0]], requires_grad=True)
    unit_power(features, 0.7).sum().backward()
    assert torch.isfinite(features.grad).all()


def test_half_precision_is_read_as_the_numbers_it_holds():
    vectors, targets = _labelled()
    half = vectors.astype(np.float16)
    found, same = _found(half, targets), _found(half.astype(np.float32), targets)
    np.testing.assert_array_equal(found.within_DD, same.within_DD)
    np.testing.assert_allclose(found.within_DD, _found(vectors, targets).within_DD, atol=1e-3)


def test_fewer_vectors_than_dimensions_still_give_finite_maps():
    vectors, targets = _labelled(count=8, dim=30, classes=4)
    for form in closed_forms(_found(vectors, targets), None):
        assert torch.isfinite(form.maps.image_DD).all()


@pytest.mark.parametrize(("entities", "folds"), [(10, 5), (30, 3), (81, 1), (500, 1)])
def test_few_entities_are_split_more_than_once_and_each_time_others_are_held_out(entities, folds):
    targets = np.repeat(np.arange(entities), 6)
    assert num_folds(targets, share=0.1) == folds
    seen: set[int] = set()
    for fold in range(folds):
        parts = split(targets, [f"e{i}" for i in range(entities)], share=0.1, seed=0, fold=fold)
        unseen = set(targets[parts.unseen].tolist())
        assert unseen
        assert not unseen & seen
        assert not unseen & set(targets[np.r_[parts.train, parts.known]].tolist())
        seen |= unseen
    assert len(seen) >= min(20, entities // 2)


def _score(known, unseen):
    return HeldOutScore.of(np.full(4, known), np.full(FEW, unseen))


@pytest.mark.parametrize(
    ("favour", "start", "adapted"),
    [("both", "even", True), ("known", "known alone", True), ("unseen", "unseen alone", True)],
)
def test_what_is_favoured_is_what_is_chosen(favour, start, adapted):
    before = _score(0.5, 0.5)
    choice = Choice(before, before, favour)
    choice.consider(_score(0.9, 0.4), _form("known alone"))  # the best mean but one, and it harms
    choice.consider(_score(0.4, 0.95), _form("unseen alone"))
    choice.consider(_score(0.6, 0.6), _form("even"))
    choice.settle()
    assert (choice.start, choice.adapted) == (start, adapted)


def _form(name, *, plain=False):
    return ClosedForm(name, Maps.identity(2), plain)


@pytest.mark.parametrize(
    ("favour", "number", "form", "steps", "taken"),
    [
        ("both", FEW, _form("raised"), 10, True),
        ("both", FEW - 1, _form("raised"), 10, False),
        ("both", FEW - 1, _form("raised"), 0, False),
        ("unseen", FEW - 1, _form("whitened", plain=True), 10, False),
        ("unseen", FEW - 1, _form("whitened", plain=True), 0, True),
        ("known", 2, _form("raised"), 10, True),
    ],
)
def test_with_few_entities_held_out_no_direction_is_raised(favour, number, form, steps, taken):
    scores = [HeldOutScore.of(np.full(4, s), np.full(number, s)) for s in (0.5, 0.6)]
    choice = Choice(scores[0], scores[0], favour)
    choice.consider(scores[1], form, None, steps)
    choice.settle()
    assert choice.adapted == taken


@pytest.mark.parametrize(
    ("favour", "unseen", "start"),
    [
        ("unseen", [0.6, 0.6], "raised"),  # each gains alike: more than chance
        ("unseen", [0.9, 0.4], "centred"),  # one gains much: chance may have done it
        ("both", [0.9, 0.4], "centred"),
        ("known", [0.6, 0.6], "centred"),  # nothing gained where it counts
    ],
)
def test_what_chance_may_have_done_is_not_taken_but_the_mean_is(favour, unseen, start):
    known = np.full(4, 0.5)
    scores = [HeldOutScore.of(known, np.array(u)) for u in ([0.5, 0.5], unseen)]
    choice = Choice(scores[0], scores[0], favour)
    choice.consider(HeldOutScore.of(known + 0.01, np.full(2, 0.51)), _form("centred", plain=True))
    choice.consider(scores[1], _form("raised", plain=True))
    choice.settle()
    assert (choice.start, choice.adapted) == (start, True)


def test_a_mean_that_gains_nothing_leaves_the_identity():
    scores = [HeldOutScore.of(np.full(4, s), np.full(2, s)) for s in (0.5, 0.4)]
    choice = Choice(scores[0], scores[0], "both")
    choice.consider(scores[1], _form("centred", plain=True))
    choice.settle()
    assert (choice.start, choice.adapted) == ("identity", False)


def _noisy(*, entities=40, each=8, dim=16, seed=0):
    """Vectors off the origin in which four dimensions tell the entity, and the rest is noise."""
    random = np.random.default_rng(seed)
    vectors = 1.5 * random.normal(size=(entities * each, dim)) / dim**0.5
    signal = random.normal(size=(entities, 4))
    signal /= np.linalg.norm(signal, axis=1, keepdims=True)
    vectors[:, :4] = np.repeat(signal, each, 0) + 0.05 * random.normal(size=(len(vectors), 4))
    return (vectors + 0.3).astype(np.float32), np.repeat(np.arange(entities), each)


def _adapt(folder, vectors, labels, *, model=None, texts=None, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "v.npy", vectors)
    (folder / "l.csv").write_text("label\n" + "".join(f"e{label}\n" for label in labels))
    files = {"labels": folder / "l.csv", "texts": texts, "out": folder / "run"}
    return adapt(folder / "v.npy", **files, model=model, changes=QUICK | changes, device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("favour", ["known", "unseen"])
def test_the_favoured_score_is_the_highest_that_was_measured(tmp_path, favour):
    summary = _adapt(tmp_path, *_noisy(), favour=favour)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert summary.after[favour] == max(json.loads(line)[favour] for line in lines)


def _centred_maps(dim, *, seed=3, power=1.0):
    random = torch.Generator().manual_seed(seed)
    square = [torch.eye(dim) + 0.3 * torch.randn(dim, dim, generator=random) for _ in range(2)]
    return Maps(*square, *(torch.randn(2, dim, generator=random) / dim), power, power)


def _by_hand(vectors, map_DD, mean_D, power=1.0):
    """unit(M (unit(x^power) - mean)), in float64."""
    mapped = []
    for x in vectors.astype(float):
        raised = np.sign(x) * np.abs(x) ** power
        centred = raised / np.linalg.norm(raised) - mean_D.double().numpy()
        mapped.append(map_DD.double().numpy() @ centred)
    return np.array([m / np.linalg.norm(m) for m in mapped])


def _image_encoder_alone(folder):
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    small = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ViTConfig(**small, intermediate_size=24, image_size=32, patch_size=16)
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    settings = {"size": {"height": 32, "width": 32}, "do_center_crop": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(params=["nano", "clip", "siglip", "image alone"])
def encoder(request, nano_dir, tmp_path):
    if request.param == "nano":
        return load_model(str(nano_dir), device="cpu")
    write = _image_encoder_alone if request.param == "image alone" else None
    folder = tmp_path / "encoder"
    return load_model(write(folder) if write else write_model(folder, request.param), device="cpu")


def _pixels(model):
    size = model.transform.size
    return np.random.default_rng(5).integers(0, 256, (3, size, size, 3), dtype=np.uint8)


TEXTS = ["a red apple", "lime on the table"]


def _check(model, before, maps):
    """Says whether a model gives the maps behind what another gave."""
    own = before.encode_pixels(_pixels(before))
    expected = _by_hand(own, maps.image_DD, maps.image_mean_D, maps.image_power)
    tolerance = TOLERANCE if maps.is_linear or maps.image_power == 1 else 1e-4  # near 0, see _TINY
    np.testing.assert_allclose(model.encode_pixels(_pixels(before)), expected, atol=tolerance)
    assert model.reads_texts == before.reads_texts
    if before.reads_texts:
        own = before.encode_texts(TEXTS)
        expected = _by_hand(own, maps.text_DD, maps.text_mean_D, maps.text_power)
        np.testing.assert_allclose(model.encode_texts(TEXTS), expected, atol=tolerance)
        assert float(model.logit_scale.detach()) == float(before.logit_scale.detach())


@pytest.mark.parametrize("power", [1.0, 0.7])
def test_a_centred_map_is_folded_exactly_and_so_is_another_behind_it(encoder, tmp_path, power):
    assert can_fold(encoder)
    maps = _centred_maps(encoder.dim, power=power)
    once = folded(encoder, maps)
    assert isinstance(once.network, DualModel)
    _check(once, encoder, maps)
    save_model(once, tmp_path / "saved", card="")
    loaded = load_model(tmp_path / "saved", device="cpu")
    _check(loaded, encoder, maps)
    for seed, centres in ((4, True), (5, False)):
        further = _centred_maps(encoder.dim, seed=seed)
        if not centres:
            further.image_mean_D, further.text_mean_D = torch.zeros(2, encoder.dim)
        _check(folded(loaded, further), loaded, further)


def test_the_encoder_that_was_folded_is_left_as_it_was(encoder):
    before = {name: value.clone() for name, value in encoder.network.state_dict().items()}
    folded(encoder, _centred_maps(encoder.dim))
    after = encoder.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def _maps(folder):
    found = load_file(folder / "run" / "maps.safetensors")
    matrices = (found[name] for name in ("image", "text", "image_mean", "text_mean"))
    return Maps(*matrices, *(float(found[name]) for name in ("image_power", "text_power")))


@pytest.mark.slow
def test_what_was_adapted_loads_and_adapts_again(encoder, tmp_path):
    current = encoder
    for number in range(2):
        folder = tmp_path / str(number)
        vectors, labels = _noisy(dim=encoder.dim, seed=number)
        summary = _adapt(folder, vectors, labels, model=current)
        assert summary.adapted
        assert not _maps(folder).is_linear
        loaded = load_model(folder / "run" / "model", device="cpu")
        _check(loaded, current, _maps(folder))
        current = loaded


def _pictured(*, dim, seed, noise, entities=60, each=8):
    """Images and texts as a dual encoder gives them: a gap between the two, noise on both.

    Sixteen dimensions tell the entity on both sides; the others tell something else.
    """
    random = np.random.default_rng(seed)
    signal = random.normal(size=(entities, 16)) / 4
    gaps = random.normal(size=(2, dim)) / dim**0.5
    texts = 0.6 * random.normal(size=(entities, dim)) / dim**0.5 + gaps[0]
    images = noise * random.normal(size=(entities * each, dim)) / dim**0.5 + gaps[1]
    texts[:, :16] += signal
    images[:, :16] += np.repeat(signal, each, 0)
    labels = np.repeat(np.arange(entities), each)
    return _unit(images), labels, _unit(texts)


def _unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _zero_shot(images, labels, texts):
    """Share of images whose nearest text is their entity's."""
    return float(np.mean([(texts @ x).argmax() == y for x, y in zip(images, labels, strict=True)]))


def _adapt_with_texts(folder, model, monkeypatch, *, seed, noise=1.6):
    """Adapts on half of the entities; returns zero-shot before and after on the others."""
    images, labels, texts = _pictured(dim=model.dim, seed=seed, noise=noise)
    learnt = labels < 30
    encoded = texts[:30].astype(np.float16)
    names = [f"e{i}" for i in range(30)]
    order = np.argsort(names)  # as adapt has the entities
    given = EntityTexts(encoded[None, order], np.arange(30)[None], 20.0)
    module = importlib.import_module("openmofi.train.adapt")  # its name is that of its function
    monkeypatch.setattr(module, "_encode_texts", lambda *_: given)
    folder.mkdir(parents=True)
    with (folder / "texts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "name"), *((name, name) for name in names)])
    summary = _adapt(
        folder, images[learnt], labels[learnt], model=model, texts=folder / "texts.csv"
    )
    maps, own = _maps(folder), labels[~learnt] - 30
    before = _zero_shot(images[~learnt], own, texts[30:])
    mapped = maps.apply_to_images(images[~learnt]), maps.apply_to_texts(texts[30:])
    return summary, before, _zero_shot(mapped[0], own, mapped[1])


@pytest.mark.slow
def test_texts_of_entities_never_seen_still_name_their_images(tmp_path, nano_dir, monkeypatch):
    model = load_model(str(nano_dir), device="cpu")
    summary, before, after = _adapt_with_texts(tmp_path / "a", model, monkeypatch, seed=0)
    assert summary.adapted
    assert not _maps(tmp_path / "a").is_linear
    assert before > 0.9
    assert after >= before
