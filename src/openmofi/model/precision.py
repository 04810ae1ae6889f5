"""In which numbers a network reads fastest on a device, where rounding does not matter."""

from __future__ import annotations

import torch

_BF16 = ("avx512_bf16", "amx_bf16")
"""Instructions of a processor that multiply bfloat16; others would imitate them."""


def dtype_of(precision: str, device: torch.device) -> torch.dtype:
    """Returns the numbers for a precision: fp32, bf16, fp16, or auto for the fastest of them.

    auto is fp16 on a GPU and `fast_dtype` elsewhere. Eight networks, with attention and with
    convolutions, did 1.6 to 2.3 times the images a CPU second in bfloat16 (docs/jobs.md).
    """
    if precision == "auto":
        return torch.float16 if device.type == "cuda" else fast_dtype(device)
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def fast_dtype(device: torch.device) -> torch.dtype:
    """Returns bfloat16 if the device multiplies it in hardware, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type == "cpu":
        able = getattr(torch.cpu, "get_capabilities", dict)()
        return torch.bfloat16 if any(able.get(name) for name in _BF16) else torch.float32
    return torch.float32
