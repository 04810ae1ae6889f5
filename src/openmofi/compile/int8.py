"""A tower in 8-bit integers, by onnxruntime's quantisation.

Weights have a scale per channel. What is multiplied with them depends on the network. Convolutions
take scales of activations that were measured on images before (static): measuring them anew for
each batch costs more than it saves. Their projection at the end stays in 32 bits: it takes next to
no time, and rounding it lost captions .26 points of mAP (the demo's encoder of seed 2). In networks
with large depthwise kernels, such as MobileCLIP's of 7x7, only the other convolutions and the
products with weights are rounded: onnxruntime computes those kernels more slowly in 8 bits than in
32, and GELU between them is none of its 8-bit operations (MobileCLIP-S0: 37 ms of CPU time an image
instead of 53, and closer).
Transformers, whose few large activations fit no fixed scale, have them measured for each input
(dynamic), and keep their one convolution. A range is that of the whole input, so an image or text
must be computed alone, or its vector would depend on its company.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from openmofi.errors import InputError

_BATCH = 16
_PATCHES = 2
"""Convolutions of a transformer, which cuts its image into patches by them, at most."""
_PRODUCTS = ("Gemm", "MatMul")
_LARGEST = 5
"""Pixels per side of the largest depthwise kernel that onnxruntime computes fast in 8 bits."""


def to_int8(file: Path, out: Path, examples: Float[np.ndarray, "n 3 h w"] | None = None) -> bool:
    """Writes a tower in 8 bits; returns whether its rows must be computed alone.

    Args:
        file: ONNX file.
        out: the file to write.
        examples: network input, from which the ranges of activations are measured; a text tower
            needs none.

    Raises:
        InputError: the package onnx is missing, or the network cannot be quantised.
    """
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise InputError(f"{error}; install: pip install 'openmofi[onnx]'.") from None
    try:
        with tempfile.TemporaryDirectory(dir=out.parent) as temporary, _quiet():
            prepared = Path(temporary) / "prepared.onnx"
            quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
            nodes = onnx.load(str(prepared), load_external_data=False).graph.node
            if sum(node.op_type == "Conv" for node in nodes) > _PATCHES and examples is not None:
                _static(prepared, out, examples, **_parts(nodes))
                return False
            quantize_dynamic(
                str(prepared),
                str(out),
                op_types_to_quantize=["MatMul", "Gather"],
                per_channel=True,
                weight_type=QuantType.QInt8,
            )
            return True
    except (OSError, MemoryError):
        raise
    except Exception as error:  # its errors share no class
        lines = str(error).strip().splitlines() or [repr(error)]
        raise InputError(f"{file.name} cannot be put in 8 bits: {lines[0]}") from error


def _parts(nodes: Sequence[Any]) -> dict[str, list[str]]:
    """Returns which kinds of operations of a convolutional network to round, and which nodes not.

    Not rounded are products behind the last convolution and, in attention, of two activations. An
    empty list of kinds means all that onnxruntime can.
    """
    last = max(place for place, node in enumerate(nodes) if node.op_type == "Conv")
    computed = {name for node in nodes for name in node.output}
    spared = [
        node.name
        for place, node in enumerate(nodes)
        if node.op_type in _PRODUCTS and (place > last or computed.issuperset(node.input))
    ]
    depthwise = [n for n in nodes if n.op_type == "Conv" and _integers(n, "group") > [1]]
    if not any(max(_integers(node, "kernel_shape")) > _LARGEST for node in depthwise):
        return {"kinds": [], "spared": spared}
    return {"kinds": ["Conv", *_PRODUCTS], "spared": [*spared, *(node.name for node in depthwise)]}


def _integers(node: Any, name: str) -> list[int]:
    """Returns an attribute of a node; that of a missing one is 1."""
    found = [attribute for attribute in node.attribute if attribute.name == name]
    return [*found[0].ints] or [found[0].i] if found else [1]


def _static(
    file: Path,
    out: Path,
    examples: Float[np.ndarray, "n 3 h w"],
    *,
    kinds: list[str],
    spared: list[str],
) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    class CalibrationImages(CalibrationDataReader):
        """Hands the examples over, batch by batch."""

        def __init__(self):
            starts = range(0, len(examples), _BATCH)
            self._batches = iter(examples[start : start + _BATCH] for start in starts)

        def get_next(self) -> Any:
            batch = next(self._batches, None)
            return None if batch is None else {"pixel_values": batch}

    quantize_static(
        str(file),
        str(out),
        CalibrationImages(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=kinds or None,
        nodes_to_exclude=spared,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the quantiser's remarks from the user; it prints some, and logs others."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        logging.disable(before)
