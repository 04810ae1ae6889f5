"""Whole runs against the same steps in plain torch: losses, clipping, decay, schedule, averages.

Nothing of the trainer is used but what makes its batches and its first weights; that is tested
elsewhere.
"""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model.tiny_models import write_model
from openmofi.model import load_model
from openmofi.model.class_rows import load_head_rows
from openmofi.train import train
from openmofi.train.augment import augment
from openmofi.train.data import open_train_data
from openmofi.train.distributed import World
from openmofi.train.entity_head import EntityHead
from openmofi.train.loop import _make_loader, make_model
from openmofi.train.teacher import Teacher, what_was_seen
from openmofi.train.texts import TextMix
from selected import tiny, write_selected
from taught import write_teacher

_STEPS = 5
_CASES = {
    "infonce": {},
    "siglip": {"loss": {"image_text": "siglip"}},
    "infonce in micro-batches with a teacher": {"micro_batch_size": 3, "taught": True},
}


def _settings(folder, taught=False, loss=None, **changes):
    loss = {"supervised": 0.7, "contrastive": 1.3, "distillation": 0.25, "entity": "drawn"} | (
        loss or {}
    )
    optim = {"learning_rate": 4e-3, "text_learning_rate_factor": 0.5, "weight_decay": 0.8}
    optim |= {"token_learning_rate_factor": 2.0, "beta2": 0.8, "warmup": 0.4}
    settings = tiny(
        model={"init": str(folder / "init"), "image_size": None},
        loss=loss | {"teachers": [str(folder / "teacher")] if taught else []},
        optim=optim | {"clip_grad_norm": 0.05},
        head={"optimizer": "sgd", "learning_rate": 0.5, "margin": 0.2, "scale": 9.0},
        **({"steps": _STEPS, "seed": 2**40, "ema": 0.28} | changes),
    )
    if taught:
        _write_teacher(folder / "teacher", open_train_data(folder / "select"), settings)
    return settings


def _write_teacher(folder, data, settings):
    random = np.random.default_rng(5)
    shapes = {"images": (len(data), 2), "captions": (len(data),), "names": (3,)}
    vectors = {}
    for name, shape in (shapes | {"descriptions": (3,)}).items():
        # Alike enough for a row of the teacher's to be no single one.
        drawn = np.array([1.0, 0, 0, 0]) + 0.1 * random.standard_normal((*shape, 4))
        vectors[name] = drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)
    card = what_was_seen(data, settings.augment) | {"augmentations": 2, "seed": 4}
    write_teacher(folder, card, **vectors)


def _fits(batch, i, j):
    """Whether text j is right for image i: it reads as its own, or its entity is shown."""
    same_text = batch.keys[i, 1] == batch.keys[j, 1]
    return bool(same_text or batch.targets[j, 0] in batch.targets[i][batch.targets[i] >= 0])


def _image_text(settings, images, texts, scale, bias, batch):
    """The two losses between images and texts, pair by pair."""
    count, softmax, sigmoid = len(images), 0.0, 0.0
    logits = (scale.exp() * images @ texts.T).unbind()
    for i in range(count):
        row = [logits[i][j] for j in range(count) if i == j or not _fits(batch, i, j)]
        column = [logits[j][i] for j in range(count) if i == j or not _fits(batch, j, i)]
        softmax += sum(torch.stack(line).logsumexp(0) - logits[i][i] for line in (row, column))
        for j in (j for j in range(count) if i == j or not _fits(batch, i, j)):
            sigmoid += F.softplus((-1 if i == j else 1) * (logits[i][j] + bias))
    return softmax / (2 * count) if settings.loss.image_text == "infonce" else sigmoid / count


def _distillation(images, texts, scale, batch):
    """Cross entropy of the rows, and of the columns, against the teacher's at a scale of 100."""
    total = 0.0
    photos, words = batch.teachers[0]
    for ours, others, theirs, those in (
        (images, texts, photos, words),
        (texts, images, words, photos),
    ):
        wanted = (100 * theirs.double() @ those.double().T).softmax(1).float()
        total -= (wanted * (scale.exp() * ours @ others.T).log_softmax(1)).sum(1).mean()
    return total / 2


def _supervised(images, rows, batch, head):
    """CosFace of each image over all classes but its others; (loss, share of right answers)."""
    total, right = 0.0, 0
    for image, targets in zip(images, batch.targets.tolist(), strict=True):
        cosines = {n: image @ row for n, row in enumerate(rows) if n not in targets[1:]}
        right += max(cosines, key=lambda n: cosines[n].item()) == targets[0]
        cosines[targets[0]] = cosines[targets[0]] - head.margin
        logits = torch.stack(list(cosines.values())) * head.scale
        total += logits.logsumexp(0) - cosines[targets[0]] * head.scale
    return total / len(images), right / len(images)


