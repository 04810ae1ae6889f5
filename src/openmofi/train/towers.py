"""Both encoders as one module, and its distribution over several processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from openmofi.config import TrainSettings
from openmofi.errors import SettingsError
from openmofi.model import MofiModel
from openmofi.train.distributed import World, share_batch_norm
from openmofi.train.layers import layer_distances
from openmofi.train.losses import IMAGE_TEXT

_TEXT_SIDE = ("text_model.", "text_projection.", "text_embeds", "logit_scale", "logit_bias")


class Features(NamedTuple):
    """The output of the towers for a batch."""

    images: Float[Tensor, "b D"]
    """Not normalised."""
    texts: Float[Tensor, "b D"] | None
    """Not normalised; None without an image-text loss."""
    logit_scale: Float[Tensor, ""]
    logit_bias: Float[Tensor, ""]


class Towers(torch.nn.Module):
    """Pixels and tokens -> features; the module for DDP, FSDP and torch.compile."""

    def __init__(self, model: MofiModel, settings: TrainSettings):
        super().__init__()
        self.network = model.network
        self._model = [model]  # in a list: it is not a submodule
        self._settings = settings
        self.reads_texts = settings.loss.contrastive > 0
        self.precision = forward_precision(settings, model.device)
        bias = IMAGE_TEXT[settings.loss.image_text].logit_bias
        if not isinstance(getattr(model.network, "logit_bias", None), torch.nn.Parameter):
            # CLIP's networks have no bias, and search does not need one.
            start = torch.tensor(bias or 0.0, device=model.device)
            self.logit_bias = torch.nn.Parameter(start)
        self.bias.requires_grad_(self.reads_texts and bias is not None)
        if not self.reads_texts:
            freeze_text_side(model.network)
        text = getattr(model.network, "text_model", None) or torch.nn.Module()
        self._norms_texts = any(isinstance(m, _BatchNorm) for m in text.modules())
        self._fixed_norms: list[_BatchNorm] = []
        """Batch norms that keep the statistics of a pretrained encoder."""
        if settings.optim.first_layer_factor < 1:
            norms = (m for m in model.network.modules() if isinstance(m, _BatchNorm))
            self._fixed_norms = list(norms)
        # Activations after batch norms may overwrite their inputs, which nothing reads again.
        for module in model.network.modules():
            if isinstance(module, torch.nn.ReLU | torch.nn.ReLU6):
                module.inplace = True

    def train(self, mode: bool = True) -> Towers:
        """Sets the mode of all parts but of batch norms that keep their statistics."""
        super().train(mode)
        for norm in self._fixed_norms:
            norm.eval()
        return self

    def forward(self, inputs: Float[Tensor, "b 3 h w"], tokens: dict[str, Tensor]) -> Features:
        """Returns the features of normalised pixels and of tokenised texts."""
        model = self._model[0]
        with self.precision:
            images = model.image_features(inputs)
            texts = self._text_features(tokens) if self.reads_texts else None
        # Not the parameters themselves, because their gradients must come with the others'.
        return Features(
            images.float(),
            None if texts is None else texts.float(),
            model.logit_scale.reshape(()) * 1.0,
            self.bias.reshape(()) * 1.0,
        )

    def _text_features(self, tokens: dict[str, Tensor]) -> Float[Tensor, "b D"]:
        """Returns the features of texts; on a CPU, those of equal texts are computed only once."""
        model = self._model[0]
        settings = self._settings
        # A GPU would wait for the number of texts; FSDP needs equally many calls in each process.
        # Batch norms, which MobileCLIP-S0 has among its texts, see the batch as it is.
        whole = settings.compile or settings.parallel == "fsdp" or self._norms_texts
        if model.device.type != "cpu" or whole:
            return model.token_features(tokens)
        fills_up = model.text_inputs.padding == "max_length"  # such a tower is read at its end
        pad = None if fills_up else model.tokenizer.pad_token_id
        groups, place = distinct_texts(tokens, pad=pad)
        return torch.cat([model.token_features(group) for group in groups])[place]

    @property
    def bias(self) -> torch.nn.Parameter:
        """The bias of every logit, if the loss has one: the network's own, or the training's."""
        own = getattr(self.network, "logit_bias", None)
        return own if isinstance(own, torch.nn.Parameter) else self.logit_bias


def distinct_texts(
    tokens: dict[str, Int[Tensor, "b length"]], *, pad: int | None, num_groups: int = 3
) -> tuple[list[dict[str, Int[Tensor, "n short"]]], Int[Tensor, " b"]]:
    """Returns the different texts of a batch in groups of similar length, and each text's place.

    A batch holds the text of a frequent entity many times and is as long as its longest text;
    computing repeats and padding is a waste.

    Args:
        tokens: input_ids and, for towers that are not causal, attention_mask.
        pad: the id of the padding on the right; None keeps all texts at full length.
        num_groups: largest number of groups.
    """
    ids, first, place = np.unique(
        tokens["input_ids"].numpy(), axis=0, return_index=True, return_inverse=True
    )
    lengths = np.full(len(ids), ids.shape[1])
    if pad is not None:
        columns = np.arange(1, ids.shape[1] + 1)
        # One token more than seems needed: the end of a text may have the same id as the padding.
        lengths = np.minimum(((ids != pad) * columns).max(1) + 1, ids.shape[1])
    order = np.argsort(lengths, kind="stable")
    parts = np.array_split(order, min(num_groups, len(order)))
    groups = [
        {
            n: values[torch.from_numpy(first[part]), : lengths[part[-1]]]
            for n, values in tokens.items()
        }
        for part in parts
    ]
    return groups, torch.from_numpy(np.argsort(order)[place.reshape(-1)])


def forward_precision(settings: TrainSettings, device: torch.device) -> torch.autocast:
    """Returns the context in which products are computed."""
    enabled = settings.precision == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def freeze_unreached(towers: Towers) -> None:
    """Freezes parameters that no loss reaches, such as a pooling layer whose output is not used.

    One pass of two grey images and texts finds them; DDP and resuming need to know.
    """
    model = towers._model[0]
    size = model.transform.size
    pixels = torch.full((2, size, size, 3), 127, dtype=torch.uint8, device=model.device)
    texts: dict[str, Tensor] = {}
    if towers.reads_texts:
        texts = {n: ids.to(model.device) for n, ids in model.text_inputs(["a", "b"]).items()}
    towers.eval()
    found = towers(model.transform.normalise(pixels), texts)
    reached = [part.sum() for part in found if part is not None and part.requires_grad]
    torch.stack(reached).sum().backward()
    for parameter in towers.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None


def freeze_text_side(network: torch.nn.Module) -> None:
    """Freezes the parameters that a loss without texts never reaches."""
    for name, parameter in network.named_parameters():
        if name.startswith(_TEXT_SIDE):
            parameter.requires_grad_(False)


def freeze_layers(towers: Towers, settings: TrainSettings) -> None:
    """Freezes all layers of the towers where their step size is 0."""
    if settings.optim.first_layer_factor == 0:
        distances = layer_distances(towers.network)
        for name, parameter in towers.network.named_parameters():
            if distances[name] > 0:
                parameter.requires_grad_(False)


def spread(towers: Towers, settings: TrainSettings, world: World) -> torch.nn.Module:
    """Returns the towers as the processes hold them: compiled, copied or sharded."""
    share_batch_norm(towers.network, world)
    if settings.grad_checkpointing:  # compute activations again instead of keeping them
        network: Any = towers.network
        if not network.supports_gradient_checkpointing:
            raise SettingsError(
                f"A {type(network).__name__} such as this cannot compute activations twice; leave "
                "out grad_checkpointing, and lower micro_batch_size to save memory."
            )
        enable = getattr(network, "activation_checkpointing_enable", None)  # transformers 5.23
        (enable or network.gradient_checkpointing_enable)({"use_reentrant": False})
    if settings.compile:
        towers.compile()
    if world.size == 1:
        return towers
    if settings.parallel == "fsdp":
        return _shard(towers, world)
    devices = [world.device] if world.device.type == "cuda" else None
    return DistributedDataParallel(
        towers, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True
    )


def scalars(towers: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Returns the 0-d parameters, which FSDP cannot shard."""
    return [parameter for parameter in towers.parameters() if parameter.ndim == 0]


