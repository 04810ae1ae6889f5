"""The state of a training run and its one step: encoders, entity head, optimisers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed.checkpoint import state_dict as dcp_state
from torch.nn import functional as F

from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.config import OptimSettings, TrainSettings
from openmofi.errors import OpenMOFIError
from openmofi.model import MofiModel
from openmofi.train import towers as holding
from openmofi.train.augment import augment
from openmofi.train.batch_statistics import BatchStatistics
from openmofi.train.data import TrainData
from openmofi.train.distributed import World
from openmofi.train.entity_head import EntityHead
from openmofi.train.layers import layer_distances
from openmofi.train.loader import Batch
from openmofi.train.losses import IMAGE_TEXT, distillation
from openmofi.train.schedule import learning_rate_factor
from openmofi.train.towers import Features, Towers

_EMA_WARMUP = 10
_ROWS = "class rows"


class Run:
    """Everything that changes from step to step."""

    def __init__(
        self,
        model: MofiModel,
        data: TrainData,
        settings: TrainSettings,
        world: World,
        *,
        start_rows: Float[Tensor, "N D"] | None = None,
    ):
        self.model, self.settings, self.world = model, settings, world
        self.image_text = IMAGE_TEXT[settings.loss.image_text]
        self.step = 0
        towers = Towers(model, settings)
        if settings.model.init is not None:
            holding.freeze_unreached(towers)
            holding.freeze_layers(towers, settings)
        self.towers = holding.spread(towers, settings, world)
        self.statistics = BatchStatistics(self.towers)
        self.optimizer = _make_optimizer(self.towers, settings.optim)
        self.head: EntityHead | None = None
        if settings.loss.supervised > 0:
            self.head = EntityHead(
                len(data.entity_ids),
                model.dim,
                settings.head,
                seed=settings.seed,
                device=world.device,
                group=world.group,
                class_counts=torch.from_numpy(data.class_counts),
            )
            if start_rows is not None:
                self.head.begin_at(start_rows)
        self.averages: dict[str, Tensor] = {}
        if settings.ema > 0:
            self.averages = {name: p.detach().clone() for name, p in self._weights()}
        self.start: dict[str, Tensor] = {}
        """The weights that the run began with, where its end may be averaged with them."""
        if settings.wise_ft:
            self.start = {name: p.detach().clone() for name, p in self._all_weights()}
        self.skipped = torch.zeros(2, dtype=torch.int64, device=world.device)
        """Number of skipped steps: in total, and in a row up to now."""

    def train_step(self, batch: Batch) -> dict[str, Tensor]:
        """Learns from one batch and returns the measurements, on the device.

        With micro-batches this is GradCache (arXiv 2101.06983): first the features of all of them,
        without graphs; then the losses over the whole batch; then each micro-batch again, with the
        gradient of its features.
        """
        self.towers.train()
        batch = batch.to(self.world.device)
        pieces = self._pieces(len(batch.rows))
        cached = len(pieces) > 1
        self.statistics.begin()

        # ---- features, then losses on them ----
        with torch.set_grad_enabled(not cached):
            outputs = []
            for number, piece in enumerate(pieces):
                if cached:
                    self.statistics.before_pass()
                outputs.append(self._forward(batch, number, piece))
                self.statistics.after_pass(piece.stop - piece.start, more=cached)
        features = _leaves(outputs)
        loss, measured = self._losses(features, batch)
        loss.backward()

        # ---- from the features into the towers ----
        self.optimizer.zero_grad(set_to_none=True)
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            with holding.gradients_shared(self.towers, now=last):
                output = self._forward(batch, number, piece) if cached else outputs[0]
                _backward(output, features, piece, with_scalars=last)
        holding.average_scalars(self.towers, self.world)

        self._update(batch.step)
        self.step = batch.step + 1
        return measured | {"loss": loss.detach()}

    def _pieces(self, count: int) -> list[slice]:
        size = self.settings.micro_batch_size or count
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]

    def _forward(self, batch: Batch, number: int, piece: slice) -> Features:
        """Returns the features of a micro-batch; the random numbers are the same in every call."""
        place = (batch.step, self.world.rank, number)
        torch.manual_seed(random_key(self.settings.seed, Purpose.DROPOUT, *place))
        part = batch.part(piece)
        inputs = self.model.transform.normalise(self._augmented(part))
        return self.towers(inputs, part.tokens)

    def _augmented(self, batch: Batch) -> Tensor:
        settings = self.settings.augment
        changed = augment(batch.pixels, settings, batch.draws)
        if settings.when == "repeats":
            changed = torch.where((batch.epochs == 0)[:, None, None, None], batch.pixels, changed)
        return changed

    def _losses(self, features: Features, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns (weighted sum, its parts)."""
        weights = self.settings.loss
        images_BD = F.normalize(features.images, dim=-1)
        loss, measured = images_BD.new_zeros(()), {}
        if features.texts is not None:
            texts_BD = F.normalize(features.texts, dim=-1)
            contrastive = self._image_text(images_BD, texts_BD, features, batch)
            measured["contrastive"] = contrastive.detach()
            if batch.teachers:
                taught = distillation(
                    images_BD, texts_BD, features.logit_scale, batch.teachers, world=self.world
                )
                measured["distillation"] = taught.detach()
                contrastive = torch.lerp(contrastive, taught, weights.distillation)
            loss = loss + weights.contrastive * contrastive
        if self.head is not None:
            with holding.forward_precision(self.settings, self.world.device):
                supervised, accuracy = self.head.loss(images_BD, batch.targets, step=batch.step)
            measured |= {"supervised": supervised.detach(), "accuracy": accuracy.detach()}
            loss = loss + weights.supervised * supervised
        return loss, measured

    def _image_text(
        self,
        images_BD: Float[Tensor, "b D"],
        texts_BD: Float[Tensor, "b D"],
        features: Features,
        batch: Batch,
    ) -> Tensor:
        keys, shown = None, None
        if self.settings.loss.mask_same_entity:
            keys, shown = batch.keys, batch.targets[:, 1:]
        scalars = [features.logit_scale]
        if self.image_text.logit_bias is not None:
            scalars.append(features.logit_bias)
        return self.image_text.loss(
            images_BD, texts_BD, *scalars, keys_bM=keys, shown_bK=shown, world=self.world
        )

    def _update(self, step: int) -> None:
        """Updates the weights, unless a gradient is not finite, without waiting for the device."""
        settings = self.settings
        factor = learning_rate_factor(step, steps=settings.steps, settings=settings.optim)
        for group in self.optimizer.param_groups:
            group["lr"] = factor * group["peak"]
        norm = torch.nn.utils.clip_grad_norm_(
            [p for p in self.towers.parameters() if p.grad is not None],
            settings.optim.clip_grad_norm,
        )
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        bad = ~norm.isfinite()
        # The fused step reads this to skip, as it does for torch.amp.GradScaler.
        self.optimizer.found_inf = bad.float()  # pyrefly: ignore[missing-attribute]
        self.optimizer.step()
        if self.head is not None:
            self.head.step(learning_rate=factor * settings.head.learning_rate, skip=bad)
        with torch.no_grad():
            if self.image_text.max_logit_scale is not None:
                self.model.logit_scale.clamp_(max=self.image_text.max_logit_scale)
            self._average(step)
        self.statistics.end(undone=bad)
        self.skipped = torch.stack([self.skipped[0] + bad, (self.skipped[1] + bad) * bad])

    def _average(self, step: int) -> None:
        if self.averages:
            decay = min(self.settings.ema, (1 + step) / (_EMA_WARMUP + step))
            now = [p.detach() for _, p in self._weights()]
            torch._foreach_lerp_(list(self.averages.values()), now, 1 - decay)

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        return iter(holding.bare(self.towers).network.named_parameters())

    @contextmanager
    def averaged(self, share: float = 1.0) -> Iterator[None]:
        """Replaces the weights by their moving averages, if there are any, within the context.

        Args:
            share: below 1, this share of them and the rest of the weights that the run began with.
        """
        if not self.averages and share == 1:
            yield
            return
        weights = dict(self._weights() if share == 1 else self._all_weights())
        now = {name: weight.detach().clone() for name, weight in weights.items()}
        wanted = now | self.averages
        if share < 1:
            wanted = {name: torch.lerp(self.start[name], w, share) for name, w in wanted.items()}
        _put(weights, wanted)
        try:
            yield
        finally:
            _put(weights, now)

    def _all_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yields parameters, statistics of batch norms and class rows."""
        yield from self._weights()
        for name, buffer in holding.bare(self.towers).network.named_buffers():
            if buffer.is_floating_point():
                yield name, buffer
        if self.head is not None:
            yield _ROWS, self.head.rows_ND

    def is_sound(self) -> bool:
        """Returns whether the last step was not skipped; waits for it.

        Raises:
            OpenMOFIError: too many steps in a row were skipped.
        """
        in_a_row = int(self.skipped[1])
        if in_a_row > self.settings.max_skipped:
            raise OpenMOFIError(
                f"The gradient is not finite since step {self.step - in_a_row}; lower "
                "optim.learning_rate and continue from the last checkpoint, as in --resume --set "
                f"optim.learning_rate={self.settings.optim.learning_rate / 3:.2g}."
            )
        return in_a_row == 0

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that resuming needs; names do not depend on the processes."""
        towers = holding.bare(self.towers)
        return {
            "towers": dcp_state.get_model_state_dict(towers),
            "optimizer": dcp_state.get_optimizer_state_dict(towers, self.optimizer),
            "head": self.head.state_dict() if self.head is not None else {},
            "averages": self.averages,
            "start_rows": self._start_rows(),
        }

    def _start_rows(self) -> Tensor | dict:
        """Returns the class rows that the run began with, if its end may be averaged with them."""
        if self.head is None or not self.start:
            return {}
        return self.head.shared(self.start[_ROWS])

    def load_state_dict(self, state: dict[str, Any], *, step: int) -> None:
        """Restores a state; averages and the start's rows have been read in place."""
        towers = holding.bare(self.towers)
        dcp_state.set_model_state_dict(towers, state["towers"])
        peaks = [group["peak"] for group in self.optimizer.param_groups]
        dcp_state.set_optimizer_state_dict(towers, self.optimizer, state["optimizer"])
        for group, peak in zip(self.optimizer.param_groups, peaks, strict=True):
            group["peak"] = peak  # from the settings, which may have changed
        if self.head is not None:
            self.head.load_state_dict(state["head"])
        self.step = step


