"""Encoders in ONNX files, computed by onnxruntime: pixels -> features, tokens -> features.

They can be used, and images' ones paired, but not trained. The vector is the output called
image_embeds, pooler_output or embeddings, otherwise the first output of shape [batch, dim],
otherwise the first token of an output [batch, tokens, dim] or the mean over places of one [batch,
dim, height, width].
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from openmofi.errors import InputError

MODEL_TYPE = "openmofi_onnx"
TEXT_MODEL_TYPE = "openmofi_onnx_text"
FILE = "image_encoder.onnx"
TEXT_FILE = "text_encoder.onnx"
"""Their names in a model directory."""
_NAMES = ("image_embeds", "text_embeds", "pooler_output", "embeddings")


class OnnxConfig(PretrainedConfig):
    """What a network must know before the file is opened."""

    model_type = MODEL_TYPE

    def __init__(
        self,
        hidden_size: int = 0,
        image_size: int = 224,
        rows_alone: bool = False,
        **others: Any,
    ):
        self.hidden_size, self.image_size = hidden_size, image_size
        self.rows_alone = rows_alone
        """Whether each row is computed by itself, see `int8.to_int8`."""
        super().__init__(**others)


class OnnxTextConfig(PretrainedConfig):
    """What must be known of a text encoder before its file is opened."""

    model_type = TEXT_MODEL_TYPE

    def __init__(
        self,
        hidden_size: int = 0,
        max_position_embeddings: int = 77,
        read_as: str = "",
        rows_alone: bool = False,
        **others: Any,
    ):
        self.hidden_size, self.max_position_embeddings = hidden_size, max_position_embeddings
        self.rows_alone = rows_alone
        self.read_as = read_as
        """Kind of network in whose way texts are padded and masked, see `MofiModel`."""
        super().__init__(**others)


class _OnnxNetwork(PreTrainedModel):
    """A network without parameters; `open` gives it the file."""

    file: Path | None = None
    _session: Any = None
    output_name: str
    """Of the file, as of `open`."""

    def __init__(self, config: Any):
        super().__init__(config)
        self.post_init()

    def open(self, file: Path) -> None:
        """Opens the file.

        Raises:
            InputError: onnxruntime is not installed, or the file is not such an encoder.
        """
        session = _open_session(file)
        self._check_inputs(file, {i.name: i.shape for i in session.get_inputs()})
        self.file, self._session = Path(file), session
        outputs = {output.name: output.shape for output in session.get_outputs()}
        named = [name for name in _NAMES if name in outputs]
        flat = [name for name, shape in outputs.items() if len(shape) == 2]
        self.output_name = [*named, *flat, *outputs][0]

    def _check_inputs(self, file: Path, inputs: dict[str, list[Any]]) -> None:
        raise NotImplementedError

    def _run(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        assert self._session is not None, "open() comes first"
        rows = len(next(iter(inputs.values())))
        step = 1 if self.config.rows_alone else max(rows, 1)
        parts = []
        for start in range(0, rows, step):
            part = {name: values[start : start + step] for name, values in inputs.items()}
            parts += self._session.run([self.output_name], part)
        return np.concatenate(parts)


class OnnxEncoder(_OnnxNetwork):
    """An image encoder."""

    config_class = OnnxConfig
    main_input_name = "pixel_values"

    def _check_inputs(self, file: Path, inputs: dict[str, list[Any]]) -> None:
        if len(inputs) != 1 or len(next(iter(inputs.values()))) != 4:
            raise _wrong_inputs(file, inputs, "one input [batch, 3, height, width]")
        [(self.input_name, (self._batch, *_))] = inputs.items()

    def forward(self, pixel_values: Float[Tensor, "b 3 h w"]) -> BaseModelOutputWithPooling:
        """Returns the features as the pooler's output; gradients end here."""
        pixels = np.ascontiguousarray(pixel_values.detach().float().cpu().numpy())
        fixed = isinstance(getattr(self, "_batch", None), int) and self._batch > 0
        step = self._batch if fixed else len(pixels)
        parts = []
        for start in range(0, len(pixels), step):
            part = pixels[start : start + step]
            # A file of a fixed batch wants it full.
            filled = np.concatenate([part, np.repeat(part[:1], step - len(part), 0)])
            parts.append(self._run({self.input_name: filled})[: len(part)])
        features = torch.from_numpy(np.concatenate(parts)).float().to(pixel_values.device)
        if features.ndim == 3:
            features = features[:, 0]
        elif features.ndim == 4:
            features = features.mean((2, 3))
        return BaseModelOutputWithPooling(pooler_output=features)


class OnnxTextEncoder(_OnnxNetwork):
    """A text encoder, as `openmofi compile` writes it."""

    config_class = OnnxTextConfig
    main_input_name = "input_ids"

    def _check_inputs(self, file: Path, inputs: dict[str, list[Any]]) -> None:
        if list(inputs) not in (["input_ids"], ["input_ids", "attention_mask"]):
            raise _wrong_inputs(file, inputs, "input_ids, and perhaps attention_mask")
        self._inputs = list(inputs)

    def forward(
        self, input_ids: Int[Tensor, "b length"], attention_mask: Tensor | None = None
    ) -> BaseModelOutputWithPooling:
        """Returns the features as the pooler's output; gradients end here."""
        given = {"input_ids": input_ids, "attention_mask": attention_mask}
        tokens = {name: given[name] for name in self._inputs}
        features = self._run({n: ids.cpu().numpy() for n, ids in tokens.items() if ids is not None})
        return BaseModelOutputWithPooling(
            pooler_output=torch.from_numpy(features).float().to(input_ids.device)
        )


def onnx_parts(network: Any) -> dict[str, OnnxEncoder | OnnxTextEncoder]:
    """Returns {name of its file in a model directory: part} of the parts that are ONNX files."""
    parts = {FILE: "vision_model", TEXT_FILE: "text_model"}
    found = {file: getattr(network, name, None) for file, name in parts.items()}
    return {f: part for f, part in found.items() if isinstance(part, OnnxEncoder | OnnxTextEncoder)}


def _open_session(file: Path) -> Any:
    """Returns onnxruntime's session, with as many threads as torch has now."""
    try:
        import onnxruntime
    except ImportError:
        raise InputError(
            f"{str(file)!r} is an ONNX file; install: pip install 'openmofi[onnx]'."
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no class
        raise InputError(
            f"onnxruntime cannot open {str(file)!r}: {str(error).splitlines()[0]}"
        ) from None


def _wrong_inputs(file: Path, inputs: dict[str, list[Any]], expected: str) -> InputError:
    given = ", ".join(f"{name} {shape}" for name, shape in inputs.items())
    return InputError(f"{str(file)!r} takes {given}; expected {expected}.")


AutoConfig.register(MODEL_TYPE, OnnxConfig, exist_ok=True)
AutoModel.register(OnnxConfig, OnnxEncoder, exist_ok=True)
AutoConfig.register(TEXT_MODEL_TYPE, OnnxTextConfig, exist_ok=True)
AutoModel.register(OnnxTextConfig, OnnxTextEncoder, exist_ok=True)
