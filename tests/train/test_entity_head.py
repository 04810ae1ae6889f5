"""The class head on one rank, against slow references that share no code with it."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.nn import functional as F

from openmofi.config import HeadSettings
from openmofi.errors import InputError, MismatchError
from openmofi.model.class_rows import load_head_rows, load_image_counts
from openmofi.train import entity_head, head_files
from openmofi.train.entity_head import EntityHead
from openmofi.train.head_files import save_head
from waiting import RefuseToWait

_OPTIMIZERS = ["lazy-adam", "row-adam", "row-adagrad", "sgd"]


def _images(count, dim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dim, generator=generator), dim=-1)


def _trained(head, images, targets, *, steps=3, learning_rate=0.05, skip=None):
    for step in range(steps):
        loss, _ = head.loss(images.detach().requires_grad_(), targets, step=step)
        loss.backward()
        head.step(learning_rate=learning_rate, skip=skip)
    return head


def _slow_margin(loss, cosine, margin):
    if loss == "arcface":
        inside = math.acos(cosine) + margin < math.pi
        beyond = cosine - margin * math.sin(margin)
        return math.cos(math.acos(cosine) + margin) if inside else beyond
    return cosine - margin if loss == "cosface" else cosine


def _slow_loss(images, rows, targets, options, log_q=None):
    """Mean cross entropy over the classes of log_q (default: all), one number after the other."""
    log_q, total = log_q or dict.fromkeys(range(len(rows)), 0.0), 0.0
    rows = rows.tolist()
    for image, (target, *others) in zip(images.tolist(), targets.tolist(), strict=True):
        logits = {}
        for number, correction in log_q.items():
            if number == target or number not in others:
                cosine = sum(a * b for a, b in zip(image, rows[number], strict=True))
                if number == target:
                    cosine = _slow_margin(options.loss, cosine, options.margin)
                logits[number] = options.scale * cosine - correction
        total += math.log(sum(math.exp(z - logits[target]) for z in logits.values()))
    return total / len(images)


def _dense_loss(images, rows, targets, *, margin=0.15, scale=16.0):
    """The same with autograd, for gradients; one target per image."""
    cosines = images @ F.normalize(rows, dim=-1).T
    return F.cross_entropy(scale * (cosines - margin * F.one_hot(targets, len(rows))), targets)


def _targets(count, num_classes, num_labels, seed):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(-1, num_classes, (count, num_labels), generator=generator)
    targets[:, 0].clamp_(min=0)
    return targets


@pytest.mark.parametrize("loss", ["cosface", "arcface", "plain"])
@given(st.integers(0, 1000), st.floats(0, 0.5), st.floats(1, 40), st.integers(1, 4))
@settings(max_examples=20)
def test_the_full_head_equals_the_slow_loss(loss, seed, margin, scale, num_labels):
    options = HeadSettings(loss=loss, margin=margin, scale=scale)
    head = EntityHead(11, 6, options, seed=seed)
    images, targets = _images(5, 6, seed + 1), _targets(5, 11, num_labels, seed)
    found, _ = head.loss(images, targets, step=0)
    slow = _slow_loss(images, head.rows_ND, targets, options)
    assert found.item() == pytest.approx(slow, rel=1e-4, abs=1e-5)


def test_rows_begin_as_the_seed_says():
    rows = [EntityHead(40, 6, HeadSettings(), seed=seed).rows_ND for seed in (0, 0, 1)]
    assert torch.equal(rows[0], rows[1])
    assert (rows[0] * rows[2]).sum(1).abs().mean() < 0.6


@pytest.mark.parametrize("on_gpu", [False, True], ids=["processor", "as on a GPU"])
@pytest.mark.parametrize("targets", [[-1, 3], [90, -1], [2, 90], [2, -2]], ids=str)
@pytest.mark.parametrize("sampler", ["full", "uniform", "log-uniform", "popularity"])
def test_a_target_that_is_no_class_is_refused(sampler, targets, on_gpu, monkeypatch):
    monkeypatch.setattr(entity_head, "MOST_AT_ONCE", 8)
    for num_sampled in (30, 8192):  # with draws, and with all classes in one block
        options = HeadSettings(sampler=sampler, num_sampled=num_sampled)
        head = EntityHead(90, 6, options, class_counts=torch.arange(90))
        head.trim = not on_gpu
        with pytest.raises(RuntimeError if on_gpu else InputError, match="is not among the"):
            head.loss(_images(2, 6), torch.tensor([[0, 1], targets]), step=0)
        head.loss(_images(2, 6), torch.tensor([[0, 89], [89, -1]]), step=0)


@given(st.integers(0, 1000), st.floats(0, 0.4), st.floats(1, 20))
@settings(max_examples=30)
def test_margin_lowers_only_the_true_class(seed, margin, scale):
    images, losses = _images(1, 6, seed), []
    for m in (0.0, margin):
        head = EntityHead(11, 6, HeadSettings(margin=m, scale=scale))
        losses.append(head.loss(images, torch.tensor([[4]]), step=0)[0].item())
    plain, lowered = (math.exp(loss) - 1 for loss in losses)  # sum over others e^(z_c - z_t)
    assert lowered == pytest.approx(plain * math.exp(scale * margin), rel=2e-3, abs=1e-4)


@pytest.mark.parametrize("log_q", [True, False])
@pytest.mark.parametrize("sampler", ["uniform", "log-uniform", "popularity"])
def test_a_sampled_loss_equals_the_slow_one_over_its_classes(sampler, log_q):
    options, counts = HeadSettings(sampler=sampler, num_sampled=30, log_q=log_q), torch.arange(90)
    head = EntityHead(90, 6, options, class_counts=counts)
    for step in range(5):
        images, targets = _images(5, 6, step), _targets(5, 90, 3, step)
        own, drawn = set(targets[targets >= 0].tolist()), head._sampler.draw(step)
        chances = head._sampler.log_inclusion(drawn) * log_q
        classes = dict(zip(drawn.tolist(), chances.tolist(), strict=True)) | dict.fromkeys(own, 0)
        slow = _slow_loss(images, head.rows_ND, targets, options, classes)
        assert head.loss(images, targets, step=step)[0].item() == pytest.approx(slow, rel=1e-4)


@pytest.mark.parametrize("at_once", [16_384, 8], ids=["one matrix", "blocks"])
def test_gradients_equal_those_of_a_dense_classifier(monkeypatch, at_once):
    _work_in_blocks(monkeypatch, at_once)
    head = EntityHead(31, 6, HeadSettings(sampler="full"))
    rows, targets = head.rows_ND.clone().requires_grad_(), torch.tensor([0, 3, 3, 30, 17])
    ours, dense = (_images(5, 6).requires_grad_() for _ in range(2))
    head.loss(ours, targets[:, None], step=0)[0].backward()
    _dense_loss(dense, rows, targets).backward()
    torch.testing.assert_close(ours.grad, dense.grad, rtol=1e-5, atol=1e-5)
    found = torch.cat([gradient for _, gradient in head.row_gradients()])
    tangent = found - (found * rows).sum(1, keepdim=True) * rows
    torch.testing.assert_close(tangent, rows.grad, rtol=1e-5, atol=1e-5)


def _work_in_blocks(monkeypatch, at_once):
    monkeypatch.setattr("openmofi.train.sharded_softmax.MOST_AT_ONCE", at_once)
    monkeypatch.setattr(entity_head, "MOST_AT_ONCE", at_once)


@pytest.mark.parametrize("sampler", ["full", "uniform", "log-uniform"])
def test_blocks_of_classes_change_nothing(monkeypatch, sampler):
    targets, results = torch.tensor([[3, -1], [77, 3], [499, 5], [3, 499]]), []
    for at_once in (16_384, 64):
        _work_in_blocks(monkeypatch, at_once)
        head = EntityHead(500, 16, HeadSettings(sampler=sampler, num_sampled=200, optimizer="sgd"))
        images = _images(4, 16).requires_grad_()
        loss, accuracy = head.loss(images, targets, step=1)
        loss.backward()
        head.step(learning_rate=0.1)
        results.append((loss.detach(), accuracy, images.grad, head.rows_ND))
    for one, blocks in zip(*results, strict=True):
        torch.testing.assert_close(one, blocks, rtol=1e-5, atol=1e-5)


def test_rows_follow_a_plain_adam_that_renormalises():
    head = EntityHead(4, 3, HeadSettings(), seed=1)
    rows = head.rows_ND.clone().requires_grad_()
    adam = torch.optim.Adam([rows], lr=0.05, betas=(0.9, 0.99))
    targets = torch.tensor([0, 2, 3])
    for step in range(4):
        images = _images(3, 3, seed=step)
        head.loss(images, targets[:, None], step=step)[0].backward()
        head.step(learning_rate=0.05)
        adam.zero_grad()
        _dense_loss(images, rows, targets).backward()
        adam.step()
        with torch.no_grad():
            rows.copy_(F.normalize(rows, dim=-1))
    torch.testing.assert_close(head.rows_ND, rows.detach(), rtol=1e-4, atol=1e-5)


def test_only_sampled_rows_move():
    head = EntityHead(1000, 4, HeadSettings(num_sampled=10))
    before = head.rows_ND.clone()
    _trained(head, _images(2, 4), torch.tensor([[5], [900]]), steps=1)
    moved = (head.rows_ND != before).any(1)
    assert moved[[5, 900]].all()
    assert moved.sum() <= 12


@pytest.mark.parametrize("sampler", ["uniform", "log-uniform", "popularity"])
def test_log_q_removes_most_of_the_bias_of_sampling(sampler):
    counts = 2000 - torch.arange(2000)
    images, targets = _images(32, 16), torch.arange(32)[:, None]

    def mean_loss(draws, **changes):
        # A gentle scale: rows drawn at random have rare large terms that any sample misses.
        head = EntityHead(2000, 16, HeadSettings(scale=8.0, **changes), class_counts=counts)
        return sum(head.loss(images, targets, step=i)[0].item() for i in range(draws)) / draws

    exact = mean_loss(1, sampler="full")
    corrected = mean_loss(60, sampler=sampler, num_sampled=200)
    uncorrected = mean_loss(60, sampler=sampler, num_sampled=200, log_q=False)
    assert abs(corrected - exact) < 0.15 * abs(uncorrected - exact)


def test_a_sample_that_the_batch_completes_equals_the_full_softmax():
    images, targets = _images(6, 4), torch.arange(6)[:, None]
    sampled = EntityHead(6, 4, HeadSettings(num_sampled=5)).loss(images, targets, step=0)
    full = EntityHead(6, 4, HeadSettings()).loss(images, targets, step=0)
    assert sampled[0].item() == pytest.approx(full[0].item(), rel=1e-6)


@given(st.permutations(range(7)), st.sampled_from(["full", "uniform", "popularity"]))
@settings(max_examples=30)
def test_the_order_of_the_batch_does_not_matter(order, sampler):
    head = EntityHead(
        50, 4, HeadSettings(sampler=sampler, num_sampled=9), class_counts=torch.arange(50)
    )
    images, targets = _images(7, 4), torch.tensor([[1], [1], [5], [49], [0], [7], [5]])
    loss, accuracy = head.loss(images, targets, step=2)
    shuffled = head.loss(images[list(order)], targets[list(order)], step=2)
    assert shuffled[0].item() == pytest.approx(loss.item(), rel=1e-5)
    assert shuffled[1].item() == pytest.approx(accuracy.item())


def test_the_same_step_samples_the_same_classes():
    head = EntityHead(500, 4, HeadSettings(num_sampled=20))
    images, targets = _images(2, 4), torch.tensor([[1], [2]])
    first, again = (head.loss(images, targets, step=7)[0].item() for _ in range(2))
    assert first == again
    assert head.loss(images, targets, step=8)[0].item() != first


def test_padding_never_hides_the_first_class():
    head = EntityHead(6, 4, HeadSettings())
    images = _images(2, 4)
    padded, _ = head.loss(images, torch.tensor([[0, 2], [0, -1]]), step=0)
    one, _ = head.loss(images[:1], torch.tensor([[0, 2]]), step=0)
    two, _ = head.loss(images[1:], torch.tensor([[0]]), step=0)
    assert padded.item() == pytest.approx((one.item() + two.item()) / 2, rel=1e-5)


def test_a_target_that_is_listed_twice_is_still_the_target():
    head, images = EntityHead(6, 4, HeadSettings()), _images(1, 4)
    twice, _ = head.loss(images, torch.tensor([[3, 3]]), step=0)
    once, _ = head.loss(images, torch.tensor([[3]]), step=0)
    assert twice.item() == once.item()


def test_accuracy_ignores_margin_and_other_true_classes():
    head = EntityHead(4, 4, HeadSettings(margin=2.0))
    head.rows_ND.copy_(torch.eye(4))
    images = F.normalize(torch.tensor([[1, 0.9, 0, 0], [0.9, 1, 0, 0], [0.9, 1, 0, 0]]), dim=-1)
    targets = torch.tensor([[0, -1], [0, 1], [0, -1]])
    assert head.loss(images, targets, step=0)[1].item() == pytest.approx(2 / 3)


def test_one_image_and_a_smaller_last_batch_are_fine():
    head = EntityHead(100, 4, HeadSettings(num_sampled=10))
    for count in (5, 1):
        _trained(head, _images(count, 4), torch.full((count, 1), 7), steps=1)
    assert head.rows_ND.isfinite().all()


# ---------------------------------------------------------------------------- updates


@pytest.mark.parametrize("sampler", ["full", "uniform"])
@pytest.mark.parametrize("optimizer", _OPTIMIZERS)
def test_a_skipped_step_leaves_everything_untouched(sampler, optimizer):
    head = EntityHead(60, 4, HeadSettings(num_sampled=9, sampler=sampler, optimizer=optimizer))
    _trained(head, _images(3, 4), torch.tensor([[1], [1], [59]]))
    before = {name: values.clone() for name, values in head.state_dict().items()}
    nan = torch.full((3, 4), torch.nan)
    _trained(head, nan, torch.tensor([[1], [1], [59]]), skip=torch.tensor(True))
    assert all(torch.equal(values, before[name]) for name, values in head.state_dict().items())


@pytest.mark.parametrize("sampler", ["full", "uniform"])
def test_asking_for_the_images_gradient_alone_still_moves_the_rows(sampler):
    images, targets, moved = _images(3, 4), torch.tensor([[1], [1], [59]]), []
    for ask in (torch.autograd.grad, torch.autograd.backward):
        head = EntityHead(60, 4, HeadSettings(num_sampled=9, sampler=sampler))
        leaf = images.clone().requires_grad_()
        ask(head.loss(leaf, targets, step=0)[0], inputs=[leaf])
        head.step(learning_rate=0.1)
        moved.append(head.rows_ND)
    assert torch.equal(*moved)


def test_rows_learn_even_if_the_images_need_no_gradient():
    head = EntityHead(9, 4, HeadSettings())
    images, targets = _images(3, 4), torch.tensor([[1], [2], [8]])
    losses = []
    for step in range(20):
        loss, _ = head.loss(images, targets, step=step)
        loss.backward()
        head.step(learning_rate=0.05)
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_loss_can_be_weighted():
    head, leaf = EntityHead(9, 4, HeadSettings()), _images(3, 4).requires_grad_()
    gradients = []
    for weight in (1.0, 0.25):
        loss, _ = head.loss(leaf, torch.tensor([[1], [2], [8]]), step=0)
        images_gradient = torch.autograd.grad(weight * loss, leaf)[0]
        (_, row_gradient), *_ = head.row_gradients()
        gradients.append((images_gradient, row_gradient))
    for whole, quarter in zip(*gradients, strict=True):
        torch.testing.assert_close(whole / 4, quarter)


def test_bf16_autocast_stays_near_float32():
    head, targets = EntityHead(50, 64, HeadSettings()), torch.tensor([[1], [2], [8]])
    exact, short = (_images(3, 64).requires_grad_() for _ in range(2))
    loss, _ = head.loss(exact, targets, step=0)
    loss.backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, _ = head.loss(short, targets, step=0)
    rounded.backward()
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(loss.item(), rel=0.01)
    assert F.cosine_similarity(short.grad, exact.grad, dim=1).min() > 0.99


# ---------------------------------------------------------------------------- no waiting


@pytest.mark.parametrize("optimizer", _OPTIMIZERS)
@pytest.mark.parametrize("sampler", ["full", "uniform", "log-uniform", "popularity"])
def test_a_step_with_fixed_shapes_never_waits_for_the_device(sampler, optimizer):
    head = EntityHead(
        300,
        4,
        HeadSettings(sampler=sampler, optimizer=optimizer, num_sampled=20),
        class_counts=torch.arange(300),
    )
    head.trim = False
    with RefuseToWait():
        _trained(head, _images(3, 4), torch.tensor([[1, 2], [7, -1], [1, 1]]), skip=torch.zeros(()))
    assert head.rows_ND.isfinite().all()


def test_the_watch_notices_what_waits():
    with RefuseToWait(), pytest.raises(AssertionError, match="waits"):
        torch.ones(3).sum().item()
    with RefuseToWait(), pytest.raises(AssertionError, match="waits"):
        torch.ones(3)[torch.tensor([True, False, True])]


@pytest.mark.parametrize("sampler", ["uniform", "log-uniform", "popularity"])
def test_padding_changes_nothing(sampler):
    rows = []
    for trim in (True, False):
        options = HeadSettings(sampler=sampler, num_sampled=20, optimizer="row-adagrad")
        head = EntityHead(300, 4, options, class_counts=torch.arange(300))
        head.trim = trim
        rows.append(_trained(head, _images(2, 4), torch.tensor([[1, 2], [7, -1]])).rows_ND)
    torch.testing.assert_close(*rows, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------- state and files


def test_initial_rows_do_not_depend_on_how_they_are_shared_out():
    whole, parts = torch.empty(40_000, 4), []
    entity_head._draw_rows(whole, (0, 40_000), 40_000, 3)
    for first, last in ((0, 13_334), (13_334, 26_668), (26_668, 40_000)):
        parts.append(torch.empty(last - first, 4))
        entity_head._draw_rows(parts[-1], (first, last), 40_000, 3)
    assert torch.equal(torch.cat(parts), whole)
    assert len(whole.unique(dim=0)) == 40_000


@pytest.mark.parametrize("optimizer", _OPTIMIZERS)
def test_a_run_goes_on_from_its_state(optimizer):
    images, targets = _images(3, 4), torch.tensor([[1], [2], [8]])
    head, again = (EntityHead(9, 4, HeadSettings(optimizer=optimizer)) for _ in range(2))
    _trained(head, images, targets)
    again.load_state_dict({name: v.clone() for name, v in head.state_dict().items()})
    assert torch.equal(
        _trained(head, images, targets).rows_ND, _trained(again, images, targets).rows_ND
    )


def test_the_state_is_the_storage_itself():
    head = EntityHead(9, 4, HeadSettings())
    head.state_dict()["rows"].zero_()
    assert not head.rows_ND.any()


def test_a_state_of_another_size_is_refused():
    with pytest.raises(MismatchError, match="resume with the same dataset"):
        EntityHead(3, 4, HeadSettings()).load_state_dict(
            EntityHead(2, 4, HeadSettings()).state_dict()
        )


@pytest.mark.parametrize("optimizer", ["sgd", "row-adam"])
def test_a_state_of_another_optimizer_is_refused(optimizer):
    state = EntityHead(3, 4, HeadSettings(optimizer=optimizer)).state_dict()
    with pytest.raises(MismatchError, match=r"resume with the same head\.optimizer"):
        EntityHead(3, 4, HeadSettings()).load_state_dict(state)


@pytest.mark.parametrize("most_bytes", [10**9, 32], ids=["one file", "two files"])
def test_saved_rows_load_with_their_ids(tmp_path, monkeypatch, most_bytes):
    head = EntityHead(3, 4, HeadSettings())
    save_head(head, ["A", "B", "C"], tmp_path)  # what an earlier run left is replaced
    monkeypatch.setattr(head_files, "_MOST_BYTES", most_bytes)
    save_head(head, ["Q1", "Q2", "ICS:Ü"], tmp_path)
    rows, ids = load_head_rows(tmp_path)
    torch.testing.assert_close(rows, head.rows_ND)
    assert ids == ["Q1", "Q2", "ICS:Ü"]
    assert (tmp_path / "rows.safetensors").exists() == (most_bytes > 32)


def test_how_many_images_each_row_was_learnt_from_is_kept(tmp_path):
    head = EntityHead(2, 4, HeadSettings())
    save_head(head, ["A", "B"], tmp_path, images=[7, 0])
    assert load_image_counts(tmp_path) == {"A": 7, "B": 0}
    save_head(head, ["A", "B"], tmp_path)
    assert load_image_counts(tmp_path) == {}


def test_several_files_are_listed_as_hugging_face_does(tmp_path, monkeypatch):
    monkeypatch.setattr(head_files, "_MOST_BYTES", 32)
    save_head(EntityHead(3, 4, HeadSettings()), ["A", "B", "C"], tmp_path)
    index = json.loads((tmp_path / "rows.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 48}
    assert index["weight_map"]["rows.00002"] == "rows-00002-of-00002.safetensors"


def test_rows_of_any_length_are_normalised_when_read(tmp_path):
    save_file({"rows": torch.tensor([[3.0, 4.0]])}, tmp_path / "rows.safetensors")
    (tmp_path / "ids.json").write_text('["Q1"]')
    torch.testing.assert_close(load_head_rows(tmp_path)[0], torch.tensor([[0.6, 0.8]]))


def test_a_damaged_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"lacks 'rows\.safetensors'"):
        load_head_rows(tmp_path)
    save_head(EntityHead(2, 4, HeadSettings()), ["A", "B"], tmp_path)
    (tmp_path / "ids.json").write_text('["Q1"]')
    with pytest.raises(InputError, match="2 rows and 1 ids"):
        load_head_rows(tmp_path)