def _put(weights: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(values[name])


def _leaves(outputs: list[Features]) -> Features:
    """Returns the features of all micro-batches, detached from the towers."""

    def leaf(tensor: Tensor) -> Tensor:
        return tensor.detach().requires_grad_()

    texts = [output.texts for output in outputs if output.texts is not None]
    return Features(
        leaf(torch.cat([output.images for output in outputs])),
        leaf(torch.cat(texts)) if texts else None,
        leaf(outputs[-1].logit_scale),
        leaf(outputs[-1].logit_bias),
    )


def _backward(output: Features, features: Features, piece: slice, *, with_scalars: bool) -> None:
    """Propagates the gradients of a micro-batch's features into the towers."""
    pairs = [(output.images, features.images, piece)]
    if output.texts is not None and features.texts is not None:
        pairs.append((output.texts, features.texts, piece))
    tensors = [tensor for tensor, _, _ in pairs]
    grads = [leaf.grad[rows] for _, leaf, rows in pairs if leaf.grad is not None]
    for tensor, leaf in (
        (output.logit_scale, features.logit_scale),
        (output.logit_bias, features.logit_bias),
    ):
        if with_scalars and leaf.grad is not None and tensor.requires_grad:
            tensors.append(tensor)
            grads.append(leaf.grad)
    torch.autograd.backward(tensors, grads)


def _make_optimizer(towers: torch.nn.Module, optim: OptimSettings) -> torch.optim.AdamW:
    """Returns AdamW with weight decay on matrices only; text, tokens and layers have own steps."""
    groups: dict[tuple[float, float], list] = {}
    distances = layer_distances(holding.bare(towers).network)
    for name, parameter in holding.bare(towers).network.named_parameters():
        if not parameter.requires_grad:
            continue
        text = name.startswith(("text_model.", "text_projection."))
        tokens = name.endswith(("token_embedding.weight", "word_embeddings.weight"))
        factor = optim.text_learning_rate_factor if text else 1.0
        peak = optim.learning_rate * (optim.token_learning_rate_factor if tokens else factor)
        peak *= optim.first_layer_factor ** distances[name]
        decay = optim.weight_decay if parameter.ndim > 1 and not tokens else 0.0
        groups.setdefault((peak, decay), []).append(parameter)
    for parameter in holding.bare(towers).parameters(recurse=False):
        if parameter.requires_grad:
            groups.setdefault((optim.learning_rate, 0.0), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "peak": peak, "lr": peak, "weight_decay": decay}
            for (peak, decay), parameters in groups.items()
        ],
        betas=(0.9, optim.beta2),
        fused=True,
    )
