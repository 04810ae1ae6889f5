import pytest
import torch
from torch.nn import functional as F

from openmofi.config import HeadSettings
from openmofi.errors import MismatchError
from openmofi.train.entity_head import EntityHead, load_head_rows, save_head
from openmofi.train.losses import cosface


def _images(count, dim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dim, generator=generator), dim=-1)


def test_the_full_head_equals_a_dense_classifier():
    head = EntityHead(11, 6, HeadSettings())
    images = _images(5, 6).requires_grad_()
    targets = torch.tensor([[0], [3], [3], [10], [7]])
    loss, _ = head.loss(images, targets, step=0)
    dense = cosface(images @ head.rows_ND.T, targets[:, 0], margin=0.15, scale=16.0)
    assert loss.item() == pytest.approx(dense.item(), rel=1e-5)


def test_rows_follow_a_plain_adam_that_renormalises():
    head = EntityHead(4, 3, HeadSettings(), seed=1)
    rows = head.rows_ND.clone().requires_grad_()
    adam = torch.optim.Adam([rows], lr=0.05, betas=(0.9, 0.99))
    targets = torch.tensor([0, 2, 3])
    for step in range(4):
        images = _images(3, 3, seed=step)
        loss, _ = head.loss(images, targets[:, None], step=step)
        loss.backward()
        head.step(learning_rate=0.05)
        adam.zero_grad()
        cosines = images @ F.normalize(rows, dim=-1).T
        cosface(cosines, targets, margin=0.15, scale=16.0).backward()
        adam.step()
        with torch.no_grad():
            rows.copy_(F.normalize(rows, dim=-1))
    torch.testing.assert_close(head.rows_ND, rows.detach(), rtol=1e-4, atol=1e-5)


def test_only_sampled_rows_move():
    head = EntityHead(1000, 4, HeadSettings(num_sampled=10))
    before = head.rows_ND.clone()
    loss, _ = head.loss(_images(2, 4), torch.tensor([[5], [900]]), step=3)
    loss.backward()
    head.step(learning_rate=0.1)
    moved = (head.rows_ND != before).any(1)
    assert moved[[5, 900]].all()
    assert moved.sum() <= 12


def test_sampled_loss_is_near_the_full_one_on_average():
    full = EntityHead(2000, 16, HeadSettings(num_sampled=2000))
    images, targets = _images(32, 16), torch.arange(32)[:, None]
    exact = full.loss(images, targets, step=0)[0].item()
    sampled = EntityHead(2000, 16, HeadSettings(num_sampled=200))
    losses = [sampled.loss(images, targets, step=step)[0].item() for step in range(60)]
    uncorrected = torch.tensor(0.1).log().abs().item()  # what ignoring logQ would cost
    assert abs(sum(losses) / 60 - exact) < 0.15 * uncorrected


def test_the_same_step_samples_the_same_classes():
    head = EntityHead(500, 4, HeadSettings(num_sampled=20))
    images, targets = _images(2, 4), torch.tensor([[1], [2]])
    first, again = (head.loss(images, targets, step=7)[0].item() for _ in range(2))
    assert first == again
    assert head.loss(images, targets, step=8)[0].item() != first


def test_other_true_entities_are_no_negatives():
    head = EntityHead(6, 4, HeadSettings())
    images = _images(1, 4)
    both, _ = head.loss(images, torch.tensor([[1, 4]]), step=0)
    cosines = images @ head.rows_ND.T
    keep = [0, 1, 2, 3, 5]
    expected = cosface(cosines[:, keep], torch.tensor([1]), margin=0.15, scale=16.0)
    assert both.item() == pytest.approx(expected.item(), rel=1e-5)


def test_padding_never_hides_the_first_class():
    head = EntityHead(6, 4, HeadSettings())
    images = _images(2, 4)
    padded, _ = head.loss(images, torch.tensor([[0, 2], [0, -1]]), step=0)
    one, _ = head.loss(images[:1], torch.tensor([[0, 2]]), step=0)
    two, _ = head.loss(images[1:], torch.tensor([[0]]), step=0)
    assert padded.item() == pytest.approx((one.item() + two.item()) / 2, rel=1e-5)


def test_saved_rows_load_with_their_ids(tmp_path):
    head = EntityHead(3, 4, HeadSettings())
    save_head(head, ["Q1", "Q2", "ICS:Ü"], tmp_path)
    rows, ids = load_head_rows(tmp_path)
    torch.testing.assert_close(rows, head.rows_ND)
    assert ids == ["Q1", "Q2", "ICS:Ü"]


def test_a_state_of_another_size_is_refused():
    with pytest.raises(MismatchError, match="resume with the same dataset"):
        EntityHead(3, 4, HeadSettings()).load_state_dict(
            EntityHead(2, 4, HeadSettings()).state_dict()
        )