def _shard(towers: Towers, world: World) -> torch.nn.Module:
    """Shards every layer separately, and the rest together."""
    mesh = dist.init_device_mesh(world.device.type, (world.size,))
    for parameter in towers.parameters():
        parameter.data = parameter.data.contiguous()  # FSDP does not accept channels_last
    for module in list(towers.modules()):
        if isinstance(module, torch.nn.ModuleList):
            for layer in module:
                if any(True for _ in layer.parameters()):
                    fully_shard(layer, mesh=mesh)
    fully_shard(towers, mesh=mesh, ignored_params=set(scalars(towers)))
    return towers


@contextmanager
def gradients_shared(towers: torch.nn.Module, *, now: bool) -> Iterator[None]:
    """Averages the gradients of the backward pass inside over the processes, but only if `now`."""
    if isinstance(towers, DistributedDataParallel) and not now:
        with towers.no_sync():
            yield
        return
    if isinstance(towers, FSDPModule):
        towers.set_requires_gradient_sync(now)
    yield


def average_scalars(towers: torch.nn.Module, world: World) -> None:
    """Averages over the processes the gradients that FSDP does not handle."""
    if not isinstance(towers, FSDPModule):
        return
    for parameter in scalars(towers):
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad, group=world.group)
            parameter.grad /= world.size


@contextmanager
def whole(towers: torch.nn.Module) -> Iterator[None]:
    """Makes sharded towers usable outside their forward pass; all processes must enter."""
    if not isinstance(towers, FSDPModule):
        yield
        return
    towers.unshard()
    try:
        yield
    finally:
        towers.reshard()


def bare(towers: torch.nn.Module) -> Towers:
    """Returns the towers without the wrapper of DDP."""
    inner: Any = towers.module if isinstance(towers, DistributedDataParallel) else towers
    assert isinstance(inner, Towers)
    return inner


def full_weights(towers: torch.nn.Module) -> dict[str, Tensor]:
    """Returns the network's complete weights, on the CPU, in the first process."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = get_model_state_dict(bare(towers), options=options)
    prefix = "network."
    named = {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}
    return {name: tensor for name, tensor in named.items() if isinstance(tensor, Tensor)}
