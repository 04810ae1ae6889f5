"""One tower of an encoder as an ONNX file: pixels -> features, tokens -> features."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from openmofi.errors import InputError
from openmofi.model import MofiModel

_OPSET = 18
_EXAMPLES = 2
"""Rows of the example; with 1, the exporter would take the number of rows for fixed."""
_MOST_ROWS = 2**16


class ImageTower(torch.nn.Module):
    """The image side of a model."""

    def __init__(self, model: MofiModel):
        super().__init__()
        self.network, self.model = model.network, model

    def forward(self, pixel_values: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b D"]:
        """Returns features, of any length."""
        return self.model.image_features(pixel_values)


class TextTower(torch.nn.Module):
    """The text side of a model."""

    def __init__(self, model: MofiModel):
        super().__init__()
        self.network, self.model = model.network, model

    def forward(
        self, input_ids: Int[Tensor, "b length"], attention_mask: Tensor | None = None
    ) -> Float[Tensor, "b D"]:
        """Returns features, of any length."""
        inputs = {"input_ids": input_ids}
        if attention_mask is not None:
            inputs["attention_mask"] = attention_mask
        return self.model.token_features(inputs)


def export_images(model: MofiModel, file: Path) -> None:
    """Writes the image side.

    Raises:
        InputError: the exporter cannot follow this network.
    """
    size = model.transform.size
    example = {"pixel_values": torch.zeros(_EXAMPLES, 3, size, size)}
    _export(ImageTower(model), example, "image_embeds", file)


def export_texts(model: MofiModel, file: Path) -> None:
    """Writes the text side; texts may have any number of tokens that the tower reads.

    Raises:
        InputError: the exporter cannot follow this network.
    """
    example = model.text_inputs(["a photo of a crane", "a crane"])
    fixed = model.text_inputs(["a"])["input_ids"].shape[1] == model.context_length
    _export(TextTower(model), example, "text_embeds", file, fixed_length=fixed)


def _export(
    tower: torch.nn.Module,
    example: dict[str, Tensor],
    output: str,
    file: Path,
    *,
    fixed_length: bool = False,
) -> None:
    rows = torch.export.Dim("batch", min=1, max=_MOST_ROWS)
    shapes: dict[str, Any] = {name: {0: rows} for name in example}
    if "input_ids" in example and not fixed_length:
        length = torch.export.Dim("length", min=2, max=_MOST_ROWS)
        shapes = {name: {0: rows, 1: length} for name in example}
    with _quiet(), torch.inference_mode(False), torch.no_grad():
        try:
            torch.onnx.export(
                tower.eval(),
                tuple(example.values()),
                str(file),
                input_names=[*example],
                output_names=[output],
                dynamic_shapes=shapes,
                opset_version=_OPSET,
                external_data=False,
                dynamo=True,
                verbose=False,
            )
        except ImportError as error:
            raise InputError(f"{error}; install: pip install 'openmofi[onnx]'.") from None
        except Exception as error:  # its errors share no class
            kind = type(tower).__name__
            lines = str(error).strip().splitlines() or [repr(error)]
            raise InputError(
                f"The {kind} of {type(tower.network).__name__} cannot be written as ONNX: "
                f"{lines[0]}"
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's remarks on its own progress and on others' code from the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
