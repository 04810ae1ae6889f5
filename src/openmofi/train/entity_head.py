"""The class head: image vectors + class indices -> margin softmax loss, with row-wise updates.

Class rows live outside autograd; each rank of a group holds a range of them. A step gathers only
the rows that it needs, and `step` writes their updates back, so no gradient or optimiser pass has
the size of the vocabulary. Up to `num_sampled` classes, or with the sampler `full`, the softmax is
exact. Rows, draws and losses are the same for any number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from torch.nn import functional as F

from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.config import HeadSettings
from openmofi.errors import InputError, MismatchError
from openmofi.train import row_optim
from openmofi.train.class_sampling import ClassSampler, present_classes
from openmofi.train.collectives import gather, num_ranks, rank_of, row_ranges
from openmofi.train.sharded_softmax import MOST_AT_ONCE, Comparison, cross_entropy, row_gradients

__all__ = ["EntityHead"]

_DRAWN_AT_ONCE = 16_384  # initial rows; changing it changes the rows of every seed


class EntityHead:
    """Rows of a cosine classifier with their own optimiser.

    Args:
        num_classes: size of the vocabulary, over all ranks.
        dim: width of the image vectors.
        settings: loss, sampler and optimiser.
        seed: seed of the initial rows and of the draws.
        device: device of the rows.
        group: the ranks that share the rows; all of them call every method together.
        class_counts: number of images of every class, for the sampler `popularity`.

    Raises:
        SettingsError: the sampler is `popularity`, but there are no counts.
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        settings: HeadSettings,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        group: dist.ProcessGroup | None = None,
        class_counts: Int[Tensor, " N"] | None = None,
    ):
        self.num_classes, self.settings, self.group = num_classes, settings, group
        device = torch.device(device)
        ranges = row_ranges(num_classes, num_ranks(group))
        self.row_range = ranges[rank_of(group)]
        self.trim = device.type == "cpu"
        """Whether to cut padding off; on a GPU that means waiting, so shapes are fixed there."""
        num_rows = self.row_range[1] - self.row_range[0] + 1  # one more, for padding
        self._rows_ND = torch.zeros(num_rows, dim, device=device)
        _draw_rows(self.rows_ND, self.row_range, num_classes, seed)
        self._state = row_optim.make_state(settings.optimizer, num_rows, dim, device)
        self._sampler: ClassSampler | None = None
        if settings.sampler != "full" and num_classes > settings.num_sampled:
            self._sampler = ClassSampler(
                num_classes, settings, seed=seed, device=device, class_counts=class_counts
            )
            self._most_drawn = self._sampler.most_present(*self.row_range)
        self._kernels = None
        if device.type == "cuda":
            with suppress(ImportError):  # without Triton, the torch code does the same
                from openmofi.train import row_kernels

                self._kernels = row_kernels
        self._mesh: DeviceMesh | None = None
        if group is not None and num_ranks(group) > 1:
            self._mesh = DeviceMesh.from_group(group, device.type)
        self._index: row_optim.Rows = slice(0, 0)
        self._comparison: Comparison | None = None

    @property
    def rows_ND(self) -> Float[Tensor, "N D"]:
        """The unit rows that this rank holds."""
        return self._rows_ND[:-1]

    def begin_at(self, rows_ND: Float[Tensor, "N D"]) -> None:
        """Sets the rows, given for all ranks; a zero row leaves the random one."""
        mine = rows_ND[slice(*self.row_range)].to(self._rows_ND.device)
        given = mine.any(1)
        self.rows_ND[given] = mine[given]

    def loss(
        self,
        images_BD: Float[Tensor, "B D"],
        targets_BK: Int[Tensor, "B K"],
        *,
        step: int,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Returns (loss, accuracy without margin) of this rank's images.

        Args:
            images_BD: unit vectors, the same number on every rank.
            targets_BK: true classes, the target first, padded with -1.
            step: keys the draw of classes, so any step can be repeated.

        Raises:
            InputError: a target is not one of the classes; on a GPU, torch raises later instead.
        """
        assert len(images_BD) == len(targets_BK) >= 1, "every rank needs an image"
        targets_AK = gather(targets_BK.to(self._rows_ND.device), self.group)
        self._refuse_strangers(targets_AK)
        comparison = self._compare(targets_AK, step)
        device_type = images_BD.device.type
        if torch.is_autocast_enabled(device_type):
            comparison.product_dtype = torch.get_autocast_dtype(device_type)
        self._comparison = comparison
        return cross_entropy(images_BD, comparison)

    def _refuse_strangers(self, targets_AK: Tensor) -> None:
        """Refuses targets outside the vocabulary, in the same way on every rank."""
        least_K = torch.full_like(targets_AK[0], -1)
        least_K[0] = 0  # every image has a target, even without other classes
        wrong_AK = (targets_AK < least_K) | (targets_AK >= self.num_classes)
        if not self.trim:  # without waiting for the GPU
            torch._assert_async(~wrong_AK.any(), "a target is not among the entity head's classes")
        elif wrong_AK.any():
            raise InputError(
                f"Target {int(targets_AK[wrong_AK][0])} is not among the {self.num_classes} "
                f"classes of the entity head; expected numbers from 0 to {self.num_classes - 1}, "
                "and -1 only where an image has fewer classes than others."
            )

    def row_gradients(self) -> Iterator[tuple[row_optim.Rows, Tensor]]:
        """Yields (row numbers within the shard, gradient of these normalised rows), in blocks.

        It is the gradient of the mean over ranks of the last loss that was differentiated. Row
        number `len(rows_ND)` is padding.
        """
        assert self._comparison is not None, "no loss yet"
        for first, last, gradient_SD in row_gradients(self._comparison):
            whole = isinstance(self._index, Tensor)
            yield self._index if whole else slice(first, last), gradient_SD

    @torch.no_grad()
    def step(self, *, learning_rate: float, skip: Tensor | None = None) -> None:
        """Updates the rows that the last loss used.

        Args:
            learning_rate: step size of the rows.
            skip: 0-d; nonzero leaves everything unchanged, without waiting for the device.
        """
        update = self._kernels.update_rows if self._kernels else row_optim.update_rows
        for index, gradient_SD in self.row_gradients():
            update(
                self.settings.optimizer,
                self._rows_ND,
                self._state,
                index,
                gradient_SD,
                learning_rate=learning_rate,
                skip=skip,
            )
        self._comparison = None

    def state_dict(self) -> dict[str, Tensor]:
        """Returns everything that resuming needs: views of the storage, DTensors with a group."""
        tensors = {"rows": self._rows_ND} | self._state
        return {name: self.shared(values[:-1]) for name, values in tensors.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copies a state, in the form of `state_dict`, into the storage.

        Raises:
            MismatchError: it is of another number of classes, width or optimiser.
        """
        own = self.state_dict()
        shapes = {name: tuple(values.shape) for name, values in own.items()}
        given = {name: tuple(values.shape) for name, values in state.items()}
        if given.get("rows") != shapes["rows"]:
            raise MismatchError(
                f"The checkpoint's entity head is {given.get('rows')} but this dataset and model "
                f"need {shapes['rows']}; resume with the same dataset."
            )
        if given != shapes:
            raise MismatchError(
                f"The checkpoint's entity head keeps {', '.join(given)} of another optimizer than "
                f"{self.settings.optimizer!r}; resume with the same head.optimizer."
            )
        for name, values in own.items():
            values.copy_(state[name])

    def _compare(self, targets_AK: Tensor, step: int) -> Comparison:
        """Returns this step's comparison, and stores the row numbers."""
        first, last = self.row_range
        if self._sampler is None:
            self._index = slice(0, last - first)
            return Comparison(
                columns_AK=_columns(targets_AK - first, self._index),
                num_columns=last - first,
                unit_rows=lambda a, b: F.normalize(self._rows_ND[a:b], dim=-1),
                settings=self.settings,
                group=self.group,
                dtype=self._rows_ND.dtype,
                keep_row_gradient=last - first <= MOST_AT_ONCE,
            )
        classes = present_classes(
            self._sampler,
            targets_AK.flatten(),
            step=step,
            shard=self.row_range,
            most_drawn=self._most_drawn,
            log_q=self.settings.log_q,
            trim=self.trim,
        )
        self._index = classes.rows_S
        unit_SD = self._gathered(classes.rows_S)
        return Comparison(
            columns_AK=_columns(
                torch.where(targets_AK < last, targets_AK - first, -1), classes.rows_S
            ),
            num_columns=len(unit_SD),
            unit_rows=lambda a, b: unit_SD[a:b],
            settings=self.settings,
            group=self.group,
            dtype=self._rows_ND.dtype,
            log_q_S=classes.log_q_S,
            padding_S=classes.padding_S,
        )

    def _gathered(self, index_S: Tensor) -> Tensor:
        """Returns normalised copies of rows."""
        if self._kernels:
            return self._kernels.gather_unit_rows(self._rows_ND, index_S)
        return F.normalize(self._rows_ND.index_select(0, index_S), dim=-1)

    def shared(self, local: Tensor) -> Tensor:
        """Returns this rank's part, as a DTensor of the whole if there are several ranks."""
        if self._mesh is None:
            return local
        shape = torch.Size((self.num_classes, *local.shape[1:]))
        stride = local.stride()
        return DTensor.from_local(
            local, self._mesh, [Shard(0)], run_check=False, shape=shape, stride=stride
        )


def _draw_rows(rows_ND: Tensor, row_range: tuple[int, int], num_classes: int, seed: int) -> None:
    """Fills a shard with random directions, drawn by block of classes, however they are sharded."""
    first, last = row_range
    for start in range(first - first % _DRAWN_AT_ONCE, last, _DRAWN_AT_ONCE):
        end = min(start + _DRAWN_AT_ONCE, num_classes)
        generator = torch.Generator()
        generator.manual_seed(random_key(seed, Purpose.CLASS_ROWS, start))
        drawn_CD = F.normalize(
            torch.randn(end - start, rows_ND.shape[1], generator=generator), dim=-1
        )
        low, high = max(first, start), min(last, end)
        rows_ND[low - first : high - first] = drawn_CD[low - start : high - start]


def _columns(rows_AK: Tensor, index: row_optim.Rows) -> Tensor:
    """Returns the place of each row number in the (ascending) index, -1 if it is not in it."""
    if isinstance(index, slice):
        return torch.where((rows_AK >= 0) & (rows_AK < index.stop), rows_AK, -1)
    if not len(index):
        return torch.full_like(rows_AK, -1)
    places_AK = torch.searchsorted(index, rows_AK).clamp(max=len(index) - 1)
    return torch.where((rows_AK >= 0) & (index[places_AK] == rows_AK), places_AK, -1)
