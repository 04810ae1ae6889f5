"""An image encoder in an ONNX file: pixels -> features, computed by onnxruntime.

It can be used and paired but not trained. The vector is the output called image_embeds,
pooler_output or embeddings, otherwise the first output of shape [batch, dim], otherwise the first
token of an output [batch, tokens, dim] or the mean over places of one [batch, dim, height, width].
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from openmofi.errors import InputError

MODEL_TYPE = "openmofi_onnx"
FILE = "image_encoder.onnx"
"""Its name in a model directory."""
_NAMES = ("image_embeds", "pooler_output", "embeddings")


class OnnxConfig(PretrainedConfig):
    """What a network must know before the file is opened."""

    model_type = MODEL_TYPE

    def __init__(self, hidden_size: int = 0, image_size: int = 224, **others: Any):
        self.hidden_size, self.image_size = hidden_size, image_size
        super().__init__(**others)


class OnnxEncoder(PreTrainedModel):
    """A network without parameters; `open` gives it the file."""

    config_class = OnnxConfig
    main_input_name = "pixel_values"

    def __init__(self, config: OnnxConfig):
        super().__init__(config)
        self.file: Path | None = None
        self._session: Any = None
        self.post_init()

    def open(self, file: Path) -> None:
        """Opens the file.

        Raises:
            InputError: onnxruntime is not installed, or the file is not a network of one image.
        """
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
            session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors share no class
            raise InputError(
                f"onnxruntime cannot open {str(file)!r}: {str(error).splitlines()[0]}"
            ) from None
        if len(session.get_inputs()) != 1 or len(session.get_inputs()[0].shape) != 4:
            inputs = ", ".join(f"{i.name} {i.shape}" for i in session.get_inputs())
            raise InputError(
                f"{str(file)!r} takes {inputs}; expected one input [batch, 3, height, width]."
            )
        self.file, self._session = Path(file), session
        self._input = session.get_inputs()[0]
        outputs = {output.name: output.shape for output in session.get_outputs()}
        named = [name for name in _NAMES if name in outputs]
        flat = [name for name, shape in outputs.items() if len(shape) == 2]
        self._output = [*named, *flat, *outputs][0]

    def forward(self, pixel_values: Float[Tensor, "b 3 h w"]) -> BaseModelOutputWithPooling:
        """Returns the features as the pooler's output; gradients end here."""
        assert self._session is not None, "open() comes first"
        pixels = np.ascontiguousarray(pixel_values.detach().float().cpu().numpy())
        batch = self._input.shape[0]
        step = batch if isinstance(batch, int) and batch > 0 else len(pixels)
        parts = []
        for start in range(0, len(pixels), step):
            part = pixels[start : start + step]
            # A file of a fixed batch wants it full.
            filled = np.concatenate([part, np.repeat(part[:1], step - len(part), 0)])
            [output] = self._session.run([self._output], {self._input.name: filled})
            parts.append(output[: len(part)])
        features = torch.from_numpy(np.concatenate(parts)).float().to(pixel_values.device)
        if features.ndim == 3:
            features = features[:, 0]
        elif features.ndim == 4:
            features = features.mean((2, 3))
        return BaseModelOutputWithPooling(pooler_output=features)


AutoConfig.register(MODEL_TYPE, OnnxConfig, exist_ok=True)
AutoModel.register(OnnxConfig, OnnxEncoder, exist_ok=True)
