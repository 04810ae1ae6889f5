"""An encoder ready for use: images and, of a dual encoder, texts -> unit vectors in one space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from openmofi.errors import InputError, SettingsError
from openmofi.images.decode import ImageSource
from openmofi.model.onnx_encoder import onnx_parts
from openmofi.model.precision import dtype_of
from openmofi.model.tokenizer import TextInputs
from openmofi.model.transform import Transform

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ENCODE_BATCH = 256
_CPU_PIXELS = 800_000
"""Pixels of a batch on a CPU, at which EfficientNet-Lite0 and nano are fastest (2026-11-29)."""
_ALONE_BATCH = 64
_ALONE_STEP = 16
"""Lengths of texts that are encoded alone are rounded up to a multiple of so many tokens."""


_DEFAULT_CONTEXT = 512
"""Tokens read by text towers whose positions have no end, such as T5's."""
_FULL_CONTEXT = ("siglip", "open_clip", "mobileclip")
"""Kinds of networks that were trained with every text padded to the context."""
_CAUSAL = "clip"
"""Kind of text towers in which no token sees those after it."""


def pick_device(device: str) -> torch.device:
    """Returns the torch device for auto | cpu | cuda | cuda:N.

    Raises:
        SettingsError: this machine has no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError:
        raise SettingsError(
            f"There is no device {device!r}; use auto, cpu, cuda or cuda:N."
        ) from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise SettingsError(
            f"This machine has {torch.cuda.device_count()} CUDA devices, so not {device!r}; use "
            "--device auto."
        )
    return found


def pooled(output: Any) -> Tensor:
    """Returns the feature tensor, which transformers 5 wraps in an object and 4 does not."""
    return output if isinstance(output, Tensor) else output.pooler_output


class MofiModel:
    """An image tower, a text tower unless it reads images alone, and what feeds them."""

    def __init__(
        self,
        network: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        transform: Transform,
        device: str = "cpu",
        precision: str = "fp32",
    ):
        # onnxruntime computes on the processor, and is not faster beside a GPU.
        self.device = pick_device("cpu" if onnx_parts(network) else device)
        self._dtype = dtype_of(precision, self.device)
        # transformers types its methods loosely; Any keeps the type checker out of them.
        self.network: Any = cast("Any", network)
        # With the channels innermost, convolutions are 1.4 times faster on a CPU.
        self.network.to(self.device, memory_format=torch.channels_last)
        self.tokenizer: Any = tokenizer
        self.transform = transform
        kind = str(network.config.model_type)
        text = getattr(network.config, "text_config", None)
        # clip_text_model, bert, ...; of an ONNX file, what it was made from
        text_kind = str(getattr(text, "read_as", "") or getattr(text, "model_type", "") or kind)
        fills_up = kind.startswith(_FULL_CONTEXT) or text_kind.startswith(_FULL_CONTEXT)
        self.text_kind = kind if kind.startswith(_FULL_CONTEXT) else text_kind
        self._padding = "max_length" if fills_up else True
        self._masks = not text_kind.startswith((_CAUSAL, *_FULL_CONTEXT))
        vision = getattr(network.config, "vision_config", None)
        self._images_alone, self._texts_alone = (
            bool(getattr(side, "rows_alone", False)) for side in (vision, text)
        )
        self.text_inputs = TextInputs(tokenizer, self._padding, self._masks, self.context_length)

    @property
    def reads_texts(self) -> bool:
        """Whether there is a text tower."""
        return self.tokenizer is not None

    def check_reads_texts(self) -> None:
        """Refuses a model that reads images alone.

        Raises:
            InputError: it does.
        """
        if not self.reads_texts:
            name = self.network.name_or_path or type(self.network).__name__
            raise InputError(
                f"{name!r} reads images alone, and this needs texts, too; give it a text encoder "
                "with `openmofi pair`, or pass a dual encoder such as "
                "openai/clip-vit-base-patch32."
            )

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        config = self.network.config
        return int(getattr(config, "projection_dim", None) or config.text_config.projection_size)

    @property
    def logit_scale(self) -> Tensor:
        """Log of the inverse temperature, a parameter of the network."""
        scale = self.network.logit_scale
        assert isinstance(scale, Tensor)
        return scale

    def image_features(self, inputs: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch dim"]:
        """Returns unnormalised image features, with gradients."""
        return pooled(self.network.get_image_features(pixel_values=inputs))

    @property
    def context_length(self) -> int:
        """Number of tokens that the text tower reads."""
        text = getattr(self.network.config, "text_config", None)
        places = int(getattr(text, "max_position_embeddings", None) or _DEFAULT_CONTEXT)
        if not self._masks or not self.reads_texts:
            return places
        return min(places, self.tokenizer.model_max_length)  # RoBERTa has two places to spare

    def tokenize(self, texts: Sequence[str], length: int | None = None) -> Tensor:
        """Returns token ids [n, length] on the model's device, truncated to the context.

        Args:
            texts: texts to tokenise.
            length: number of tokens to which every text is padded; by default, that of the longest.
        """
        return self.text_inputs(texts, length)["input_ids"].to(self.device)

    def text_features(
        self, texts: Sequence[str], length: int | None = None
    ) -> Float[Tensor, "batch dim"]:
        """Returns unnormalised text features, with gradients.

        A causal text tower gets no attention mask, as in MOFI: the text is read at its end, and no
        token sees the padding after it. Other towers, such as BERT, get a mask.

        Args:
            texts: texts to encode.
            length: see `tokenize`.
        """
        return self.token_features(
            {n: ids.to(self.device) for n, ids in self.text_inputs(texts, length).items()}
        )

    def token_features(
        self, inputs: dict[str, Int[Tensor, "batch length"]]
    ) -> Float[Tensor, "batch dim"]:
        """Returns unnormalised text features of tokenised texts, with gradients."""
        return pooled(self.network.get_text_features(**inputs))

    @torch.inference_mode()
    def encode_images(
        self, images: ImageSource | Sequence[ImageSource]
    ) -> Float[np.ndarray, "n dim"]:
        """Returns L2-normalised float32 vectors of images (paths, bytes, arrays or PIL).

        A single image counts as a list of one.
        """
        self.network.eval()
        one = not isinstance(images, Sequence | np.ndarray) or isinstance(images, str | bytes)
        if one or (isinstance(images, np.ndarray) and images.ndim < 4):
            images = [cast("ImageSource", images)]
        images = cast("Sequence[ImageSource]", images)
        parts = []
        for start in range(0, len(images), ENCODE_BATCH):
            inputs = self.transform(images[start : start + ENCODE_BATCH]).to(self.device)
            with self._forward():
                parts.append(_unit(self.image_features(inputs)))
        return _stack(parts, self.dim)

    @torch.inference_mode()
    def encode_pixels(self, pixels: np.ndarray) -> Float[np.ndarray, "n dim"]:
        """Returns L2-normalised vectors of uint8 pixels [n, size, size, 3] (Transform.pixels).

        On a GPU they go through the network in one batch, whose size the caller chooses; on a CPU
        in small ones, since large activations cost more to get from the system than to compute.
        """
        step = self._cpu_batch if self.device.type == "cpu" else max(len(pixels), 1)
        parts = [
            self._encode_batch(pixels[start : start + step])
            for start in range(0, len(pixels), step)
        ]
        return _stack(parts, self.dim)

    def encode_pixels_alone(self, pixels: np.ndarray, at_once: int) -> Float[np.ndarray, "n dim"]:
        """Returns vectors that do not depend on the other images, to the last bit.

        The last bits of a vector change with the shape of its batch. So all batches have the same
        number of images; the last one is filled up.

        Args:
            pixels: as of `encode_pixels`.
            at_once: images of a batch on a GPU; on a CPU it follows from their size.
        """
        if self.device.type == "cpu":
            at_once = 1 << round(math.log2(self._cpu_batch))  # which divides most batch sizes
        parts = []
        for start in range(0, len(pixels), at_once):
            part = pixels[start : start + at_once]
            if self._images_alone:
                parts.append(self._encode_batch(part))
                continue
            filled = np.zeros((at_once, *part.shape[1:]), np.uint8)
            filled[: len(part)] = part
            parts.append(self._encode_batch(filled)[: len(part)])
        return _stack(parts, self.dim)

    @property
    def _cpu_batch(self) -> int:
        return max(8, min(64, _CPU_PIXELS // self.transform.size**2))

    @torch.inference_mode()
    def _encode_batch(self, pixels: np.ndarray) -> np.ndarray:
        self.network.eval()
        batch = torch.from_numpy(pixels).to(self.device, non_blocking=True)
        with self._forward():
            return _unit(self.image_features(self.transform.normalise(batch)))

    @torch.inference_mode()
    def encode_texts(self, texts: str | Sequence[str]) -> Float[np.ndarray, "n dim"]:
        """Returns L2-normalised float32 vectors of texts; a single text counts as a list of one."""
        self.check_reads_texts()
        self.network.eval()
        texts = [texts] if isinstance(texts, str) else texts
        if self._texts_alone:  # whose padding would count
            return self.encode_texts_alone(texts)
        parts = []
        for start in range(0, len(texts), ENCODE_BATCH):
            with self._forward():
                parts.append(_unit(self.text_features(texts[start : start + ENCODE_BATCH])))
        return _stack(parts, self.dim)

    @torch.inference_mode()
    def encode_texts_alone(self, texts: str | Sequence[str]) -> Float[np.ndarray, "n dim"]:
        """Returns vectors that do not depend on the other texts, to the last bit.

        The last bits of a vector change with the shape of its batch. So all batches have 64 rows
        and a length that depends only on the text.
        """
        self.check_reads_texts()
        self.network.eval()
        texts = [texts] if isinstance(texts, str) else texts
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for length, rows in self._by_length(texts).items():
            for start in range(0, len(rows), _ALONE_BATCH):
                part = rows[start : start + _ALONE_BATCH]
                missing = 0 if self._texts_alone else _ALONE_BATCH - len(part)
                filled = part + part[:1] * missing
                with self._forward():
                    features = self.text_features([texts[row] for row in filled], length)
                vectors[part] = _unit(features)[: len(part)]
        return vectors

    def _by_length(self, texts: Sequence[str]) -> dict[int, list[int]]:
        """Returns {length: rows of the texts that are padded to it}."""
        limit = self.context_length
        if self._padding == "max_length":
            return {limit: list(range(len(texts)))}
        encoded = self.tokenizer(list(texts), truncation=True, max_length=limit) if texts else {}
        rows: dict[int, list[int]] = {}
        for row, ids in enumerate(encoded.get("input_ids", ())):
            rows.setdefault(min(-(-len(ids) // _ALONE_STEP) * _ALONE_STEP, limit), []).append(row)
        return rows

    def _forward(self):
        """Returns the context in which the network computes with the chosen precision."""
        enabled = self._dtype is not torch.float32
        return torch.autocast(self.device.type, dtype=self._dtype, enabled=enabled)


def _unit(features: Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()


def _stack(parts: list[np.ndarray], dim: int) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros((0, dim), dtype=np.float32)