class _ByHand:
    """The weights, and what AdamW, the averages and the head keep."""

    def __init__(self, settings, data):
        self.settings, self.model = settings, make_model(settings, data, device="cpu")
        self.bias = torch.tensor(-10.0, requires_grad=settings.loss.image_text == "siglip")
        self.rows = EntityHead(3, self.model.dim, settings.head, seed=settings.seed).rows_ND.clone()
        self.weights = dict(self.model.network.named_parameters()) | {"bias": self.bias}
        self.averages = {name: p.detach().clone() for name, p in self.weights.items()}
        self.moments = {name: [0.0, 0.0] for name in self.weights}

    def step(self, batch):
        """One step of learning; what a line of metrics.jsonl should say of it."""
        line, loss, rows = self._losses(batch)
        for weight in self.weights.values():
            weight.grad = None
        loss.backward()
        number = batch.step + 1
        rising, falling = number / 2, 0.5 * (1 + math.cos(math.pi * (batch.step - 2) / 3))
        factor = rising if number <= 2 else falling  # two steps of warm-up, then three of a cosine
        with torch.no_grad():
            self._adam(number, factor)
            self._move_rows(rows, 0.5 * factor)
            decay = min(0.28, number / (number + 9))
            for name, weight in self.weights.items():
                self.averages[name] = decay * self.averages[name] + (1 - decay) * weight
        return line | {"loss": loss.item(), "learning_rate": 4e-3 * factor}

    def _losses(self, batch):
        changed = augment(batch.pixels, self.settings.augment, batch.draws)
        images = self.model.image_features(self.model.transform.normalise(changed))
        images = F.normalize(images, dim=-1)
        texts = F.normalize(self.model.token_features(batch.tokens), dim=-1)
        scale, rows = self.weights["logit_scale"], self.rows.clone().requires_grad_()
        image_text = _image_text(self.settings, images, texts, scale, self.bias, batch)
        line = {"contrastive": image_text.item()}
        if batch.teachers:
            taught = _distillation(images, texts, scale, batch)
            line["distillation"] = taught.item()
            image_text = 0.75 * image_text + 0.25 * taught
        supervised, accuracy = _supervised(images, rows, batch, self.settings.head)
        line |= {"supervised": supervised.item(), "accuracy": accuracy}
        return line, 1.3 * image_text + 0.7 * supervised, rows

    def _adam(self, number, factor):
        """AdamW (arXiv 1711.05101) on gradients scaled down to the norm .05."""
        used = {n: p for n, p in self.weights.items() if p.grad is not None}
        norm = sum(p.grad.square().sum() for p in used.values()).sqrt()
        assert norm > 0.1
        for name, weight in used.items():
            gradient = weight.grad * 0.05 / norm
            first, second = self.moments[name]
            self.moments[name] = first, second = (
                0.9 * first + 0.1 * gradient,
                0.8 * second + 0.2 * gradient.square(),
            )
            tokens, text = "token_embedding" in name, name.startswith("text_")
            size = 4e-3 * factor * (2.0 if tokens else 0.5 if text else 1.0)
            weight *= 1 - size * (0.8 if weight.ndim > 1 and not tokens else 0.0)
            mean, square = first / (1 - 0.9**number), second / (1 - 0.8**number)
            weight -= size * mean / (square.sqrt() + 1e-8)

    def _move_rows(self, rows, size):
        """Gradient descent on the sphere."""
        along = (rows.grad * self.rows).sum(1, keepdim=True) * self.rows
        self.rows = F.normalize(self.rows - size * (rows.grad - along), dim=-1)


@pytest.fixture(params=_CASES, ids=list(_CASES))
def both(request, tmp_path):
    """A run's folder; and its steps done again."""
    write_selected(tmp_path, second=2)
    write_model(tmp_path / "init", "clip")
    settings = _settings(tmp_path, **_CASES[request.param])
    train(settings, data=tmp_path / "select", out=tmp_path / "run")
    data = open_train_data(tmp_path / "select")
    hand = _ByHand(settings, data)
    teachers = [Teacher(folder) for folder in settings.loss.teachers]
    texts, world = TextMix(data, settings.loss.text), World(0, 1, torch.device("cpu"))
    loader = _make_loader(settings, data, hand.model, texts, teachers, world)
    batches = list(loader.batches(0, _STEPS))
    assert any(
        _fits(b, i, j) and b.targets[i, 0] != b.targets[j, 0]
        for b in batches
        for i in range(8)
        for j in range(8)
        if b.keys[i, 1] != b.keys[j, 1]
    )
    return tmp_path / "run", hand, [hand.step(batch) for batch in batches]


@pytest.mark.slow
def test_a_run_logs_and_learns_what_the_same_steps_by_hand_do(both):
    run, hand, lines = both
    logged = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    for line, expected in zip(logged, lines, strict=True):
        assert {name: line[name] for name in expected} == pytest.approx(expected, abs=2e-5)
    found = dict(load_model(run / "model").network.named_parameters())
    for name, weight in hand.averages.items():
        # Keys' biases have no gradient but rounding, of which Adam makes a whole step.
        if name in found and not name.endswith("k_proj.bias"):
            torch.testing.assert_close(found[name], weight, rtol=2e-4, atol=2e-5, msg=name)
    rows = load_head_rows(run / "model/entity_head")[0]
    torch.testing.assert_close(torch.as_tensor(rows), hand.rows, rtol=1e-4, atol=1e-5)
