"""The class head: image vectors + class indices -> CosFace loss, with row-wise updates.

Class rows live outside autograd. Each step gathers only the rows it needs into a leaf [S, D],
and `step` writes their updates back, so neither a gradient nor an optimiser state of the size of
the vocabulary is ever touched. Up to `num_sampled` classes the softmax is exact.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from openmofi.config import HeadSettings
from openmofi.errors import MismatchError
from openmofi.train.losses import cosface

_BETA1, _BETA2, _EPSILON = 0.9, 0.99, 1e-8


class EntityHead:
    """Rows of a cosine classifier with their own lazy Adam state."""

    def __init__(self, num_classes: int, dim: int, settings: HeadSettings, *, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        self.rows_ND = F.normalize(torch.randn(num_classes, dim, generator=generator), dim=-1)
        self.first_ND = torch.zeros_like(self.rows_ND)
        self.second_ND = torch.zeros_like(self.rows_ND)
        self.updates_N = torch.zeros(num_classes, dtype=torch.int32)
        self.settings, self.seed = settings, seed
        self._leaf_SD: Tensor | None = None
        self._classes_S: Tensor | None = None

    @property
    def num_classes(self) -> int:
        """Number of rows."""
        return len(self.rows_ND)

    def to(self, device: torch.device) -> EntityHead:
        """Moves the rows and their state."""
        for name in ("rows_ND", "first_ND", "second_ND", "updates_N"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def loss(
        self,
        images_BD: Float[Tensor, "B D"],
        targets_BK: Int[Tensor, "B K"],
        *,
        step: int,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Returns (loss, accuracy without margin) and remembers the rows that it used.

        Args:
            images_BD: unit vectors.
            targets_BK: true classes, first one the target, -1 where there are fewer than K.
            step: keys the sampling, so that any step can be repeated.
        """
        classes_S, log_correction_S = self._sample(targets_BK, step)
        self._classes_S = classes_S
        self._leaf_SD = self.rows_ND[classes_S].requires_grad_()
        cosines_BS = images_BD @ F.normalize(self._leaf_SD, dim=-1).T
        columns_BK = torch.searchsorted(classes_S, targets_BK.clamp(min=0))
        counts_BS = torch.zeros_like(cosines_BS, dtype=torch.int32)
        masked_BS = counts_BS.scatter_add_(1, columns_BK, (targets_BK >= 0).int()) > 0
        target_B = columns_BK[:, 0]
        masked_BS.scatter_(1, target_B[:, None], False)
        loss = cosface(
            cosines_BS,
            target_B,
            margin=self.settings.margin,
            scale=self.settings.scale,
            log_correction_C=log_correction_S,
            masked_BC=masked_BS,
        )
        best_B = cosines_BS.detach().masked_fill(masked_BS, -2.0).argmax(1)
        return loss, (best_B == target_B).float().mean()

    def _sample(self, targets_BK: Tensor, step: int) -> tuple[Tensor, Tensor | None]:
        """Returns sorted class ids of this step and their logQ correction (None: all classes)."""
        total, wanted = self.num_classes, self.settings.num_sampled
        device = targets_BK.device
        if total <= wanted:
            return torch.arange(total, device=device), None
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        drawn = torch.randint(total, (wanted,), generator=generator).to(device)
        positives = targets_BK[targets_BK >= 0].unique()
        classes_S = torch.cat([drawn, positives]).unique()
        # A class is present by chance with this probability; the batch's own classes are always
        # present, and must not be favoured for it.
        inclusion = 1.0 - (1.0 - 1.0 / total) ** wanted
        correction_S = torch.full((len(classes_S),), inclusion, device=device).log()
        correction_S[torch.searchsorted(classes_S, positives)] = 0.0
        return classes_S, correction_S

    @torch.no_grad()
    def step(self, *, learning_rate: float) -> None:
        """Updates the rows that the last loss used (Adam per row, bias-corrected per row)."""
        assert self._leaf_SD is not None, "no loss yet"
        index, grad_SD = self._classes_S, self._leaf_SD.grad
        assert grad_SD is not None, "no backward yet"
        updates_S = self.updates_N[index] + 1
        first_SD = torch.lerp(grad_SD, self.first_ND[index], _BETA1)
        second_SD = torch.lerp(grad_SD.square(), self.second_ND[index], _BETA2)
        self.updates_N[index] = updates_S
        self.first_ND[index] = first_SD
        self.second_ND[index] = second_SD
        count_S1 = updates_S[:, None].float()
        mean_SD = first_SD / (1 - _BETA1**count_S1)
        deviation_SD = (second_SD / (1 - _BETA2**count_S1)).sqrt() + _EPSILON
        moved_SD = self._leaf_SD - learning_rate * mean_SD / deviation_SD
        self.rows_ND[index] = F.normalize(moved_SD, dim=-1)  # only their direction matters
        self._leaf_SD = None

    def state_dict(self) -> dict[str, Tensor]:
        """Returns everything that resuming needs."""
        return {
            "rows": self.rows_ND,
            "first": self.first_ND,
            "second": self.second_ND,
            "updates": self.updates_N,
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes up a state.

        Raises:
            MismatchError: it has another number of classes or another width.
        """
        if state["rows"].shape != self.rows_ND.shape:
            raise MismatchError(
                f"The checkpoint's entity head is {tuple(state['rows'].shape)} but this dataset "
                f"and model need {tuple(self.rows_ND.shape)}; resume with the same dataset."
            )
        device = self.rows_ND.device
        self.rows_ND = state["rows"].to(device)
        self.first_ND = state["first"].to(device)
        self.second_ND = state["second"].to(device)
        self.updates_N = state["updates"].to(device)


def save_head(head: EntityHead, ids: list[str], out: Path) -> None:
    """Writes the rows (safetensors) and the entity id of each row."""
    out.mkdir(parents=True, exist_ok=True)
    save_file({"rows": head.rows_ND.cpu().contiguous()}, out / "rows.safetensors")
    (out / "ids.json").write_text(json.dumps(ids, ensure_ascii=False))


def load_head_rows(folder: Path) -> tuple[Float[Tensor, "N D"], list[str]]:
    """Returns (unit class rows, entity ids) as `save_head` wrote them."""
    rows_ND = load_file(folder / "rows.safetensors")["rows"]
    return F.normalize(rows_ND.float(), dim=-1), json.loads((folder / "ids.json").read_text())
